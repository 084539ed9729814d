"""A conversation as HTML: text stays text, and what is printed was measured."""

from finetune.chat import Reply
from finetune.chat.talk import Column, Turn
from finetune.ui.chat import compare

COLUMNS = (Column("base", "Before"), Column("tuned", "After"))


def test_stats_say_only_what_was_measured() -> None:
    assert compare.stats(Reply()) == ""
    assert compare.stats(Reply(prompt=(1,) * 9)) == "9 → 0 tokens · …"
    line = compare.stats(Reply("x", tokens=4, prompt=(1,) * 9, seconds=2, first=0.5, stop="length", dropped=2))
    assert "2.0 tokens/s" in line
    assert "cut at max tokens" in line
    assert "2 oldest messages left out" in line


def test_details_say_whether_the_prompts_are_the_same() -> None:
    base, same, other = Reply(prompt=(1, 2)), Reply(prompt=(1, 2)), Reply(prompt=(1, 3))
    assert "the same ids" in compare.details(same, base)
    assert "not the first column" in compare.details(other, base)


def test_who_waits_is_told_and_the_expected_answer_comes_last() -> None:
    waiting = compare.turn(Turn("Hi", (Reply(ahead=2), Reply(ahead=2)), "Hello"), COLUMNS, "free")
    assert "2 answers ahead of yours" in waiting
    assert "Hello" not in waiting
    half = Turn("Hi", (Reply("a", stop="length"), Reply("b")), "Hello")
    assert "Hello" not in compare.turn(half, COLUMNS, "free")
    done = Turn("Hi", (Reply("a", stop="length"), Reply("b", stop="length")), "Hello")
    assert "Hello" in compare.turn(done, COLUMNS, "free")


def test_differences_are_by_word() -> None:
    for loop, other in (("a b " * 500, "a b b " * 333), ("no " * 1000, "no, " * 900)):
        assert "too repetitive" in compare._difference(loop, other), "comparing would take minutes"
    assert compare.difference("a red egg", "a blue egg") == "a <del>red</del><ins>blue</ins> egg"
    assert compare.difference("<b>", "<i>") == "&lt;<del>b</del><ins>i</ins>&gt;"


def test_an_empty_talk_invites() -> None:
    assert compare.talk(None, "free") == compare.EMPTY
