"""Rows edited by hand: what the steps come to, what is refused, and what a version keeps of them."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import data, train
from finetune.data import disk_list, edits
from finetune.data.drafts import MOST_BYTES
from finetune.data.steps import STEP
from finetune.errors import DataError
from finetune.store import DatasetRecord, Store
from tests.examples import examples


def turns(prompt: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def small(count: int = 12, path: Path = Path("mine.jsonl")) -> data.Dataset:
    rows = [data.Example(tuple(turns(f"What is {i}?", f"It is {i}.")), i + 1) for i in range(count)]
    return data.Dataset("mine", path, "chat_jsonl", rows, [], [])


def edit(dataset: data.Dataset, place: int, prompt: str, answer: str) -> data.Edit:
    return data.Edit(place=place, was=data.mark(dataset.examples[place]), messages=turns(prompt, answer))


def delete(dataset: data.Dataset, place: int, gone: bool = True) -> data.Delete:
    return data.Delete(place=place, was=data.mark(dataset.examples[place]), gone=gone)


def answers(dataset: data.Dataset) -> list[str]:
    return [row.answer for row in dataset.examples]


def bring(store: Store, tmp_path: Path, count: int = 12) -> tuple[DatasetRecord, data.Dataset]:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row.as_row()) + "\n" for row in small(count).examples), encoding="utf-8")
    dataset = data.load(path)
    return data.keep_dataset(store, dataset), dataset


def test_each_step_does_what_it_says() -> None:
    dataset = small(4)
    steps = [
        edit(dataset, 1, "One?", "Uno."),
        delete(dataset, 0),
        data.Add(messages=turns("Five?", "It is 5.")),
        data.Replace(find="It is", put="That is", rows=3),
        edit(dataset, 3, "Three?", "It is III."),
    ]
    fixed = data.apply_edits(dataset, steps)
    assert answers(fixed) == ["Uno.", "That is 2.", "It is III.", "That is 5."], "in the order in which they were made"
    assert [row.line for row in fixed.examples] == [2, 3, 4, 5], "a row keeps its line, and a new one gets the next"
    assert (fixed.rejected[0].line, fixed.rejected[0].message) == (1, "Deleted by hand.")
    assert fixed.rows == len(fixed.examples) + len(fixed.rejected)
    assert fixed.applied == ("edited",)
    assert fixed.edits[-1].counts == data.Counts(edited=2, added=1, deleted=1, replaced=[("It is", "That is", 3)])
    assert any(problem.message == "1 row was deleted by hand." for problem in fixed.problems)


def test_a_deleted_row_comes_back_and_an_added_one_goes_without_a_trace() -> None:
    dataset = small(3)
    added = data.Add(messages=turns("New?", "Yes."))
    again = [delete(dataset, 1), delete(dataset, 1, gone=False), added]
    rows = data.Edited(dataset.examples, [*again, data.Delete(place=3, was="")])
    assert rows.now(1) == dataset.examples[1]
    assert (len(rows), rows.now(3), rows.shown(3).answer) == (4, None, "Yes.")
    assert rows.counts() == data.Counts()
    fixed = data.apply_edits(dataset, rows.steps)
    assert (answers(fixed), fixed.rejected) == (answers(dataset), [])


def test_the_report_is_made_anew() -> None:
    dataset = small(12)
    spaced = replace(dataset.examples[0], messages=tuple(turns("What is 0?", " It is 0.")))
    first = data.apply_edits(
        dataset, [data.Edit(place=0, was=data.mark(dataset.examples[0]), messages=list(spaced.messages))]
    )
    assert "leading_space" in {problem.code for problem in first.problems}
    mended = data.apply_edits(first, [edit(first, 0, "What is 0?", "It is 0.")])
    assert "leading_space" not in {problem.code for problem in mended.problems}


def test_rows_deleted_in_two_rounds_are_one_line_of_the_report() -> None:
    first = data.apply_edits(small(12), [delete(small(12), 0)])
    second = data.apply_edits(first, [delete(first, 0)])
    [said] = [problem for problem in second.problems if problem.code == "edited"]
    assert (said.count, said.lines, said.message) == (2, (1, 2), "2 rows were deleted by hand.")


def test_edits_of_other_rows_are_refused() -> None:
    dataset, other = small(3), small(3)
    other = replace(other, examples=[*other.examples[1:], other.examples[0]])
    with pytest.raises(DataError, match=r"Row 1 is not the row that was edited") as told:
        data.apply_edits(other, [delete(dataset, 0)])
    assert told.value.code == "edits_misfit"
    with pytest.raises(DataError, match="There is no row 3"):
        data.Edited(dataset.examples[:2], [delete(dataset, 2)])


def test_the_last_row_cannot_go() -> None:
    dataset = small(2)
    with pytest.raises(DataError, match="No row would be left"):
        data.apply_edits(dataset, [delete(dataset, 0), delete(dataset, 1)])


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "Hi"}], "no assistant message"),
        ([*turns("Hi", "Hello"), {"role": "user", "content": "And?"}], "Messages after the last assistant"),
        (turns("Hi", "  "), "empty"),
        ([*turns("Hi", "Hello"), {"role": "system", "content": "Be kind."}], "not the first message"),
        ([{"role": "pirate", "content": "Arr"}, *turns("Hi", "Hello")], "Unknown role"),
        (turns("Hi", "half \ud83d"), "half a character"),
        ([], "missing, empty or not a list"),
    ],
)
def test_what_no_file_may_hold_nobody_may_type(messages: list[dict], said: str) -> None:
    with pytest.raises(DataError, match=said):
        data.checked(messages)


def test_a_replacement_leaves_no_turn_empty_and_minds_where() -> None:
    row = data.Example(tuple(turns("red", "red and blue")), 1)
    everywhere = data.Replace(find="red", put="")
    assert everywhere.of(row) is row, "the prompt would be empty"
    assert data.Replace(find="red", put="", where="answers").of(row).answer == " and blue"
    assert data.Replace(find="RED", put="green", case=False, where="prompts").of(row).asked == "green"
    assert data.Replace(find="RED", put="green").of(row) is row
    assert data.Replace(find=".", put="!", case=False).of(row) is row, "a text, no pattern"
    assert data.Replace(find="red", put=r"\1", case=False).of(row).asked == r"\1"
    found = data.preview_replace(data.Edited([row] * 5, []), everywhere)
    assert (found.rows, found.kept, found.first) == (0, 5, [])


def test_a_letter_replaced_by_a_page_is_no_gigabyte() -> None:
    row = data.Example(tuple(turns("why", "a" * 200_000)), 1)
    assert data.Replace(find="a", put="b" * 10_000).of(row) is row
    assert data.Replace(find="A", put="b" * 10_000, case=False).of(row) is row
    assert len(data.Replace(find="a", put="bb").of(row).answer) == 400_000


TEXT = st.text("ab é\n<{", min_size=1, max_size=6)


@st.composite
def rounds(draw: Any) -> tuple[data.Dataset, list]:
    """A dataset, and steps as the page makes them: each names a row that is there."""
    dataset, steps = small(draw(st.integers(1, 6))), []
    for _ in range(draw(st.integers(0, 8))):
        rows = data.Edited(dataset.examples, steps)
        place = draw(st.integers(0, len(rows) - 1))
        was = data.mark(dataset.examples[place]) if place < len(dataset.examples) else ""
        said = turns(f"q{draw(TEXT)}", f"a{draw(TEXT)}")
        steps.append(
            draw(
                st.sampled_from(
                    [
                        data.Edit(place=place, was=was, messages=said),
                        data.Delete(place=place, was=was, gone=draw(st.booleans())),
                        data.Add(messages=said),
                        data.Replace(find=draw(TEXT), put=draw(TEXT), case=draw(st.booleans())),
                    ]
                )
            )
        )
    return dataset, steps


@examples(100)
@given(rounds())
def test_what_is_seen_is_what_is_saved_and_read_again(made: tuple[data.Dataset, list]) -> None:
    dataset, steps = made
    seen = data.Edited(dataset.examples, steps)
    there = [row for row in map(seen.now, range(len(seen))) if row is not None]
    assert [row for row in seen.states() if row is not None] == there
    assert list(seen) == [seen.shown(place) for place in range(len(seen))]
    if not there:
        return
    fixed = data.apply_edits(dataset, steps)
    assert list(fixed.examples) == there
    again = [STEP.validate_json(step.model_dump_json()) for step in steps]
    assert list(data.apply_edits(dataset, again).examples) == there
    found = data.compare(dataset.examples, fixed.examples)
    assert found.counts["added"] == sum(row.line > len(dataset.examples) for row in there)
    assert found.counts["removed"] == len(fixed.rejected)
    before = {row.line: row for row in dataset.examples}
    changed = sum(row.line in before and before[row.line] != row for row in there)
    assert found.counts["changed"] == changed


def test_a_version_is_kept_with_its_parent_and_opens_as_it_was_saved(store: Store, tmp_path: Path) -> None:
    first, dataset = bring(store, tmp_path)
    fixed = data.apply_edits(dataset, [edit(dataset, 2, "Two?", "Dos."), delete(dataset, 0)])
    second = data.keep_dataset(store, fixed, parent=first, author="ada")
    assert (first.title, second.title, second.parent, second.author) == ("mine", "mine v2", first.id, "ada")
    filled = data.apply(fixed, ["fill_system_prompt"], system="Count.")
    third = data.keep_dataset(store, filled, fixed_with=data.FixedWith(system="Count."), parent=second)
    opened = data.reopen(store.dataset(third.id))
    assert (third.title, opened.applied) == ("mine v3", ("edited", "fill_system_prompt"))
    assert (opened.examples[1].system, opened.examples[1].answer) == ("Count.", "Dos.")
    assert [record.version for record in store.versions(first)] == [3, 2, 1]
    assert data.keep_dataset(store, data.reload(third), parent=third).id == first.id, "what was undone is what it was"
    assert data.keep_dataset(store, fixed, parent=first).id == second.id
    assert second.facts.edited == {"edited": 1, "added": 0, "deleted": 1, "replaced": []}
    assert third.facts.edited == {}


def test_two_versions_of_one_parent_have_two_numbers(store: Store, tmp_path: Path) -> None:
    first, dataset = bring(store, tmp_path)
    found = []
    barrier = threading.Barrier(4)

    def keep(place: int) -> None:
        fixed = data.apply_edits(dataset, [delete(dataset, place)])
        barrier.wait()
        found.append(data.keep_dataset(store, fixed, parent=first).version)

    threads = [threading.Thread(target=keep, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [2, 3, 4, 5]


def test_a_run_stays_with_its_version_and_is_named_after_it(store: Store, tmp_path: Path, tiny: Path) -> None:
    first, dataset = bring(store, tmp_path)
    config = train.TrainConfig(model=str(tiny), held_out=0.2)
    old = train.start(store, config, first)
    second = data.keep_dataset(store, data.apply_edits(dataset, [edit(dataset, 2, "Two?", "Dos.")]), parent=first)
    new = train.start(store, config, second)
    assert old.name.startswith("mine · ")
    assert new.name.startswith("mine v2 · ")
    said = [{row.answer for part in train.rows_of_run(store, run) for row in part} for run in (old, new)]
    assert ("Dos." in said[0], "Dos." in said[1]) == (False, True)


def test_a_file_that_is_read_otherwise_now_opens_with_the_rows_as_saved(store: Store, tmp_path: Path) -> None:
    first, dataset = bring(store, tmp_path)
    second = data.keep_dataset(store, data.apply_edits(dataset, [edit(dataset, 2, "Two?", "Dos.")]), parent=first)
    original = Path(second.folder) / "original" / "train.jsonl"
    original.write_text("".join(reversed(original.read_text().splitlines(keepends=True))))
    assert answers(data.reopen(second))[2] == "Dos."
    with pytest.raises(DataError, match="edits"):
        data.reopen(second, data.Mapping(user="{messages}", assistant="{messages}"))


def test_a_draft_survives_and_is_undone_step_by_step(store: Store, tmp_path: Path) -> None:
    record, dataset = bring(store, tmp_path)
    assert data.draft(record) == []
    data.undo_step(record)
    steps = [edit(dataset, 1, "One?", "Uno.\u2028\x00"), delete(dataset, 0), data.Replace(find="a", put="é")]
    for step in steps:
        data.add_step(record, step)
    assert data.draft(store.dataset(record.id)) == steps, "also by another process"
    data.undo_step(record)
    assert data.draft(record) == steps[:2]
    data.settle(record, steps[:1])
    assert data.draft(record) == steps[1:2], "what another window added while this one saved is kept"
    data.discard_draft(record)
    assert data.draft(record) == []
    assert data.keep_dataset(store, data.reload(record)).id == record.id, "a draft is no part of the data"


def test_a_draft_that_is_full_or_damaged_is_a_sentence(store: Store, tmp_path: Path) -> None:
    record, _ = bring(store, tmp_path)
    data.add_step(record, data.Replace(find="x", put="y"))
    with pytest.raises(DataError, match="too many unsaved edits"):
        data.add_step(record, data.Add(messages=turns("?", "!" * MOST_BYTES)))
    assert len(data.draft(record)) == 1, "what was there is still there"
    (Path(record.folder) / "draft.jsonl").write_text("{no step\n")
    with pytest.raises(DataError, match="cannot be read"):
        data.draft(record)


def test_a_draft_goes_with_its_dataset(store: Store, tmp_path: Path) -> None:
    record, dataset = bring(store, tmp_path)
    data.add_step(record, delete(dataset, 0))
    train.delete_dataset(store, record.id)
    assert not Path(record.folder).exists()
    with pytest.raises(DataError, match="gone"):
        data.add_step(record, delete(dataset, 1))


def test_many_rows_are_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_list, "IN_MEMORY", 50)
    keeper = disk_list.example_keeper()
    for row in small(300).examples:
        keeper.add(row)
    dataset = replace(small(0), examples=keeper.kept())
    fixed = data.apply_edits(dataset, [data.Replace(find="It is", put="That is"), delete(dataset, 7)])
    assert isinstance(fixed.examples, disk_list.Spool)
    assert fixed.examples[7].answer == "That is 8."
    found = data.compare(dataset.examples, fixed.examples)
    assert found.counts == {"changed": 299, "added": 0, "removed": 1}
    page = found.page(5, 4)
    assert [(one.kind, one.after and one.after.line) for one in page][2] == ("removed", None)


def test_rows_that_share_a_line_are_matched_by_what_they_say() -> None:
    def on_one_line(*said: str) -> list[data.Example]:
        return [data.Example(tuple(turns(f"{one}?", one)), 1) for one in said]

    found = data.compare(on_one_line("a", "b", "c", "d"), on_one_line("a", "c", "D"))
    assert found.counts == {"changed": 1, "added": 0, "removed": 1}
    said = [(one.kind, one.before and one.before.answer, one.after and one.after.answer) for one in found.page(0, 9)]
    assert said == [("removed", "b", None), ("changed", "d", "D")]
    assert len(data.compare([], [])) == 0


def test_every_problem_of_a_row_can_be_gone_through() -> None:
    dirty = data.load(data.DIRTY.path)
    for problem in data.walkable(dirty):
        seen: list[int] = []
        place = data.next_with(dirty, problem.code, -1)
        while place is not None and place not in seen:
            seen.append(place)
            place = data.next_with(dirty, problem.code, place)
        assert {dirty.examples[place].line for place in seen} >= set(problem.lines), problem.code
        assert len(seen) == problem.count or not data.all_known(problem.code), problem.code


def test_what_was_mended_is_not_shown_again() -> None:
    dirty = data.load(data.DIRTY.path)
    for code in ("leading_space", "duplicate"):
        place = data.next_with(dirty, code, -1)
        assert place is not None
        gone = data.Edited(dirty.examples, [delete(dirty, place)])
        after = data.next_with(dirty, code, -1, gone)
        assert after not in (None, place)
    place = data.next_with(dirty, "leading_space", -1) or 0
    still = data.Edited(dirty.examples, [edit(dirty, place, "Depth?", " Two metres.")])
    assert data.next_with(dirty, "leading_space", -1, still) == place, "edited, but not mended"


ROW = st.lists(TEXT.map(str.strip).filter(bool), min_size=2, max_size=3)


@examples(60)
@given(rows=st.lists(ROW, min_size=1, max_size=5), kind=st.sampled_from(list(data.KINDS)))
def test_a_download_is_read_back_as_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list, kind: Any
) -> None:
    """Texts begin with a letter: a cell that is all numbers, or begins like a list, is a number or a list to anyone."""
    roles = {2: ("user", "assistant"), 3: ("system", "user", "assistant")}
    made = [
        data.Example(
            tuple({"role": role, "content": f"x{one}"} for role, one in zip(roles[len(row)], row, strict=True)), 1
        )
        for row in rows
    ]
    path = tmp_path_factory.mktemp("rows") / f"rows.{kind}"
    data.write_rows(made, path, kind)
    assert [row.messages for row in data.load(path).examples] == [row.messages for row in made]


@pytest.mark.parametrize("kind", list(data.KINDS))
@pytest.mark.parametrize("sample", ["recipes", "sql", "tickets", "voice", "dirty"])
def test_each_sample_is_downloaded_whole(sample: str, kind: Any, tmp_path: Path) -> None:
    found = data.DIRTY.path if sample == "dirty" else Path("sample_data") / sample
    rows = data.load(found).examples
    path = tmp_path / f"rows.{kind}"
    data.write_rows(rows, path, kind)
    again = data.load(path).examples
    assert [row.messages for row in again] == [row.messages for row in rows]
    assert [row.tools for row in again] == [row.tools for row in rows]


def test_a_tool_call_is_downloaded_whole(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asked = [{"role": "user", "content": "Look."}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    row = edits.checked(
        [*asked, {"role": "tool", "content": "7", "tool_call_id": "c1"}, *turns("So?", "Seven.")], tools
    )
    for kind in data.KINDS:
        path = tmp_path / f"rows.{kind}"
        data.write_rows([row], path, kind)
        [again] = data.load(path).examples
        assert (again.messages, again.tools) == (row.messages, row.tools)
