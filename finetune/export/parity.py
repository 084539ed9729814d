"""Does the export behave like what was tested? Held-out prompts are asked again, and the answers compared.

green   every answer is the same
amber   some differ, but are much alike, and the score stays within its 95 % interval
red     the score left its interval, or the answers are others: this must not be shipped
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune import chat, evaluate
from finetune.evaluate.scores import chrf, scored
from finetune.evaluate.stats import mean_interval, share_interval
from finetune.store import Run, Store

ROWS = 40
"""Held-out prompts that are asked again, unless another number is given."""

ALIKE = 0.7
"""Least likeness of the answers, 1 for the same, that still counts as a small difference."""

Replay = Callable[[Sequence[list[dict[str, Any]]], int, bool], list[str]]
"""Takes conversations, the most tokens of an answer, and whether answers open thinking aloud."""


@dataclass(frozen=True)
class Parity:
    """`same` of `n` answers are identical; scores are means over the rows (shares right, or chrF for free text).

    `rows` is the evidence: prompt, expected, before, after.
    """

    n: int
    same: int
    score_before: float
    score_after: float
    ci: tuple[float, float]
    likeness: float
    status: str
    rows: tuple[dict[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For programs, without the evidence."""
        return {name: value for name, value in asdict(self).items() if name != "rows"}

    @property
    def sentence(self) -> str:
        """For people."""
        numbers = (
            f"{self.same} of {self.n} answers are the same; score {self.score_before:.2f} before, "
            f"{self.score_after:.2f} after"
        )
        return {
            "green": f"Loaded again, it answers like the model that was tested: {numbers}.",
            "amber": f"Loaded again, it answers almost like the model that was tested: {numbers}, within its interval.",
            "red": f"Do not ship this: loaded again, it does not answer like the model that was tested: {numbers}.",
        }[self.status]


def check(store: Store, run: Run, replay: Replay, engine: chat.Engine, rows: int = ROWS) -> Parity:
    """Ask the export the first of the evaluation's rows, and compare with the adapter as evaluated.

    Answers of the evaluation are used where there are some; the others are asked now.

    Raises:
        DataError: no row is held out.
        FinetuneError: the base, the adapter or the export cannot be asked.

    Example:
        >>> check(store, run, lambda *job: reload.answers(folder, *job), engine).status
        'green'
    """
    task = evaluate.of_run(run, store)
    asked = task.rows[:rows]
    prompts = [[dict(message) for message in row.prompt] for row in asked]
    most = evaluate.longest(task)
    known = {one.row: one.text for one in evaluate.answered(task) if one.arm == "tuned"}
    missing = [place for place in range(len(asked)) if place not in known]
    for start in range(0, len(missing), 8):
        places = missing[start : start + 8]
        asks = [chat.Ask(prompts[place], run, task.thinking) for place in places]
        replies = engine.answer(asks, task.model, chat.Sampling(max_tokens=most))
        known |= {place: reply.text for place, reply in zip(places, replies, strict=True)}
    before = [known[place] for place in range(len(asked))]
    after = replay(prompts, most, task.thinking)
    return compare(before, after, [row.answer for row in asked], [row.asked for row in asked], task.kind)


def compare(
    before: Sequence[str], after: Sequence[str], expected: Sequence[str], prompts: Sequence[str], kind: str
) -> Parity:
    """Judge answers to the same prompts, before the export and after.

    Example:
        >>> compare(["a"] * 9, ["a"] * 9, ["a"] * 9, ["?"] * 9, "label").status
        'green'
    """
    scores = [
        [_score(text, want, kind) for text, want in zip(texts, expected, strict=True)] for texts in (before, after)
    ]
    first, second = (sum(values) / len(values) for values in scores)
    ci = mean_interval(scores[0]) if kind == "free" else share_interval(round(sum(scores[0])), len(scores[0]))
    before, after = ([_whole(text) for text in texts] for texts in (before, after))
    same = sum(one == other for one, other in zip(before, after, strict=True))
    likeness = sum(_alike(one, other) for one, other in zip(before, after, strict=True)) / len(before)
    small = ci[0] <= second <= ci[1] and likeness >= ALIKE
    status = "green" if same == len(before) else "amber" if small else "red"
    rows = tuple(
        {"prompt": prompt, "expected": want, "before": one, "after": other}
        for prompt, want, one, other in zip(prompts, expected, before, after, strict=True)
    )
    return Parity(len(before), same, first, second, ci, round(likeness, 4), status, rows)


def _whole(text: str) -> str:
    """Without white space around, and without half a character where an answer was cut."""
    return text.strip().rstrip("\ufffd").strip()


def _score(text: str, expected: str, kind: str) -> float:
    found = scored(text, expected, kind)
    return float(bool(found.right)) if kind != "free" else found.parts["chrF"]


def _alike(one: str, other: str) -> float:
    """1 for the same text; chrF in the worse direction, so that text that runs on counts as a difference."""
    return 1.0 if one == other else min(chrf(one, other), chrf(other, one))
