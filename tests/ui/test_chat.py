"""What the chatbot is given, and what comes back from it."""

import pytest

from finetune.chat import Reply
from finetune.ui.chat import history, plain, shown, stats

HOSTILE = [
    "SELECT * FROM t WHERE a<b AND c>d",
    "<script>alert(1)</script>",
    "&lt;b&gt;",
    "a & b",
    "<|im_end|>",
    "</div>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_comes_back_as_it_was_and_is_never_a_tag(text: str) -> None:
    assert "<" not in shown(text)
    assert plain(shown(text)) == text
    assert plain([{"type": "text", "text": shown(text)}]) == text
    assert history([{"role": "user", "content": shown(text)}], "")[0]["content"] == text


def test_the_system_prompt_comes_first_when_there_is_one() -> None:
    assert history([{"role": "user", "content": "a"}], "Be brief.")[0] == {"role": "system", "content": "Be brief."}
    assert history([{"role": "user", "content": "a"}], "  ")[0]["role"] == "user"


def test_stats_say_only_what_was_measured() -> None:
    assert stats(Reply(prompt_tokens=9)) == "9 prompt tokens → 0 tokens · …"
    line = stats(Reply("x", tokens=4, prompt_tokens=9, seconds=2, first=0.5, stop="length", dropped=2))
    assert "2.0 tokens/s" in line
    assert "cut at max tokens" in line
    assert "2 oldest messages left out" in line
