"""An example becomes token ids and labels, once: what is previewed is what is trained.

The loss falls on every assistant turn's content and its end-of-turn token, on nothing else. Most
chat templates do not mark those places, so they are found by rendering growing prefixes of the
conversation: what a turn adds to the prompt before it is that turn. The prompt of a turn
is rendered just as `prompt_ids` does for chat, so training and chat see the same tokens.

Text from people stays text: control tokens typed into a message are encoded as ordinary
characters (transformers' `sanitize_control_tokens`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label of a token that is read but not learned (PyTorch's cross-entropy default)."""

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Span:
    """Tokens ``start`` to ``end`` (exclusive) belong together; `trained` tells whether the loss sees them."""

    start: int
    end: int
    trained: bool


@dataclass(frozen=True)
class Rendered:
    """`input_ids` and `labels` have one entry a token; `spans` cover them without gap.

    `cut` counts the tokens dropped at the end because the example was too long.
    """

    input_ids: list[int]
    labels: list[int]
    spans: list[Span]
    cut: int = 0

    @property
    def trained(self) -> int:
        """How many tokens the loss sees."""
        return sum(label != IGNORED for label in self.labels)


def prompt_ids(messages: Messages, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Token ids of a conversation that waits for the assistant, as training and chat both see it."""
    return _ids(messages, tokenizer, add_generation_prompt=True)


def render(messages: Messages, tokenizer: "PreTrainedTokenizerBase", max_length: int | None = None) -> Rendered:
    """Render a conversation for training.

    Tokens beyond `max_length` are cut from the end. What stands after the last assistant turn is
    dropped: nothing can be learned from it.

    Raises:
        ModelError: the template rewrites earlier turns (code ``template_rewrites``) or has no
            end-of-turn token (``no_end_of_turn``), so the spans cannot be trusted.

    Example:
        >>> rendered = render([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}], tokenizer)
        >>> tokenizer.decode([label for label in rendered.labels if label != IGNORED])
        '4<|im_end|>'
    """
    ids: list[int] = []
    labels: list[int] = []
    seen: list[int] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = prompt_ids(messages[:index], tokenizer)
        whole = _ids(messages[: index + 1], tokenizer)
        _check_prefix(seen, prompt)
        answer, tail = _answer(prompt, whole, tokenizer)
        ids += prompt[len(seen) :] + answer + tail
        labels += [IGNORED] * (len(ids) - len(labels) - len(answer) - len(tail)) + answer + [IGNORED] * len(tail)
        seen = whole
    length = max_length or len(ids)
    return Rendered(ids[:length], labels[:length], _spans(labels[:length]), cut=max(0, len(ids) - length))


def _ids(messages: Messages, tokenizer: "PreTrainedTokenizerBase", add_generation_prompt: bool = False) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=add_generation_prompt, sanitize_control_tokens=True
    )
    return list(encoded["input_ids"])


def _check_prefix(earlier: list[int], later: list[int]) -> None:
    if later[: len(earlier)] != earlier:
        raise ModelError(
            "The chat template rewrites earlier turns, so what would be trained is not what chat shows.",
            fix="Use conversations with one assistant turn, or another model.",
            code="template_rewrites",
        )


def _answer(prompt: list[int], whole: list[int], tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Split what an assistant turn added into (content + end of turn, what the template puts after)."""
    special = set(tokenizer.all_special_ids)
    ends = [i for i in range(len(whole)) if whole[i] in special]
    if not ends or ends[-1] < len(prompt) - 1:
        raise ModelError(
            "The chat template writes no end-of-turn token, so a tuned model would never stop.",
            fix="Choose an instruct model with a complete template.",
            code="no_end_of_turn",
        )
    end = ends[-1]
    shared = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    if shared == len(prompt):
        return whole[shared : end + 1], whole[end + 1 :]
    # The content's first characters merged with the prompt's last token (an answer that starts
    # with a line break, say). Chat will never see that merge, so encode the content on its own.
    before, content = tokenizer.decode(prompt[shared:]), tokenizer.decode(whole[shared:end])
    if not content.startswith(before):
        _check_prefix(prompt, whole)
    text = content.removeprefix(before)
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) + [whole[end]], whole[end + 1 :]


def _spans(labels: list[int]) -> list[Span]:
    spans: list[Span] = []
    for index, label in enumerate(labels):
        trained = label != IGNORED
        if spans and spans[-1].trained == trained:
            spans[-1] = Span(spans[-1].start, index + 1, trained)
        else:
            spans.append(Span(index, index + 1, trained))
    return spans
