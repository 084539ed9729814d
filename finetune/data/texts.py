"""Checks for what a text can hide: control characters, API keys, personal data, control tokens, another script.

All of them are heuristics: they never reject a row, only ask a person to look.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffd\u200b\u2028\u2029]")
"""Invisible characters, bidirectional controls, and the replacement character (U+FFFD)."""

VISIBLE = bytes(range(0x20, 0x7F)) + b"\n\t\r"
"""The ASCII characters that are not in `CONTROL`."""

SPECIAL = re.compile(
    r"<\|[a-zA-Z][\w ]{1,30}\|>|<｜[^｜<>]{1,30}｜>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_(?:turn|text)>"
    r"|<(?:bos|eos|pad|unk)>|\A<s>|</s>\Z"
)
"""Tokens with which chat templates mark turns."""

SECRET = re.compile(
    r"\b(?:sk-(?:ant-|proj-|or-)?[A-Za-z0-9_\-]{20,}|hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}"
    r"|glpat-[\w\-]{20,}|AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|AIza[\w\-]{35}|xox[abpres]-[\w\-]{10,}|sk_live_[A-Za-z0-9]{16,}"
    r"|(?<![\w\-])eyJ[\w\-]{10,}\.eyJ[\w\-]{10,}\.[\w\-]{10,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""API keys of well-known services, JSON web tokens, and private keys."""

SECRET_STARTS = {
    "_": ("sk_live_", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    "-": ("sk-", "glpat-", "xox", "-----BEGIN"),
    "A": ("AKIA", "ASIA", "AIza"),
    "J": ("eyJ",),
}
"""How matches of `SECRET` begin, by a character they must contain: a cheap test before the slow pattern."""

EMAIL = re.compile(r"\b[\w.+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){0,10}\.[A-Za-z]{2,}\b")
PHONE = re.compile(
    r"(?<![\w.)=])(?<![\d)=] )\+\d{1,3}[ \-.]?\(?\d{1,4}\)?(?:[ \-.]?\d{2,4}){2,4}(?!\w|-\d|\s*[=*/+^])"
    r"|\(\d{3}\) ?\d{3}-\d{4}(?!\w|-\d|\s*[=*/+^])"
    r"|(?<![\w.-])(?<![+*/=] )\d{3}-\d{3}-\d{4}(?!\w|-\d|\s*[=*/+^])"
)
"""Not arithmetic: no sign or digit before it or after it that would make it a sum."""
PHONE_PARTS = (re.compile(r"\+\d{1,4}(?!\w)"), re.compile(r"-\d{1,4}(?!\w)"))
"""Every phone number contains one of them: a quick test, since each pattern begins with a fixed character."""

HARMLESS = re.compile(r"@(?:[\w\-]+\.)*example\.(?:com|org|net)\b|@[\w.\-]+\.(?:example|test|invalid)\b")
"""Addresses reserved for examples by RFC 2606."""

INDENT = re.compile(r"\n\s")

SEPARATORS = ("->", "=>", "###")
"""How prompts (and answers, after which generation stopped) end in files for OpenAI's old completions."""

SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "TAMIL", "THAI", "HANGUL", "CJK")
KANA = ("HIRAGANA", "KATAKANA")
LETTERS = re.compile(r"[A-Za-z][^A-Za-z]*[A-Za-z][^A-Za-z]*[A-Za-z]")
LOOKED_AT = 2_000
"""Characters at the start of a text that are examined for their script."""


def visible(text: str) -> str:
    """The text with invisible and bidirectional-control characters made visible.

    Line breaks and tabs are kept. HTML is not escaped here.

    Example:
        >>> visible("a\\x00b\\u202ec")
        'a␀b[U+202E]c'
    """
    return CONTROL.sub(_name, text)


def _name(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"[U+{code:04X}]"


def control_name(text: str) -> str:
    """The first invisible character of a text, by its name.

    Example:
        >>> control_name("a\u200bb"), control_name("a\x07")
        ('U+200B ZERO WIDTH SPACE', 'U+0007')
    """
    found = CONTROL.search(text)
    return f"U+{ord(found[0]):04X} {unicodedata.name(found[0], '')}".strip() if found else ""


def may_have_control(text: str) -> bool:
    """A quick test before the slow pattern. Like those below, it may be true without a hit but is never false with one.

    The text may be many texts joined by line breaks: a match within one of them is a match within them all.

    Example:
        >>> may_have_control("a\u00a0b"), has_control("a\u00a0b")
        (True, False)
    """
    if text.isascii():
        return bool(text.encode().translate(None, VISIBLE))
    printable = text.replace("\n", "").replace("\t", "").replace("\r", "").isprintable()
    return not printable or "\ufffd" in text


def has_control(text: str) -> bool:
    """Whether the text contains a character of `CONTROL`."""
    return may_have_control(text) and bool(CONTROL.search(text))


def may_have_leading_space(text: str) -> bool:
    """A quick test before `has_leading_space`."""
    return has_leading_space(text) or bool(INDENT.search(text))


def has_leading_space(text: str) -> bool:
    """Whether the text begins with white space."""
    return text[:1].isspace()


def may_have_special(text: str) -> bool:
    """A quick test before `has_special`."""
    return "<" in text or "INST]" in text


def has_special(text: str) -> bool:
    """Whether the text contains a chat control token."""
    return may_have_special(text) and bool(SPECIAL.search(text))


def may_have_separator(text: str) -> bool:
    """A quick test before `has_separator`."""
    # a single character is found a hundred times as fast as two
    return (">" in text or "#" in text) and any(separator in text for separator in SEPARATORS)


def has_separator(text: str) -> bool:
    """Whether the text ends with a separator that stands alone: ``… ->``, or ``###`` on a line of its own."""
    return without_separator(text) != text


def without_separator(text: str) -> str:
    """The text before a separator at its end, if there is one.

    Example:
        >>> without_separator("Where do puffins nest? ->"), without_separator("a->")
        ('Where do puffins nest?', 'a->')
    """
    ended = text.rstrip()
    for separator in SEPARATORS:
        before = ended.removesuffix(separator)
        if before != ended and before[-1:].isspace() and before.strip():
            return before.rstrip()
    return text


def without_stop(text: str) -> str:
    """An answer without the word that stopped generation after it in such files."""
    ended = text.rstrip()
    return ended.removesuffix("END").rstrip() if ended.endswith((" END", "\nEND")) and len(ended) > 4 else text


def may_have_secret(text: str) -> bool:
    """A quick test before `has_secret`."""
    return any(needed in text and any(start in text for start in starts) for needed, starts in SECRET_STARTS.items())


def has_secret(text: str) -> bool:
    """Whether the text contains something like an API key."""
    return may_have_secret(text) and bool(SECRET.search(text))


def may_have_personal(text: str) -> bool:
    """A quick test before `has_personal`."""
    return "@" in text or _may_have_phone(text)


def has_personal(text: str) -> bool:
    """Whether the text contains an e-mail address or a phone number."""
    if "@" in text and any(not HARMLESS.search(found[0]) for found in EMAIL.finditer(text)):
        return True
    return _may_have_phone(text) and bool(PHONE.search(text))


def _may_have_phone(text: str) -> bool:
    return any(part.search(text) for part in PHONE_PARTS)


def script_of(text: str) -> str | None:
    """The script of most letters, or None when there are fewer than three letters.

    Languages that share a script (English, German) are not distinguished.

    Example:
        >>> script_of("Добрый день"), script_of("123"), script_of("東京です")
        ('Cyrillic', None, 'Japanese')
    """
    if text.isascii():
        return "Latin" if LETTERS.search(text) else None
    counts: dict[str, int] = {}
    for character, times in Counter(text[:LOOKED_AT]).items():
        if character.isalpha():
            name = _script_name(character)
            counts[name] = counts.get(name, 0) + times
    if sum(counts.values()) < 3:
        return None
    if any(name in counts for name in KANA) and sum(counts.get(n, 0) for n in (*KANA, "CJK")) * 2 > sum(
        counts.values()
    ):
        return "Japanese"
    first = max(counts, key=lambda name: counts[name])
    return {"CJK": "Han"}.get(first, first.capitalize()) if first in SCRIPTS else "other"


@lru_cache(10_000)
def _script_name(letter: str) -> str:
    """The first word of a letter's Unicode name: ``GREEK`` for alpha."""
    return unicodedata.name(letter, "OTHER").split(" ", 1)[0].split("-")[0]
