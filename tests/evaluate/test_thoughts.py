"""What was thought before an answer is no part of it: neither in the data, nor in what a model says."""

from types import SimpleNamespace

import pytest

from finetune.chat import Reply
from finetune.chat.talk import Column, Talk, Turn
from finetune.chat.transcript import transcript
from finetune.evaluate import kind_of, look
from finetune.evaluate.scores import confusion, macro_f1, scored
from finetune.models import IGNORED, prompt_ids, render, split_thought
from finetune.ui.chat import compare
from tests.models.families import FAMILIES, ODD_FAMILIES, tokenizer_of

FORMS = [
    "<think>\nTwo and two.\n</think>\n\n{answer}",  # as data has it, and a model whose prompt opens no thought
    "Two and two.\n</think>\n\n{answer}",  # the prompt has opened the thought
    "\nTwo and two.</think>{answer}",
    "<think>\nTwo and two. </think> No: </think>\n{answer}",  # closed twice
]
EMPTY = ["<think>\n\n</think>\n\n{answer}", "\n</think>\n\n{answer}", "</think>{answer}", "{answer}"]


@pytest.mark.parametrize("form", [*FORMS, *EMPTY])
def test_a_thought_and_its_answer_are_told_apart(form: str) -> None:
    thought, answer = split_thought(form.format(answer="four"))
    assert answer == "four"
    assert thought.startswith("Two and two.") == (form in FORMS)
    assert "think>" not in thought


@pytest.mark.parametrize("text", ["<think>\nTwo and", "  <think>Two and"])
def test_a_thought_that_was_cut_has_no_answer(text: str) -> None:
    assert split_thought(text) == ("Two and", "")


@pytest.mark.parametrize("form", [*FORMS, *EMPTY])
@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("label", "billing", "login"),
        ("json", '{"a": 1}', '{"a": 2}'),
        ("sql", "SELECT a FROM t", "SELECT b FROM t"),
        ("number", "1,000", "999"),
        ("short", "In burrows.", "At sea."),
    ],
)
def test_answers_are_scored_without_their_thoughts(form: str, kind: str, right: str, wrong: str) -> None:
    for expected in (right, FORMS[0].format(answer=right)):
        assert scored(form.format(answer=right), expected, kind).right is True
        assert scored(form.format(answer=wrong), expected, kind).right is False
        assert look(form.format(answer=right), kind, expected).right is True
    assert kind_of([form.format(answer=answer) for answer in (right, wrong) * 4]) in (kind, "label")


@pytest.mark.parametrize("form", FORMS)
def test_free_text_is_compared_without_thoughts(form: str) -> None:
    whole = scored("In burrows on cliffs.", "In burrows on cliffs.", "free").parts
    assert scored(form.format(answer="In burrows on cliffs."), "In burrows on cliffs.", "free").parts == whole


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_counted_without_thoughts(form: str) -> None:
    answers, expected = [form.format(answer=one) for one in ("a", "b", "b")], ["a", "b", form.format(answer="a")]
    assert confusion(answers, expected) == {"a": {"a": 1, "b": 1}, "b": {"b": 1}}
    assert macro_f1(answers, expected) == macro_f1(["a", "b", "b"], ["a", "b", "a"])


THINKING = [
    known for known in (*FAMILIES, *ODD_FAMILIES) if known.name in ("qwen3", "deepseek r1", "smollm2", "gemma3")
]


@pytest.mark.parametrize("known", THINKING, ids=lambda known: known.name)
@pytest.mark.parametrize("thought", ["Two and two.", ""])
def test_what_a_model_learns_to_write_comes_apart(known, thought: str) -> None:
    """A model that has learned its row writes these tokens after the prompt, whoever opens the thought."""
    tokenizer = tokenizer_of(known)
    said = f"<think>\n{thought}\n</think>\n\nfour" if thought else "four"
    asked = [{"role": "user", "content": "2+2?"}]
    made = render([*asked, {"role": "assistant", "content": said}], tokenizer)
    opened = "<think>" in tokenizer.decode(prompt_ids(asked, tokenizer, thinking=True))
    text = tokenizer.decode([label for label in made.labels if label != IGNORED], skip_special_tokens=True)
    assert split_thought(text) == (thought, "four"), (opened, text)


COLUMNS = (Column("base", "Base"), Column("tuned", "Tuned"))


@pytest.mark.parametrize("form", FORMS)
def test_chat_and_its_transcript_show_the_thought_apart(form: str) -> None:
    replies = tuple(
        Reply(form.format(answer=answer), tokens=4, prompt=(1, 2), seconds=1.0, stop="end_of_turn")
        for answer in ("At sea.", "In burrows.")
    )
    turn = Turn("Where?", replies, "In burrows.")
    page = str(compare.turn(turn, COLUMNS, "short"))
    said = [part.split("</div>")[0] for part in page.split("class='ba-said'")[1:]]
    assert ["Two and two." in one.split(">", 1)[1] for one in said] == [False, False]
    assert page.count("Thought") == 2
    assert "right" in page
    assert "wrong" in page
    result = SimpleNamespace(base_eval_loss=None, start_eval_loss=None, eval_loss=None)
    run = SimpleNamespace(
        id="r1", name="r", state="succeeded", step=1, config={"model": "m"}, result=result, lineage=()
    )
    shared = transcript(Talk(run, COLUMNS, turns=(turn,)))  # type: ignore[arg-type]
    assert shared.count("<summary>Thought</summary>") == 2
    assert "<pre>In burrows.</pre>" in shared


def test_answers_without_thoughts_show_none() -> None:
    replies = (Reply("At sea.", stop="end_of_turn"), Reply("In burrows.", stop="end_of_turn"))
    assert "Thought" not in str(compare.turn(Turn("Where?", replies), COLUMNS, "short"))
