"""What single fixes make of one row; each returns the same object where it changes nothing.

Example:
    >>> stripped(example_with_a_leading_space).answer
    'It is 4.'
"""

from dataclasses import replace

from finetune.data.example import Example
from finetune.data.texts import has_separator, without_separator, without_stop
from finetune.records import Json


def with_system(example: Example, system: str | None) -> Example:
    """The example with this system prompt, if it has none."""
    if not system or example.system:
        return example
    return replace(example, messages=({"role": "system", "content": system}, *example.messages))


def folded(example: Example) -> Example:
    """The example with its system prompt at the head of the first user turn; itself where one of the two is missing.

    For chat templates that have no place for a system turn: some refuse it (Gemma 2), some leave it out.

    Example:
        >>> folded(Example(({"role": "system", "content": "Be brief."}, *asked("2+2?", "4")), line=1)).asked
        'Be brief.\\n\\n2+2?'
    """
    system, rest = example.system, list(example.messages[1:])
    first = next((place for place, message in enumerate(rest) if message["role"] == "user"), None)
    if not system or first is None:
        return example
    rest[first] = {**rest[first], "content": f"{system}\n\n{rest[first]['content']}"}
    return replace(example, messages=tuple(rest))


def stripped(example: Example) -> Example:
    """The example without white space before its answers."""
    return example.changed(lambda m: {**m, "content": m["content"].lstrip()} if _leads_with_space(m) else m)


def unseparated(example: Example) -> Example:
    """The example without what separated prompt and answer in files for OpenAI's old completions."""
    if not any(has_separator(message["content"]) for message in example.told):
        return example
    cut = example.changed(lambda m: {**m, "content": without_separator(m["content"])})
    return cut.changed(lambda m: {**m, "content": without_stop(m["content"])} if m["role"] == "assistant" else m)


def _leads_with_space(message: Json) -> bool:
    return message["role"] == "assistant" and message["content"][:1].isspace()
