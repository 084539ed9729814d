"""What a chat template left out: every text of a conversation is looked for in what was rendered of it.

Templates drop text in silence: a system turn (some have no place for one), a thought, what is said beside a tool call.
So nothing is concluded from the template; what came out is compared with what went in, as text. Spacing does not count,
and neither do JSON's escapes, in which templates write tool calls and results.

Example:
    >>> [lost.what for lost in left_out(messages, tokenizer.decode(render(messages, tokenizer).input_ids), tokenizer)]
    ['system']
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from finetune.models.template import CLOSE, OPEN, is_learned
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.models.template import Tokenizer

What = Literal["system", "user", "tool", "answer", "thought", "past", "call", "tools", "unused", "name"]
"""Where a text stands: `past` is a thought in an answer that is only read, `unused` after the last answer to learn;
`name` is who speaks."""

TAGS = re.compile(f"{OPEN}|{CLOSE}")
SAID: dict[str, What] = {"system": "system", "user": "user", "tool": "tool"}


class LeftOut(NamedTuple):
    """A text of the conversation that is not in the rendering."""

    what: What
    text: str


def left_out(
    messages: Sequence[Json], rendered: str, tokenizer: "Tokenizer", tools: Sequence[Json] = ()
) -> list[LeftOut]:
    """The texts of a conversation that `rendered` (its sequences, decoded) does not contain.

    Each text needs a place of its own: a system text that a question repeats was not shown because the question was.

    Example:
        >>> left_out([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "Hi", tokenizer)
        [LeftOut(what='answer', text='Hello')]
    """
    texts = [LeftOut(what, text) for what, text in _texts(messages, tools) if text.strip()]
    texts.sort(key=lambda one: -len(one.text))  # what is part of another text must not take its place
    if not _missing([one.text.strip() for one in texts], rendered):
        return []
    # not letter for letter: now without spacing, and as the tokenizer reads and writes it
    spelt = [squeezed(_as_read(one.text, tokenizer)) for one in texts]
    lost = _missing(spelt, squeezed(rendered))
    raw = set(_missing([squeezed(one.text) for one in texts], squeezed(rendered)))
    return [texts[place] for place in sorted(lost) if place in raw]


def _missing(texts: Sequence[str], rendered: str) -> list[int]:
    """Which of the texts have no place in `rendered`, each taking the first that is free."""
    missing = []
    for place, text in enumerate(texts):
        for form in _forms(text):
            if form in rendered:
                rendered = rendered.replace(form, "\0", 1)
                break
        else:
            missing.append(place)
    return missing


def _forms(text: str) -> Iterator[str]:
    """The text, and as JSON writes it inside quotes: with other letters as they are, or escaped."""
    yield text
    for ascii_only in (False, True):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def squeezed(text: str) -> str:
    """A text without any spacing."""
    return "".join(text.split())


def _as_read(text: str, tokenizer: "Tokenizer") -> str:
    """The text as it comes back from its tokens: some tokenizers change letters (Unicode's forms, lower case)."""
    return str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)))


def _texts(messages: Sequence[Json], tools: Sequence[Json]) -> Iterator[tuple[What, str]]:
    learned = [place for place, message in enumerate(messages) if is_learned(message)]
    last = learned[-1]
    for place, message in enumerate(messages):
        if "name" in message and message["role"] != "tool":
            yield "name", message["name"]
        if place > last:
            yield "unused", message["content"]
        elif message["role"] == "assistant":
            yield from _of_answer(message, place in learned)
        else:
            yield SAID.get(message["role"], "user"), message["content"]
    for tool in tools:
        yield from (("tools", text) for text in _leaves(tool.get("function", tool), ("name", "description")))


def _of_answer(message: Json, learned: bool) -> Iterator[tuple[What, str]]:
    content = message["content"]
    thought, closed, answer = content.partition(CLOSE)
    if closed:
        yield "thought" if learned else "past", TAGS.sub("", thought)
    for piece in TAGS.split(answer if closed else content):
        yield "answer", piece
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        yield "call", str(function.get("name", ""))
        yield from (("call", text) for text in _leaves(_arguments(function)))


def _arguments(function: Json) -> Any:
    given = function.get("arguments")
    if isinstance(given, str):
        try:
            return json.loads(given)
        except ValueError:
            return given
    return given


def _leaves(value: Any, keys: Sequence[str] = ()) -> Iterator[str]:
    """The texts inside an object, or only those of some keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not keys or key in keys:
                yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
