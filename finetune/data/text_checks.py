"""What single messages are tested for: a warning each, and a quick test of many texts before it."""

from collections.abc import Callable
from typing import NamedTuple

from finetune.data.example import Severity
from finetune.data.texts import (
    control_name,
    has_control,
    has_leading_space,
    has_personal,
    has_secret,
    has_separator,
    has_special,
    may_have_control,
    may_have_leading_space,
    may_have_personal,
    may_have_secret,
    may_have_separator,
    may_have_special,
)


class TextCheck(NamedTuple):
    """A warning about a single message, found by `hit`.

    `suspect` is a quick test of many texts joined by line breaks: it may be true without a hit, never false with one.
    """

    code: str
    suspect: Callable[[str], bool]
    hit: Callable[[str], bool]
    message: str
    hint: str
    severity: Severity = "warning"
    answers_only: bool = False


TEXT_CHECKS = (
    TextCheck(
        "leading_space",
        may_have_leading_space,
        has_leading_space,
        "An answer begins with a space or line break.",
        "Strip it with one click.",
        answers_only=True,
    ),
    TextCheck(
        "control_character",
        may_have_control,
        has_control,
        "A text contains an invisible or replacement character.",
        "Find them in the preview, where they are visible, and remove them.",
    ),
    TextCheck(
        "secret",
        may_have_secret,
        has_secret,
        "A text seems to contain a key, token or password; a tuned model can repeat it to anyone.",
        "Remove it, and revoke the key if the file was shared.",
    ),
    TextCheck(
        "personal_data",
        may_have_personal,
        has_personal,
        "A text contains an e-mail address or phone number; a tuned model may repeat it.",
        "If it belongs to a real person, replace it with an invented one.",
        "note",
    ),
    TextCheck(
        "special_token_in_text",
        may_have_special,
        has_special,
        "A text contains a chat control token such as <|im_end|>; it is learned as ordinary characters.",
        "Remove it: the model's own template adds these tokens.",
    ),
    TextCheck(
        "legacy_separator",
        may_have_separator,
        has_separator,
        "Texts end with a separator such as '->' or '###', as in files for OpenAI's old completions.",
        "Remove it with one click: the model's own template separates prompt and answer.",
    ),
)


def said(check: TextCheck, text: str) -> str:
    """What a check says; of an invisible character its name, since it cannot be shown."""
    if check.code != "control_character":
        return check.message
    return f"A text contains an invisible or replacement character: {control_name(text)}."
