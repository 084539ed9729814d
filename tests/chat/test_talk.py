"""A conversation in columns: each has its own history, and examples come from the training rows."""

import pytest

from finetune import data
from finetune.chat import Reply, Sampling
from finetune.chat.talk import SHOTS, Column, Talk, shots
from finetune.chat.transcript import transcript
from finetune.store import Facts, Run, Store

PAYLOAD = "<script>alert(1)</script>"


@pytest.fixture
def run(store: Store) -> Run:
    record = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())
    return store.add_run(owner="local", name=f"first {PAYLOAD}", dataset=record.id, config={"model": "/home/me/base"})


def roles(messages: object) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]  # type: ignore[attr-defined]


def test_every_column_remembers_its_own_answers(run: Run) -> None:
    talk = Talk(run, (Column("base", "Base"), Column("tuned", "Tuned", run, strength=0.5)), system="Add.")
    talk = talk.answered("1+1", (Reply("three"), Reply("2")), "2")
    base, tuned = talk.asks("2+2")
    assert roles(base.messages) == [("system", "Add."), ("user", "1+1"), ("assistant", "three"), ("user", "2+2")]
    assert roles(tuned.messages) == [("system", "Add."), ("user", "1+1"), ("assistant", "2"), ("user", "2+2")]
    assert (base.adapter, tuned.adapter and tuned.adapter.strength) == (None, 0.5)
    assert talk.undone().turns == ()


def test_examples_come_first_and_are_the_same_for_the_same_seed(run: Run, small_dataset: data.Dataset) -> None:
    drawn = shots(small_dataset.examples, seed=3)
    assert drawn == shots(small_dataset.examples, seed=3) != shots(small_dataset.examples, seed=4)
    assert len({shot.asked for shot in drawn}) == SHOTS
    [asked] = Talk(run, (Column("shots", "Few-shot", shots=drawn),)).asks("Now?")
    assert roles(asked.messages)[:2] == [("user", drawn[0].asked), ("assistant", drawn[0].answer)]
    assert len(asked.messages) == 2 * SHOTS + 1


def test_only_single_questions_serve_as_examples() -> None:
    question, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    longer = data.Example((question, answer, question, answer), line=1)
    with_system = data.Example(({"role": "system", "content": "s"}, question, answer), line=2)
    assert shots([longer, with_system], 0) == (with_system,)
    assert shots([], 0) == ()


def test_the_transcript_says_what_was_measured_and_runs_nothing(run: Run) -> None:
    talk = Talk(run, (Column("base", "Base"), Column("tuned", PAYLOAD, run)), system=PAYLOAD)
    answers = Reply(PAYLOAD), Reply('"><img src=x onerror=alert(1)>')
    page = transcript(talk.answered(PAYLOAD, answers, PAYLOAD, Sampling(temperature=0.5, seed=3)))
    assert "<script" not in page
    assert "<img" not in page
    assert "default-src 'none'" in page
    assert run.id in page
    assert "not measured" in page
    assert "/home/me" not in page
    vote = {"choice": "tuned", "left": "base", "messages": [], "base": "a", "tuned": "b", "at": 0.0}
    assert "temperature 0.5, top-p 1, seed 3" in page
    assert "not evaluated" in page
    assert "It helped." in transcript(talk, [], "It helped.")
    assert "1 of 1 decided votes" in transcript(talk, [vote])
