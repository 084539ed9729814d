"""How strong should the adapter be? Score and general loss at seven strengths, and the best trade-off.

At strength 0 the adapter is off (the base), at 1 as trained; in between it does less of what it learned, good and bad.

    <run folder>/strengths/evaluations/<key>/   answers.jsonl, as an evaluation's, and strengths.json

What the verdict's evaluation asked of base and tuned model is taken over, never asked again.

Example:
    >>> scan = of_run(run, store)
    >>> for done, of in measure(scan, engine): ...
    >>> conclude(scan).best.strength
    0.75
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from finetune import chat, train
from finetune.data import Example
from finetune.evaluate import task as tasks
from finetune.evaluate.findings import Answered, Report
from finetune.evaluate.measure import Part, answered, ask, general, general_part, longest, take
from finetune.evaluate.report import known as verdict_of
from finetune.evaluate.scores import METRICS, scored
from finetune.evaluate.task import MOST_ROWS, Task, drawn
from finetune.evaluate.tradeoff import Point, Strengths, gaps, mean
from finetune.files import aside
from finetune.store import Run, Store

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
ROWS = 60
"""Held-out rows that are asked at each strength, at most; drawn by seed."""

FILE = "strengths.json"
PLACE = "strengths"

OURS = {0.0: ("base", "general_base"), 1.0: ("tuned", "general_tuned")}
"""Strengths that the verdict's evaluation asks too, by its own names."""


@dataclass(frozen=True)
class Scan:
    """A measurement to be done: its rows as a task of its own. `verdicts` are evaluations of rows among which some of
    these may be.
    """

    task: Task
    unseen: bool
    verdicts: tuple[Task, ...]


def of_run(run: Run, store: Store) -> Scan:
    """What to ask about a run: rows that no verdict asks if there are `ROWS` of them, else some of those it asks.

    Raises:
        DataError: there is no row to ask.
    """
    every = tasks.of_run(run, store, arms=("base", "tuned"), limit=sys.maxsize)
    judged = verdict_of(run)
    limits = dict.fromkeys([judged.n if judged else MOST_ROWS, MOST_ROWS])
    verdicts = tuple(replace(every, rows=drawn(every.rows, limit, every.seed)) for limit in limits)
    seen = {_text(row) for verdict in verdicts for row in verdict.rows}
    others = [row for row in every.rows if _text(row) not in seen]
    unseen = len(others) >= ROWS
    rows = drawn(others if unseen else verdicts[0].rows, ROWS, every.seed)
    return Scan(replace(every, rows=rows, place=train.run_folder(run.id) / PLACE), unseen, verdicts)


def _text(row: Example) -> str:
    return json.dumps(row.as_row(), sort_keys=True)


def names(strength: float) -> tuple[str, str]:
    """The arms of a strength: of the held-out rows, and of the general prompts.

    Example:
        >>> names(0.75)
        ('strength_0.75', 'general_0.75')
    """
    return OURS.get(strength, (f"strength_{strength:.2f}", f"general_{strength:.2f}"))


def measure(scan: Scan, engine: chat.Engine, stop: threading.Event | None = None) -> Generator[tuple[int, int]]:
    """Ask what has not been asked yet; yields (done, of) after each answer. Ends early when `stop` is set.

    Raises:
        FinetuneError: the model or the adapter cannot be used, or this is being measured elsewhere.
    """
    task = scan.task
    take(task, _known(scan))
    done = {(one.arm, one.row) for one in answered(task)}
    most = 0 if task.kind == "free" else longest(scan.verdicts[0])  # as for a verdict, whose answers are taken over
    parts = [part for strength in STRENGTHS for part in _parts(task, strength, most, done)]
    yield from ask(task, parts, len(done), engine, stop)


def _known(scan: Scan) -> list[Answered]:
    """What base and tuned model answered to these rows, and to the general prompts, for a verdict given here."""
    places = {_text(row): place for place, row in enumerate(scan.task.rows)}
    found = []
    for verdict in scan.verdicts:
        if verdict.brought:
            continue
        for one in answered(verdict):
            if one.arm in ("general_base", "general_tuned"):
                found.append(one)
            elif one.arm in ("base", "tuned") and (place := places.get(_text(verdict.rows[one.row]))) is not None:
                found.append(one.model_copy(update={"row": place}))
    return list({(one.arm, one.row): one for one in found}.values())


def _parts(task: Task, strength: float, most: int, done: set[tuple[str, int]]) -> list[Part]:
    """The questions at one strength: the held-out rows, long prompts first, and the losses of the general answers."""
    arm, everyday = names(strength)
    run = task.run if strength else None
    left = [row for row in range(len(task.rows)) if (arm, row) not in done]
    left.sort(key=lambda row: len(str(task.rows[row].prompt)), reverse=True)
    prompts = [[dict(message) for message in task.rows[row].prompt] for row in left]
    asks = [chat.Ask(prompt, run, task.thinking, strength=strength) for prompt in prompts]
    sampling = [chat.Sampling(max_tokens=most)] * len(left)
    rows = Part([(arm, row) for row in left], (asks, [task.rows[row].answer for row in left], task.model, sampling))
    return [rows, general_part(task.model, {everyday: run}, done, shown=0, strength=strength)]


@dataclass(frozen=True)
class _Found:
    """At one strength: the losses of the rows and of the general prompts, and 1 for each answer that is right."""

    losses: list[float]
    general: list[float]
    right: list[float]


def conclude(scan: Scan) -> Strengths | None:
    """What was found, kept with the run; None while answers are missing."""
    task = scan.task
    said = {(one.arm, one.row): one for one in answered(task)}
    measured = {strength: _measured(task, strength, said) for strength in STRENGTHS}
    whole = {strength: one for strength, one in measured.items() if one}
    if len(whole) < len(measured):
        return None
    by: Literal["score", "loss"] = "score" if any(any(one.right) for one in whole.values()) else "loss"
    compared = {at: one.right if by == "score" else [-loss for loss in one.losses] for at, one in whole.items()}
    points = [
        Point(
            strength=strength,
            score=mean(one.right) if one.right else None,
            correct=round(sum(one.right)) if one.right else None,
            loss=mean(one.losses),
            general_loss=mean(one.general),
            behind=behind,
            noise=noise,
        )
        for (strength, one), (behind, noise) in zip(whole.items(), gaps(compared), strict=True)
    ]
    found = Strengths(
        n=len(task.rows),
        general=len(general()),
        kind=task.kind,
        metric=METRICS[task.kind],
        by=by,
        unseen=scan.unseen,
        points=points,
    )
    keep(found, task.adapter, task.make_folder())
    return found


def _measured(task: Task, strength: float, said: Mapping[tuple[str, int], Answered]) -> _Found | None:
    """None while answers are missing."""
    arm, everyday = names(strength)
    given = [said[arm, row] for row in range(len(task.rows)) if (arm, row) in said]
    asked = [said[everyday, row] for row in range(len(general())) if (everyday, row) in said]
    if len(given) < len(task.rows) or len(asked) < len(general()):
        return None
    right: list[float] = []
    if task.kind != "free":
        each = zip(given, task.rows, strict=True)
        right = [float(bool(scored(one.text, row.answer, task.kind).right)) for one, row in each]
    losses, others = ([one.loss / max(1, one.loss_tokens) for one in part] for part in (given, asked))
    return _Found(losses, others, right)


def keep(found: Strengths, adapter: str, folder: Path) -> None:
    """Keep it in a measurement's folder, with the hash of the adapter it is about."""
    kept = found.model_copy(update={"adapter": adapter, "at": time.time()})
    with aside(folder / FILE) as place:
        place.write_text(json.dumps(kept.model_dump(mode="json", by_alias=True)), encoding="utf-8")


def bring(found: Strengths, run: Run) -> None:
    """Keep what came with an imported run."""
    folder = train.run_folder(run.id) / PLACE / "evaluations" / "bundle"
    folder.mkdir(parents=True, exist_ok=True)
    keep(found.model_copy(update={"origin": "bundle"}), tasks.adapter_hash(run), folder)


def known(run: Run) -> Strengths | None:
    """What was found of a run as its adapter is now, here rather than elsewhere; None when nothing was.

    Example:
        >>> known(run).best.strength
        0.75
    """
    adapter, found = tasks.adapter_hash(run), []
    for file in (train.run_folder(run.id) / PLACE / "evaluations").glob(f"*/{FILE}"):
        with contextlib.suppress(OSError, ValueError):  # deleted meanwhile, or damaged: as good as not there
            found.append(Strengths.model_validate_json(file.read_bytes()))
    found.sort(key=lambda one: (one.origin is None, one.at or 0), reverse=True)
    latest, judged = next((one for one in found if one.adapter == adapter), None), verdict_of(run)
    if latest and judged and judged.n > MOST_ROWS and (judged.at or 0) > (latest.at or 0):
        return latest.model_copy(update={"unseen": False})  # it asked more rows than the measurement left to verdicts
    return latest


def seconds(found: Report | None) -> float | None:
    """At most so long the answers will take, at the pace of the verdict's; None where nothing was measured here."""
    if found is None or found.origin == "bundle" or found.kind == "free":
        return None
    rows = ROWS if found.n >= MOST_ROWS else min(ROWS, found.n)
    return len(STRENGTHS) * rows * found.arms["tuned"].seconds
