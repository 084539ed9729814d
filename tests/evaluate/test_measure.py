"""An evaluation for real, with the tiny model: every arm, resumed, honest."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetune import data, evaluate, models, train
from finetune.chat import Ask, Engine, Sampling
from finetune.chat.engine import AT_ONCE
from finetune.data import Example
from finetune.errors import ConfigError, DataError
from finetune.evaluate.arms import Asking
from finetune.evaluate.measure import general, take
from finetune.evaluate.stats import batched_interval
from finetune.evaluate.task import Task
from finetune.store import Run, Store
from tests.chat.test_base import drawn
from tests.conftest import conversation, train_tiny


def example(question: str, answer: str) -> Example:
    return Example(conversation(question, answer), line=1)


@pytest.fixture
def many(tmp_path: Path) -> data.Dataset:
    """Two hundred little sums, of which thirty are held out."""
    rows = [{"messages": conversation(f"What is {i} plus {7 * i}?", f"{8 * i}")} for i in range(200)]
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)


@pytest.fixture
def run(store: Store, tiny: Path, many: data.Dataset) -> Run:
    return train_tiny(store, tiny, many)


def done(task: Task, engine: Engine) -> evaluate.Report:
    steps = list(evaluate.measure(task, engine))
    assert steps[-1][0] == steps[-1][1]
    return evaluate.conclude(task, "sums")


def test_all_arms_are_measured_and_an_adapter_of_zeros_makes_no_difference(store: Store, run: Run) -> None:
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(weights).items()}, weights)
    task = evaluate.of_run(run, store)
    assert evaluate.known(run) is None
    found = done(task, Engine())
    assert (found.n, found.excluded, found.kind) == (30, 0, "number")
    assert tuple(found.arms) == evaluate.ARMS
    base, tuned = found.arms["base"], found.arms["tuned"]
    assert base.loss == pytest.approx(tuned.loss, abs=1e-5)
    assert found.verdict.code == "no_difference"
    assert found.forgetting.said == "unchanged"
    assert found.forgetting.n == len(general()) >= 60
    assert len(found.forgetting.answers) == 5
    assert base.prompt_tokens < found.arms["few_shot"].prompt_tokens
    assert set(base.model_dump()) >= {
        "score",
        "ci",
        "correct",
        "loss",
        "prompt_tokens",
        "seconds",
        "empty",
        "over_long",
    }
    json.dumps(found.as_json())
    known = evaluate.known(run)
    assert known is not None
    assert known.verdict == found.verdict
    rows = evaluate.judged(task, evaluate.answered(task))
    assert len(rows) == 30
    assert set(rows[0].arms) == set(evaluate.ARMS)
    assert sum(bool(row.arms["base"].right) for row in rows) == base.correct


def test_stopped_amid_the_general_prompts_there_is_a_verdict_without_them(store: Store, run: Run) -> None:
    """Those that are not answered in text end first, so base and tuned model may have as many of them."""
    task = evaluate.of_run(run, store)
    done(task, Engine())
    file = task.folder / "answers.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    left = [one for one in lines if not (one["arm"].startswith("general") and one["row"] < 5)]
    assert len(left) == len(lines) - 10
    file.write_text("".join(f"{json.dumps(one)}\n" for one in left))
    found = evaluate.conclude(task, "sums")
    assert found.verdict
    assert found.forgetting is None


def test_the_loss_is_that_of_plain_transformers(tiny: Path) -> None:
    messages = [{"role": "user", "content": "What is 3 plus 3?"}]
    longer = [*conversation("What is 1 plus 1?", "2"), {"role": "user", "content": "What is 2 plus 20?"}]
    silent, stop = [Sampling(max_tokens=0)] * 2, threading.Event()
    judged = Engine().judge([Ask(messages), Ask(longer)], ["6", "22"], str(tiny), silent, stop)
    found = [loss for _, _, loss in sorted(judged, key=lambda one: one[0])]
    tokenizer, model = models.load_tokenizer(models.find(str(tiny))), AutoModelForCausalLM.from_pretrained(tiny)
    for asked, answer, loss in ((messages, "6", found[0]), (longer, "22", found[1])):
        prompt = models.prompt_ids(asked, tokenizer)
        whole = prompt + tokenizer.encode(answer, add_special_tokens=False) + [models.end_of_turn(tokenizer)]
        labels = torch.tensor([[-100] * len(prompt) + whole[len(prompt) :]])
        mean = model(input_ids=torch.tensor([whole]), labels=labels).loss
        assert loss.tokens == len(whole) - len(prompt)
        assert loss.total / loss.tokens == pytest.approx(mean.item(), abs=1e-4)


def test_judged_together_answers_and_losses_are_those_of_each_alone(store: Store, tiny: Path) -> None:
    """More rows than are answered at once, of two models, of uneven length; some are only judged."""
    run, count = drawn(store, tiny, 1), AT_ONCE + 8
    questions = ["sum " * (1 + row % 7) + str(row) for row in range(count)]
    asks = [Ask(conversation(text, "")[:-1], run if row % 2 else None) for row, text in enumerate(questions)]
    answers = [f"{row} " * (1 + row % 3) for row in range(count)]
    sampling = [Sampling(max_tokens=0 if row % 5 == 0 else 3 + row % 6) for row in range(count)]
    stop = threading.Event()
    together = {place: rest for place, *rest in Engine().judge(asks, answers, str(tiny), sampling, stop)}
    assert len(together) == count
    alone = Engine()
    for place, (reply, loss) in together.items():
        [(_, said, its)] = alone.judge([asks[place]], [answers[place]], str(tiny), [sampling[place]], stop)
        assert (reply.text, reply.tokens) == (said.text, said.tokens)
        assert (loss.total, loss.tokens) == (pytest.approx(its.total, rel=1e-4), its.tokens)


def test_answers_with_line_separators_are_read_again(store: Store, run: Run) -> None:
    """U+2028 and its like end a line for Python's `splitlines`, not for JSON."""
    task = evaluate.of_run(run, store, arms=("base", "tuned"), limit=3)
    done(task, Engine())
    known = [one.model_copy(update={"text": "a\u2028b\u2029c\u0085d\u001ce"}) for one in evaluate.answered(task)]
    (task.folder / "answers.jsonl").unlink()
    assert take(task, known) == len(known)
    assert evaluate.answered(task) == known
    assert take(task, known) == 0


def test_seconds_are_compared_by_what_was_answered_together(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are kept in the order in which they ended, which is not that of the rows."""
    monkeypatch.setattr(sys.modules["finetune.evaluate.measure"], "AT_ONCE", 2)
    task = evaluate.of_run(run, store, arms=("base", "tuned"), limit=8)
    done(task, Engine())
    known = evaluate.answered(task)
    for arm in ("base", "tuned"):
        places = [place for place, one in enumerate(known) if one.arm == arm]
        for number, (place, row) in enumerate(zip(places, (3, 4, 0, 6, 1, 7, 2, 5), strict=True)):
            known[place] = known[place].model_copy(update={"row": row, "seconds": float(1 + number // 2)})
    found = evaluate.report(task, known).arms["tuned"]
    together = batched_interval([1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0])
    assert together
    assert found.seconds_ci == [round(end, 3) for end in together]


def test_it_goes_on_where_it_was_stopped(store: Store, run: Run) -> None:
    task, engine, stop = evaluate.of_run(run, store, limit=20), Engine(), threading.Event()
    for count, _ in evaluate.measure(task, engine, stop):
        if count >= 16:
            stop.set()
    before = evaluate.answered(task)
    assert 16 <= len(before) < 40
    with (task.folder / "answers.jsonl").open("a") as file:
        file.write('{"row": 1, "arm"')  # torn by a crash
    again = evaluate.of_run(run, store, limit=20)
    assert again.key == task.key
    done(again, engine)
    after = evaluate.answered(again)
    assert after[: len(before)] == before
    lines = (task.folder / "answers.jsonl").read_text().splitlines()
    assert len(lines) == len(after) + 1, "each was asked once; one line is the torn one"
    assert train.run_folder(run.id) in task.folder.parents, "they go with the run"


def test_rows_that_training_saw_are_left_out_and_counted(
    store: Store, run: Run, tmp_path: Path, many: data.Dataset
) -> None:
    seen, held = train.rows_of_run(store, run)
    file = tmp_path / "leaky.jsonl"
    rows = [*seen[:7], *held[:5]]
    file.write_text("\n".join(json.dumps(row.as_row()) for row in rows), encoding="utf-8")
    task = evaluate.of_run(run, store, held_out=file)
    assert (len(task.rows), task.excluded) == (5, 7)
    assert not {row.asked for row in task.rows} & {row.asked for row in seen}
    file.write_text("\n".join(json.dumps(row.as_row()) for row in seen[:3]), encoding="utf-8")
    with pytest.raises(DataError, match="No held-out row is left"):
        evaluate.of_run(run, store, held_out=file)


def test_rows_that_cannot_be_read_are_counted_and_of_a_folder_the_held_out_file_is_asked(
    store: Store, run: Run, tmp_path: Path
) -> None:
    def line(i: int) -> str:
        return json.dumps(example(f"How much is {i} times {i}?", f"{i * i}").as_row())

    file = tmp_path / "torn.jsonl"
    file.write_text("\n".join([*map(line, range(25)), *["{torn"] * 20]), encoding="utf-8")
    assert [evaluate.of_run(run, store, held_out=file).left_out, len(data.load(file).examples)] == [20, 25]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(map(line, range(30))), encoding="utf-8")
    (folder / "validation.jsonl").write_text("\n".join([*map(line, range(40, 45)), "{torn"]), encoding="utf-8")
    task = evaluate.of_run(run, store, held_out=folder)
    assert ([row.answer for row in task.rows], task.left_out) == ([f"{i * i}" for i in range(40, 45)], 1)
    assert evaluate.of_data(run.config["model"], folder).left_out == 1


def test_rows_that_chose_the_checkpoint_are_said_to_flatter(
    store: Store, tiny: Path, many: data.Dataset, tmp_path: Path
) -> None:
    """The best of several checkpoints by these rows' loss, measured on these rows, looks better than it is."""
    picked = train_tiny(store, tiny, many, early_stopping=2, eval_every=2)
    assert (
        "chosen by the loss on these same rows"
        in done(evaluate.of_run(picked, store, limit=20), Engine()).verdict.sentence
    )
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(example("How much is 12 times 12?", "144").as_row()), encoding="utf-8")
    assert not evaluate.of_run(picked, store, held_out=other).picked


def test_without_a_run_the_alternatives_are_measured(tiny: Path, many: data.Dataset) -> None:
    task = evaluate.of_data(str(tiny), many.path, limit=8)
    found = done(task, Engine())
    assert list(found.arms) == ["base", "few_shot", "retrieval", "majority", "nearest"]
    assert (found.run, found.verdict, found.forgetting) == (None, None, None)
    with pytest.raises(ConfigError, match="no tuned arm"):
        evaluate.of_data(str(tiny), many.path, arms=("base", "tuned"))
    with pytest.raises(ConfigError, match="no such arm"):
        evaluate.of_data(str(tiny), many.path, arms=("nope",))
    shutil.rmtree(task.folder)


def test_examples_are_those_most_like_the_question() -> None:
    rows = [
        example(f"A question about {thing}?", thing.upper()) for thing in ("apples", "bread", "cars", "dogs", "eggs")
    ]
    asking = Asking(rows, seed=0, count=2)
    asked = example("Tell me about cars", "?")
    assert asking.similar(asked)[0].answer == "CARS"
    retrieved = asking.messages("retrieval", asked)
    assert retrieved[-2]["content"] == "CARS"
    assert retrieved[-1] == {"role": "user", "content": "Tell me about cars"}
    assert len(asking.messages("few_shot", asked)) == 5
    assert asking.messages("few_shot", asked)[:4] == asking.messages("few_shot", rows[0])[:4]
    assert asking.answer("nearest", asked) == "CARS"
    assert Asking([], seed=0).answer("nearest", asked) == ""
    assert Asking([example("?", "!")], seed=0).similar(asked) == [], "a question without a word is like no other"


def test_examples_are_answers_in_text_and_the_majority_is_counted_as_answers_are_judged() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}
    calls = [
        Example(({"role": "user", "content": f"Weather in {i}?"}, call), i, tools=({"name": "w"},)) for i in range(9)
    ]
    rows = [*calls, *(example(f"Is {i} even?", said) for i, said in enumerate(["Yes", "yes", "no", "yes", "no"]))]
    asking = Asking(rows, seed=0)
    assert all(row.answer for row in (*asking.shots, *asking.single))
    assert asking.majority == "yes"


def test_a_question_that_does_not_fit_is_counted_and_stops_nothing(store: Store, run: Run, tmp_path: Path) -> None:
    rows = [
        {"messages": conversation(f"What is {i} plus {i}? {'long ' * 400 * (i == 3)}", f"{2 * i}")} for i in range(5)
    ]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = evaluate.of_run(run, store, held_out=tmp_path / "more.jsonl")
    found = done(task, Engine())
    for arm in ("base", "few_shot", "retrieval", "tuned"):
        assert (found.arms[arm].too_long, found.arms[arm].empty >= 1) == (1, True)
        assert found.arms[arm].loss > 0
    seconds = [one.seconds for one in evaluate.answered(task) if one.arm == "base" and one.stop != "too_long"]
    assert all(seconds), "each has its share of the batch that it was asked in"
    assert found.arms["base"].seconds == pytest.approx(sum(seconds) / len(seconds), abs=1e-3)
    long = next(one for one in evaluate.answered(task) if one.stop == "too_long")
    assert "long long" in task.rows[long.row].asked


def test_examples_that_do_not_fit_are_said_to_be_missing(tiny: Path, tmp_path: Path) -> None:
    """The tiny model's context is 512 tokens: three examples of 300 leave no room."""
    rows = [{"messages": conversation(f"Sum {i}? {'so ' * 100}", f"{i}")} for i in range(30)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = done(evaluate.of_data(str(tiny), tmp_path / "long.jsonl", limit=3), Engine())
    assert found.arms["base"].fewer_examples == 0
    assert found.arms["few_shot"].fewer_examples == 3


def test_one_row_of_free_text_is_too_few_and_a_loss_is_not_called_right(store: Store, run: Run) -> None:
    found = done(evaluate.of_run(run, store, limit=1, kind="free"), Engine())
    assert found.verdict.code == "too_few_rows"
    assert found.difference.ci is found.arms["tuned"].ci is None
    assert "not whether the answers it writes are right" in found.verdict.sentence


def test_every_arm_is_asked_of_the_copy_that_the_run_was_trained_on(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    real = models.find
    monkeypatch.setattr(
        models, "find", lambda name, *rest, source=None: asked.append(source) or real(name, *rest, source=source)
    )
    list(evaluate.measure(evaluate.of_run(run, store, limit=2), Engine()))
    assert set(asked) == {"local"}


def test_a_model_that_changed_is_asked_again(tiny: Path, tmp_path: Path, many: data.Dataset) -> None:
    folder = shutil.copytree(tiny, tmp_path / "mine")
    before = evaluate.of_data(str(folder), many.path, limit=2).key
    assert evaluate.of_data(str(folder), many.path, limit=2).key == before
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors")
    assert evaluate.of_data(str(folder), many.path, limit=2).key != before


def test_the_time_left_is_counted_from_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the model before it took a minute, and with one answer done the rest seemed to take hours."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    of = 3 + 4 * AT_ONCE

    def steps() -> Generator[tuple[int, int]]:
        nonlocal now
        yield 3, of  # three of an earlier time
        now = 60.0
        for done in range(4, of + 1):
            yield done, of
            now += 10.0 if (done - 3) % AT_ONCE == 0 else 0.0  # those of a batch end together

    left = {done: seconds for done, _, seconds in evaluate.paced(steps())}
    assert all(left[done] is None for done in range(3, 3 + 2 * AT_ONCE))
    assert [left[3 + batches * AT_ONCE] for batches in (2, 3, 4)] == [20.0, 10.0, 0.0], "at the end of each batch"
