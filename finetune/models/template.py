"""Ask a tokenizer's chat template: how a conversation is rendered, how a turn begins, and what ends it.

Example:
    >>> tokenizer.decode(prompt_ids([{"role": "user", "content": "2+2?"}], tokenizer))
    '<|im_start|>user\\n2+2?<|im_end|>\\n<|im_start|>assistant\\n'
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from finetune.errors import ModelError
from finetune.records import Json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.models.light import LightTokenizer

    Tokenizer: TypeAlias = PreTrainedTokenizerBase | LightTokenizer

OPEN, CLOSE = "<think>", "</think>"
"""How a thought begins and ends."""

Messages = Sequence[Json]
Tools = Sequence[Json]


def prompt_ids(messages: Messages, tokenizer: "Tokenizer", tools: Tools = (), thinking: bool = False) -> list[int]:
    """Token ids of a conversation up to where the assistant answers, the same for training and chat.

    Without messages these are just the opening tokens of an assistant turn, which prompt a model tuned on plain
    texts.

    Raises:
        ModelError: the template rejects the conversation, or does not support tools.
    """
    if not messages:
        return opening(tokenizer)
    return rendered_ids(messages, tokenizer, tools, add_generation_prompt=True, enable_thinking=thinking)


def can_think(tokenizer: "Tokenizer") -> bool:
    """Whether the template has a reasoning mode, so that ``enable_thinking`` must be passed explicitly (Qwen3).

    Example:
        >>> can_think(smollm2_tokenizer)
        False
    """
    asked = [{"role": "user", "content": "?"}]
    return prompt_ids(asked, tokenizer) != prompt_ids(asked, tokenizer, thinking=True)


def thinks(messages: Messages) -> bool:
    """Whether an answer contains reasoning, so that chat should use the reasoning mode too.

    Example:
        >>> thinks([{"role": "assistant", "content": "<think>\\n2 and 2\\n</think>\\n\\n4"}])
        True
    """
    return any(message["role"] == "assistant" and "</think>" in message["content"] for message in messages)


def split_thought(text: str) -> tuple[str, str]:
    """What was thought before an answer, and the answer. Where the prompt opens the thought, the text begins within it.

    Example:
        >>> split_thought("2 and 2\\n</think>\\n\\n4"), split_thought("4"), split_thought("<think>2 and")
        (('2 and 2', '4'), ('', '4'), ('2 and', ''))
    """
    thought, closed, answer = text.rpartition(CLOSE)
    if closed:
        return thought.replace(CLOSE, "").strip().removeprefix(OPEN).strip(), answer.lstrip()
    if text.lstrip().startswith(OPEN):  # cut before the answer began
        return text.strip().removeprefix(OPEN).strip(), ""
    return "", text


def is_learned(message: Json) -> bool:
    """Whether a turn is one to learn: an answer that is not marked as one to read only.

    Example:
        >>> is_learned({"role": "assistant", "content": "4", "weight": 0})
        False
    """
    return bool(message["role"] == "assistant" and message.get("weight") != 0)


def rendered_ids(
    messages: Messages,
    tokenizer: "Tokenizer",
    tools: Tools = (),
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
) -> list[int]:
    """The ids of a conversation as the template renders it; ``weight`` is ours, and not shown to it.

    Raises:
        ModelError: as `prompt_ids` does.
    """
    template = tokenizer.get_chat_template(None, list(tools) or None)
    _check_tools(messages, template, tools)
    try:
        made: Any = tokenizer.apply_chat_template(
            [_with_reasoning(message, template) for message in messages],
            tools=list(tools) or None,
            add_generation_prompt=add_generation_prompt,
            sanitize_control_tokens=True,
            enable_thinking=enable_thinking,
        )
    except Exception as error:
        raise ModelError(
            f"The chat template rejects this conversation: {str(error)[:200]}",
            fix="Change the order of roles, remove the system prompt, or choose another model.",
            code="template_refuses",
        ) from error
    return list(made["input_ids"])


def _with_reasoning(message: Json, template: str) -> Json:
    """Move reasoning to its own field if the template has one: in the content its tags would stay plain text."""
    kept = {key: value for key, value in message.items() if key != "weight"}
    if message["role"] == "assistant" and "</think>" in message["content"] and "reasoning_content" in template:
        thought, answer = message["content"].split("</think>", 1)
        thought = thought.split("<think>", 1)[-1]
        return kept | {"reasoning_content": thought.strip("\n"), "content": answer.lstrip("\n")}
    return kept


def _check_tools(messages: Messages, template: str, tools: Tools) -> None:
    """Raise ModelError if the template does not support tools: it would silently leave them out."""
    words = {
        "tools": bool(tools),
        "tool_calls": any("tool_calls" in message for message in messages),
        "tool": any(message["role"] == "tool" for message in messages),
    }
    if any(used and word not in template for word, used in words.items()):
        raise ModelError(
            "The model's chat template does not support tool calls.",
            fix="Choose a model that supports tools (such as Qwen3), or drop these rows.",
            code="template_without_tools",
        )


def special_ids(tokenizer: "Tokenizer") -> set[int]:
    """The ids of all special tokens, including those without a named role (Gemma's ``<end_of_turn>``)."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


class Marks(NamedTuple):
    """What a template's turns consist of: all `special` ids, the one that ends an answer, and the tags of thoughts.

    `before` is what the template itself writes before an answer (Mistral's space), None where that is not plain text.
    """

    special: frozenset[int]
    end: int
    tags: dict[str, int]
    before: str | None


def marks_of(tokenizer: "Tokenizer") -> Marks:
    """The marks of a tokenizer's chat template, asked once.

    Raises:
        ModelError: nothing ends a turn (code ``no_end_of_turn``), or it refuses a question and its answer.
    """
    template = tokenizer.get_chat_template(None, None)
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != template:
        known = _KNOWN[tokenizer] = template, _marks(tokenizer)
    return known[1]


_KNOWN: WeakKeyDictionary[Any, tuple[str, Marks]] = WeakKeyDictionary()
"""The marks of tokenizers in memory, and of which template they are."""


def _marks(tokenizer: "Tokenizer") -> Marks:
    """Found by asking: what follows two different answers is the same, and its first special token ends the turn.

    A token after that one (Phi-3's ``<|endoftext|>``) ends the conversation, not the turn.
    """
    special = special_ids(tokenizer)
    asked: Json = {"role": "user", "content": "?"}
    one, other = (rendered_ids([asked, {"role": "assistant", "content": text}], tokenizer) for text in "!.")
    after = len(one) - shared(one[::-1], other[::-1])
    end = next((place for place in range(after, len(one)) if one[place] in special), None)
    if end is None:
        raise ModelError(
            "The chat template has no end-of-turn token, so a tuned model would never stop.",
            fix="Choose an instruct model with a complete template.",
            code="no_end_of_turn",
        )
    tags = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    prompt = prompt_ids([asked], tokenizer)
    added = one[len(prompt) : end] if one[: len(prompt)] == prompt else []
    before = None if special & {*added} else str(tokenizer.decode(added)).rpartition("!")[0]
    return Marks(frozenset(special), one[end], {tag: tags[tag] for tag in (OPEN, CLOSE) if tag in tags}, before)


def end_of_turn(tokenizer: "Tokenizer") -> int:
    """The token that ends an assistant turn in the model's template, with which the tuned model learns to stop.

    Raises:
        ModelError: the template has none.
    """
    return marks_of(tokenizer).end


def opening(tokenizer: "Tokenizer") -> list[int]:
    """The tokens that open an assistant turn without a prompt before it."""
    asked = [{"role": "user", "content": "?"}]
    before = rendered_ids(asked, tokenizer)
    after = prompt_ids(asked, tokenizer)
    alike = shared(before, after)
    ends = not any(token not in marks_of(tokenizer).special for token in before[alike:])
    header = after[alike:] if ends else []  # Phi-3 ends the conversation where others add nothing
    starts = after[:1] if after[0] == tokenizer.bos_token_id and after[0] not in header else []
    return starts + header


def encoded(text: str, tokenizer: "Tokenizer") -> list[int]:
    """The ids of a text in which control tokens are ordinary characters."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    least = min(len(one), len(other))
    if one[:least] == other[:least]:  # nearly always, and quickly seen
        return least
    return next(place for place in range(least) if one[place] != other[place])
