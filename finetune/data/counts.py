"""What rows become, in numbers, and the problems that show only then: text cut, or left out by the chat template."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from finetune import models
from finetune.data.example import Example, Findings, Problem
from finetune.data.mends import folded
from finetune.data.prepare import Made, prepare, used_length
from finetune.data.texts import visible
from finetune.errors import ModelError
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.models.template import Tokenizer

SHORT = 80
"""Characters of a text that is quoted as an example."""

LEFT_OUT: dict[models.What, str] = {
    "system": "The chat template leaves out the system prompt.",
    "user": "The chat template leaves out text of a question.",
    "tool": "The chat template leaves out a tool's result.",
    "answer": "The chat template leaves out text of an answer.",
    "thought": "The chat template leaves out a thought that should be learned.",
    "call": "The chat template leaves out a part of a tool call.",
    "tools": "The chat template leaves out the description of a tool.",
}
"""What a template may leave out, in a sentence each."""

LAST_ONLY = "The chat template renders earlier answers differently, so only the last answer is learned."
LAST_CALL = (
    "The chat template renders earlier answers differently, so only the last answer is learned, and the tool calls "
    "before it are not."
)

FOLD = "Put the system prompt into the first user turn with one click (--fix fold_system_prompt)."
OTHERWISE = "Choose another model, or put the text where its chat template shows it."


class RowSequence(NamedTuple):
    """A sequence in numbers: of which row it is, its tokens, and where those to learn are, as (start, end)."""

    row: int
    held_out: bool
    tokens: int
    trained: tuple[tuple[int, int], ...]

    @property
    def first(self) -> int:
        return self.trained[0][0]

    @property
    def learned(self) -> int:
        return self.learned_within(self.tokens)

    def learned_within(self, length: int) -> int:
        """How many tokens to learn are left when it is cut at `length`."""
        return sum(max(0, min(end, length) - start) for start, end in self.trained)


class Counts:
    """Collects the token counts of each row, and what the chat template did with it.

    Example:
        >>> counts = Counts(max_length=512)
        >>> for made in prepare(dataset.examples, tokenizer): counts.add(made, tokenizer, held_out=False)
        >>> [problem.code for problem in counts.problems()]
        ['truncated']
    """

    def __init__(self, max_length: int | None):
        self.max_length = max_length
        self.made: list[RowSequence] = []
        self.turns: list[int] = []
        self.folds = False
        self._findings = Findings()
        self._lines: list[int] = []
        self._left_out: Counter[models.What] = Counter()
        self._first: tuple[int, str] | None = None

    @property
    def length(self) -> int:
        """At how many tokens training cuts."""
        return used_length(self.max_length, max((one.tokens for one in self.made), default=0))

    def add(self, made: Made, tokenizer: "Tokenizer", held_out: bool) -> None:
        example = made.example
        self.turns.append(sum(message["role"] == "assistant" for message in example.messages))
        if made.refused:
            self._refused(made.refused, example, tokenizer)
            return
        for one in made.sequences:
            self._lines.append(example.line)
            trained = tuple((span.start, span.end) for span in one.spans if span.trained)
            self.made.append(RowSequence(len(self.turns), held_out, len(one.input_ids), trained))
        text = "\n".join(str(tokenizer.decode(one.input_ids)) for one in made.sequences)
        lost = [one for side in example.sides for one in models.left_out(side.messages, text, tokenizer, side.tools)]
        self._see_turns(example, made.sequences)
        if lost:
            self._see_left_out(example, lost, made.sequences[0].last_only)

    def _refused(self, error: ModelError, example: Example, tokenizer: "Tokenizer") -> None:
        """A refused row; one that is taken without its system turn can be mended."""
        fix = error.fix
        if error.code in ("template_refuses", "template_rewrites") and (other := folded(example)) is not example:
            folds = next(iter(prepare([other], tokenizer))).refused is None
            self.folds |= folds
            fix = FOLD if folds else fix
        self._findings.add(error.code, example.line, error.what, fix)

    def _see_turns(self, example: Example, sequences: Sequence[models.Rendered]) -> None:
        if sequences[0].last_only and sum(map(models.is_learned, example.messages)) > 1:
            called = any("tool_calls" in message for message in example.messages[:-1])
            code, said = ("last_call_only", LAST_CALL) if called else ("last_turn_only", LAST_ONLY)
            hint = "To learn each of them, turn on Every answer (--set every_answer=true)."
            self._findings.add(code, example.line, said, hint, "warning")
        if any(one.empty_thought for one in sequences):
            self._findings.add(
                "empty_thought",
                example.line,
                "The chat template begins every answer with a thought. Some answers have none: an empty one is learned "
                "before them.",
                "If you want the model to think, add thoughts to the answers.",
                "note",
            )

    def _see_left_out(self, example: Example, lost: Sequence[models.LeftOut], last_only: bool) -> None:
        kinds = {one.what for one in lost}
        if "past" in kinds and not last_only:
            self._findings.add(
                "earlier_thought",
                example.line,
                "The chat template leaves out the thoughts of earlier answers, in training as in chat.",
                "Nothing to do.",
                "note",
            )
        if "unused" in kinds and _is_answer(example.messages[-1]):
            self._findings.add(
                "after_last_answer",
                example.line,
                "Anything after the last answer to learn is not used.",
                "Nothing to do.",
                "note",
            )
        if "name" in kinds:
            self._findings.add(
                "name_not_shown",
                example.line,
                "The chat template does not show the names of the speakers (name).",
                "If it matters who speaks, put the name into the text.",
                "note",
            )
        # a thought in an answer that is not learned is named already
        dropped = [one for one in lost if one.what in LEFT_OUT and not (last_only and one.what == "thought")]
        if not dropped:
            return
        self._findings.add("template_drops_text", example.line, "", "", "warning")
        self._left_out.update({one.what for one in dropped})
        if self._first is None:
            self._first = example.line, dropped[0].text
        self.folds |= "system" in kinds and bool(example.system)

    def problems(self) -> Iterator[Problem]:
        """The problems found, with totals of what is cut and of what the template leaves out."""
        self._see_cut()
        for found in self._findings.problems():
            if found.code == "truncated":
                yield replace(found, message=self._cut_in_words(), hint=self._longer())
            elif found.code == "template_drops_text":
                yield replace(found, message=self._dropped_in_words(), hint=FOLD if self.folds else OTHERWISE)
            else:
                yield found

    def _see_cut(self) -> None:
        length = self.length
        for line, one in zip(self._lines, self.made, strict=True):
            if one.tokens > length:
                self._findings.add("truncated", line, "", "", "warning")
            if one.first >= length:
                self._findings.add(
                    "no_trained_token",
                    line,
                    f"Cut at {length:,} tokens, the row keeps nothing of its answer to learn from.",
                    "Raise the maximum length, or drop these rows with one click.",
                    "warning",
                )

    def _cut_in_words(self) -> str:
        length, cut = self.length, [one for one in self.made if one.tokens > self.length]
        lost = sum(one.tokens - length for one in cut)
        answers = sum(one.learned_within(length) < one.learned for one in cut)
        said = f"{len(cut):,} rows are longer than {length:,} tokens and lose {lost:,}"
        said += f"; in {answers:,} the answer itself is cut."
        return said

    def _longer(self) -> str:
        longest = max(one.tokens for one in self.made)
        return f"Raise the maximum length to {longest:,}, or drop these rows with one click."

    def _dropped_in_words(self) -> str:
        line, text = self._first or (0, "")
        kinds = " ".join(LEFT_OUT[kind] for kind, _ in self._left_out.most_common())
        where = f"The first is in line {line}: “{_short(text)}”"
        return f"{kinds} {where}"


def _is_answer(message: Json) -> bool:
    return bool(message["role"] == "assistant")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return visible(text if len(text) <= SHORT else f"{text[:SHORT]}…")
