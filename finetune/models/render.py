"""Render an example to token ids and labels, once: what is previewed is what is trained.

The loss is computed on the content and end-of-turn token of every assistant turn, and on nothing else; a turn with
``"weight": 0`` is read but not learned. Most chat templates do not mark where assistant turns begin and end, so we
render growing prefixes of the conversation: the tokens that a turn adds to the prompt before it are that turn. The
prompt is rendered exactly as `prompt_ids` renders it for chat, so training and chat see the same tokens.

Some templates render earlier turns differently from the last one (Qwen3 removes their reasoning). Then only the
last turn can be trained on the tokens that chat will use, so only that one is: `Rendered.last_only`.

Models with a reasoning mode are rendered without it (``enable_thinking=False``), unless the answers contain
reasoning: answers with ``<think>…</think>`` are trained and chatted with in that mode.

Control tokens typed into a message are encoded as ordinary characters (transformers' `sanitize_control_tokens`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from finetune.errors import ModelError
from finetune.records import Json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.models.light import LightTokenizer

    Tokenizer: TypeAlias = PreTrainedTokenizerBase | LightTokenizer

IGNORED = -100
"""The label of a token that is read but not learned (PyTorch's cross-entropy default)."""

Messages = Sequence[Json]
Tools = Sequence[Json]


@dataclass(frozen=True)
class Span:
    """Tokens ``start`` to ``end`` (exclusive); `trained` says whether they contribute to the loss."""

    start: int
    end: int
    trained: bool


@dataclass(frozen=True)
class Rendered:
    """`input_ids` and `labels` have one entry per token; `spans` cover them without gaps.

    `cut` counts the tokens dropped at the end because the example was too long. `last_only` means that the
    template rewrites earlier turns, so that only the last one is trained.
    """

    input_ids: list[int]
    labels: list[int]
    spans: list[Span]
    cut: int = 0
    last_only: bool = False

    @property
    def trained(self) -> int:
        """The number of tokens that contribute to the loss."""
        return sum(label != IGNORED for label in self.labels)


def prompt_ids(messages: Messages, tokenizer: "Tokenizer", tools: Tools = (), thinking: bool = False) -> list[int]:
    """Token ids of a conversation up to where the assistant answers, the same for training and chat.

    Without messages these are just the opening tokens of an assistant turn, which prompt a model tuned on plain
    texts.

    Raises:
        ModelError: the template rejects the conversation, or does not support tools.
    """
    if not messages:
        return _opening(tokenizer)[0]
    return _ids(messages, tokenizer, tools, add_generation_prompt=True, enable_thinking=thinking)


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


def render(messages: Messages, tokenizer: "Tokenizer", max_length: int | None = None, tools: Tools = ()) -> Rendered:
    """Render a conversation for training.

    Tokens beyond `max_length` are cut. Messages after the last trained turn are dropped, since nothing can be
    learned from them. An assistant turn that opens a conversation is read but not learned, unless it is the only
    turn to learn.

    Raises:
        ModelError: the template does not continue its own prompt (code ``template_rewrites``), has
            no end-of-turn token (``no_end_of_turn``), rejects the conversation
            (``template_refuses``) or does not support tools (``template_without_tools``); or there
            is no turn to learn (``no_trained_token``).

    Example:
        >>> rendered = render([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}], tokenizer)
        >>> tokenizer.decode([label for label in rendered.labels if label != IGNORED])
        '4<|im_end|>'
    """
    learned = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != 0]
    if not learned:
        raise ModelError("There is no assistant turn to learn.", fix="Drop the row.", code="no_trained_token")
    last_only = False
    if learned == [0]:
        ids, labels = _unasked(messages[0]["content"], tokenizer)
    else:
        asked = [index for index in learned if index]
        pieces = _grown(messages, asked, tokenizer, tools)
        last_only = pieces is None
        ids, labels = pieces or _grown(messages, asked[-1:], tokenizer, tools) or ([], [])
    length = max_length or len(ids)
    return Rendered(
        ids[:length], labels[:length], _spans(labels[:length]), cut=max(0, len(ids) - length), last_only=last_only
    )


def _grown(
    messages: Messages, turns: list[int], tokenizer: "Tokenizer", tools: Tools
) -> tuple[list[int], list[int]] | None:
    """Ids and labels of a conversation whose `turns` are trained; None if the template rewrites earlier turns.

    For each trained turn the conversation is rendered twice: up to the turn with a generation prompt, and with the
    turn. Their difference is the turn. This only holds if each prompt starts with everything rendered before it.
    """
    ids: list[int] = []
    labels: list[int] = []
    seen: list[int] = []  # the conversation so far, as rendered without a generation prompt
    special = special_ids(tokenizer)
    thinking = thinks(messages)
    for index in turns:
        prompt = prompt_ids(messages[:index], tokenizer, tools, thinking)
        whole = _ids(messages[: index + 1], tokenizer, tools, enable_thinking=thinking)
        if prompt[: len(seen)] != seen:
            return None
        answer, tail = _answer(prompt, whole, tokenizer, special)
        ids += prompt[len(seen) :] + answer + tail
        # everything new is masked, except the answer; `tail` is what the template puts after the end of turn ("\n")
        labels += [IGNORED] * (len(ids) - len(labels) - len(answer) - len(tail)) + answer + [IGNORED] * len(tail)
        seen = whole
    return ids, labels


def _ids(
    messages: Messages,
    tokenizer: "Tokenizer",
    tools: Tools = (),
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
) -> list[int]:
    template = tokenizer.get_chat_template(None, list(tools) or None)
    _check_tools(messages, template, tools)
    try:
        encoded: Any = tokenizer.apply_chat_template(
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
    return list(encoded["input_ids"])


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


def end_of_turn(tokenizer: "Tokenizer") -> int:
    """The token that ends an assistant turn in the model's template, with which the tuned model learns to stop.

    Raises:
        ModelError: the template has none.
    """
    return _opening(tokenizer)[1]


def _opening(tokenizer: "Tokenizer") -> tuple[list[int], int]:
    """The tokens that open an assistant turn without a prompt before it, and the token that ends a turn."""
    asked = [{"role": "user", "content": "?"}]
    before = _ids(asked, tokenizer)
    after = prompt_ids(asked, tokenizer)
    header = after[len(before) :] if after[: len(before)] == before else []
    whole = _ids([*asked, {"role": "assistant", "content": "!"}], tokenizer)
    answer, _ = _answer(after, whole, tokenizer, special_ids(tokenizer))
    starts = after[:1] if after[0] == tokenizer.bos_token_id and after[0] not in header else []
    return starts + header, answer[-1]


def _unasked(text: str, tokenizer: "Tokenizer") -> tuple[list[int], list[int]]:
    prompt, end = _opening(tokenizer)
    answer = [*_encoded(text, tokenizer), end]
    return prompt + answer, [IGNORED] * len(prompt) + answer


def _encoded(text: str, tokenizer: "Tokenizer") -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def _answer(
    prompt: list[int], whole: list[int], tokenizer: "Tokenizer", special: set[int]
) -> tuple[list[int], list[int]]:
    """Split the tokens that an assistant turn added into (content + end of turn, what the template puts after it)."""
    shared = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    end = max((i for i in range(shared, len(whole)) if whole[i] in special), default=None)
    if end is None:
        raise ModelError(
            "The chat template has no end-of-turn token, so a tuned model would never stop.",
            fix="Choose an instruct model with a complete template.",
            code="no_end_of_turn",
        )
    if shared == len(prompt):
        return whole[shared : end + 1], whole[end + 1 :]
    # The first characters of the content were merged with the last token of the prompt (for example, if the answer
    # starts with a line break). In chat the prompt ends before them, so encode the content separately.
    before, content = str(tokenizer.decode(prompt[shared:])), str(tokenizer.decode(whole[shared:end]))
    if not content.startswith(before):
        raise ModelError(
            "The chat template does not continue its own prompt, so training and chat would see different tokens.",
            fix="Choose a model with a simpler chat template.",
            code="template_rewrites",
        )
    return [*_encoded(content.removeprefix(before), tokenizer), whole[end]], whole[end + 1 :]


def _spans(labels: list[int]) -> list[Span]:
    spans: list[Span] = []
    for index, label in enumerate(labels):
        trained = label != IGNORED
        if spans and spans[-1].trained == trained:
            spans[-1] = Span(spans[-1].start, index + 1, trained)
        else:
            spans.append(Span(index, index + 1, trained))
    return spans
