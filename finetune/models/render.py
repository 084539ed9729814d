"""Render an example to token ids and labels, once: what is previewed is what is trained.

The loss is computed on the content and end-of-turn token of every assistant turn, and on nothing else; a turn with
``"weight": 0`` is read but not learned. Most chat templates do not mark where assistant turns begin and end, so we
render growing prefixes of the conversation: the tokens that a turn adds to the prompt before it are that turn. The
prompt is rendered exactly as `prompt_ids` renders it for chat, so training and chat see the same tokens.

What counts is everything up to the first end of turn: Phi-3 closes a conversation with one more token, which is
neither learned nor expected again when the conversation goes on.

Some templates render earlier turns differently from the last one (Qwen3 removes their reasoning). Then only the
last turn can be trained on the tokens that chat will use, so only that one is (`Rendered.last_only`), or each answer
is a sequence of its own, with the conversation before it as chat will see it: `sequences`.

Models with a reasoning mode are rendered without it (``enable_thinking=False``), unless the answers contain
reasoning: answers with ``<think>…</think>`` are trained and chatted with in that mode. Some templates cut the thought
out of the very answer to learn (DeepSeek-R1), or open one in the prompt. Then the answer is encoded as it was written,
after the prompt that chat will use; where a thought is open and the answer has none, an empty one is learned
(`Rendered.empty_thought`).

Control tokens typed into a message are encoded as ordinary characters (transformers' `sanitize_control_tokens`).
"""

import re
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from finetune.errors import ModelError
from finetune.models.compare import squeezed
from finetune.models.template import (
    CLOSE,
    OPEN,
    Marks,
    Messages,
    Tools,
    encoded,
    end_of_turn,
    is_learned,
    marks_of,
    opening,
    prompt_ids,
    rendered_ids,
    shared,
    thinks,
)
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.models.template import Tokenizer

IGNORED = -100
"""The label of a token that is read but not learned (PyTorch's cross-entropy default)."""

LONGEST = 2048
"""Tokens of an example that are used when no max length is set, however long the longest is."""

EMPTY = f"\n{CLOSE}\n\n"
"""What ends a thought that the prompt has opened and that holds nothing."""


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
    template rewrites earlier turns, so that only the last one is trained. `empty_thought` means that an answer
    without a thought is learned with an empty one, because the template writes one or its prompt opens it.
    """

    input_ids: list[int]
    labels: list[int]
    spans: list[Span]
    cut: int = 0
    last_only: bool = False
    empty_thought: bool = False

    @property
    def trained(self) -> int:
        """The number of tokens that contribute to the loss."""
        return sum(label != IGNORED for label in self.labels)


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
    return _cut(_rendered(messages, _learned(messages), tokenizer, tools), max_length)


def sequences(
    messages: Messages, tokenizer: "Tokenizer", tools: Tools = (), every_answer: bool = False
) -> list[Rendered]:
    """What a run is trained on: one sequence, or with `every_answer` one for each answer that would else be lost.

    Only a template that rewrites earlier turns makes more than one: each ends with an answer and begins with the
    conversation before it, exactly as chat will ask for that answer.

    Raises:
        ModelError: as `render` does.

    Example:
        >>> [one.trained for one in sequences(two_turns, qwen3_tokenizer, every_answer=True)]
        [6, 5]
    """
    learned = _learned(messages)
    whole = _rendered(messages, learned, tokenizer, tools)
    if not (every_answer and whole.last_only):
        return [whole]
    return [_rendered(messages[: index + 1], [index], tokenizer, tools) for index in learned if index]


def _learned(messages: Messages) -> list[int]:
    learned = [place for place, message in enumerate(messages) if is_learned(message)]
    if not learned:
        raise ModelError("There is no assistant turn to learn.", fix="Drop the row.", code="no_trained_token")
    return learned


def _rendered(messages: Messages, learned: list[int], tokenizer: "Tokenizer", tools: Tools) -> Rendered:
    """The conversation up to the last of the `learned` turns, with nothing cut."""
    if learned == [0]:
        ids, labels = _unasked(messages[0]["content"], tokenizer)
        return Rendered(ids, labels, _spans(labels))
    asked = [index for index in learned if index]
    pieces = _grown(messages, asked, tokenizer, tools)
    last_only = pieces is None
    ids, labels, empty = pieces or _grown(messages, asked[-1:], tokenizer, tools) or ([], [], False)
    return Rendered(ids, labels, _spans(labels), last_only=last_only, empty_thought=empty)


def _cut(whole: Rendered, max_length: int | None) -> Rendered:
    if max_length is None or len(whole.input_ids) <= max_length:
        return whole
    labels = whole.labels[:max_length]
    return replace(
        whole,
        input_ids=whole.input_ids[:max_length],
        labels=labels,
        spans=_spans(labels),
        cut=len(whole.input_ids) - max_length,
    )


def _grown(
    messages: Messages, turns: list[int], tokenizer: "Tokenizer", tools: Tools
) -> tuple[list[int], list[int], bool] | None:
    """Ids and labels of a conversation whose `turns` are trained; None if the template rewrites earlier turns.

    For each trained turn the conversation is rendered twice: up to the turn with a generation prompt, and with the
    turn. Their difference is the turn. This only holds if each prompt starts with everything up to the end of the
    turn before it. The third value says whether an empty thought was added.
    """
    ids: list[int] = []
    labels: list[int] = []
    seen: list[int] | None = []  # the conversation so far, up to its last end of turn; None if chat will not see it
    empty = False
    thinking = thinks(messages)
    for index in turns:
        prompt = prompt_ids(messages[:index], tokenizer, tools, thinking)
        whole = rendered_ids(messages[: index + 1], tokenizer, tools, enable_thinking=thinking)
        if seen is None or prompt[: len(seen)] != seen:
            return None
        turn = _turn(messages[index], prompt, whole, tokenizer)
        ids += prompt[len(seen) :] + turn.answer
        labels += [IGNORED] * (len(ids) - len(labels) - len(turn.answer)) + turn.answer
        empty |= turn.empty_thought
        seen = whole[: turn.end] if turn.as_rendered else None
    tail = whole[turn.end :]  # what the template puts after the end of turn ("\n")
    return ids + tail, labels + [IGNORED] * len(tail), empty


def _unasked(text: str, tokenizer: "Tokenizer") -> tuple[list[int], list[int]]:
    prompt = opening(tokenizer)
    answer = [*encoded(text, tokenizer), end_of_turn(tokenizer)]
    return prompt + answer, [IGNORED] * len(prompt) + answer


class _Turn(NamedTuple):
    """An assistant turn to learn: its content and end-of-turn token, and where that token ends in the rendering.

    `as_rendered` says that the template writes it so too: else no later prompt contains this answer.
    """

    answer: list[int]
    end: int
    as_rendered: bool = True
    empty_thought: bool = False


def _turn(message: Json, prompt: list[int], whole: list[int], tokenizer: "Tokenizer") -> _Turn:
    """The tokens that an assistant turn adds to its prompt, or those it has to add where the template cuts them."""
    marks = marks_of(tokenizer)
    alike = shared(prompt, whole)
    places = [place for place in range(alike, len(whole)) if whole[place] in marks.special]
    # the first end of turn; a template may end a turn that calls a tool with another token (Llama's <|eom_id|>)
    end = next((place for place in places if whole[place] == marks.end), places[-1] if places else None)
    if end is None:
        raise ModelError(
            "The chat template has no end-of-turn token, so a tuned model would never stop.",
            fix="Choose an instruct model with a complete template.",
            code="no_end_of_turn",
        )
    written = whole[alike:end]
    content = message["content"]
    lost = CLOSE in content and _lost_thought(content, written, tokenizer)
    if alike == len(prompt) and not lost:
        empty = CLOSE not in content and marks.tags.get(CLOSE) in written  # Qwen3's, where other answers have thoughts
        return _Turn([*written, whole[end]], end + 1, empty_thought=empty)
    opened = str(tokenizer.decode(prompt[-4:])).rstrip().endswith(OPEN)
    if (opened or lost) and not message.get("tool_calls"):
        return _thought_through(content, opened, end, marks, tokenizer)
    # The first characters of the content were merged with the last token of the prompt (for example, if the answer
    # starts with a line break). In chat the prompt ends before them, so encode the content separately.
    before, said = str(tokenizer.decode(prompt[alike:])), str(tokenizer.decode(written))
    if said.startswith(before):
        return _Turn([*encoded(said.removeprefix(before), tokenizer), whole[end]], end + 1)
    # The template moves something once there is an answer (Mistral shows the system text with the last question only).
    # Where prompt and answer still meet as they did, the answer follows the prompt of chat.
    answer = f"{marks.before}{content.strip()}"
    meets = str(tokenizer.decode(whole[:end])).endswith(f"{tokenizer.decode(prompt[-1:])}{answer}")
    if meets and content.strip() and marks.before is not None and not message.get("tool_calls"):
        return _Turn([*encoded(answer, tokenizer), marks.end], end + 1, as_rendered=False)
    raise ModelError(
        "The chat template does not continue its own prompt, so training and chat would see different tokens.",
        fix="Choose a model with a simpler chat template.",
        code="template_rewrites",
    )


def _lost_thought(content: str, written: list[int], tokenizer: "Tokenizer") -> bool:
    """Whether the template has cut the thought out of an answer, spacing aside."""
    thought, answer = content.split(CLOSE, 1)
    thought, answer, shown = map(squeezed, (thought.split(OPEN, 1)[-1], answer, str(tokenizer.decode(written))))
    before = shown.rpartition(answer)[0] if answer and answer in shown else shown  # the answer may repeat the thought
    return thought not in before


def _thought_through(content: str, opened: bool, end: int, marks: Marks, tokenizer: "Tokenizer") -> _Turn:
    """An answer with its thought, as it was written, after a prompt that may have opened the thought."""
    text, empty = content if opened else f"{marks.before or ''}{content}", False
    if opened and content.lstrip().startswith(OPEN):
        text = content.lstrip().removeprefix(OPEN).lstrip("\n")
    elif opened and CLOSE not in content:
        text, empty = EMPTY + content, True
    ids: list[int] = []
    # the tags are the tokens they are for the model, special or not; whatever else is typed stays text
    for piece in re.split("({})".format("|".join(marks.tags)), text) if marks.tags else [text]:
        ids += [marks.tags[piece]] if piece in marks.tags else encoded(piece, tokenizer) if piece else []
    return _Turn([*ids, marks.end], end + 1, as_rendered=False, empty_thought=empty)


def _spans(labels: list[int]) -> list[Span]:
    spans: list[Span] = []
    for trained, same in groupby(labels, IGNORED.__ne__):
        start = spans[-1].end if spans else 0
        spans.append(Span(start, start + len(list(same)), trained))
    return spans
