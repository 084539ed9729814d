"""What a teacher sees of a workshop: who is there, what trains, what waits and how long, and what came of each run.

Nothing on it quotes anybody's rows, and whoever has not joined has no name.

Example:
    >>> board = look(store, workshop, progress_of)
    >>> board.rows[0].person, board.rows[0].word, board.rows[0].left
    ('Kiwi', 'running', 41.5)
"""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import evaluate, limits, people, settings, train
from finetune.evaluate.finished import headline
from finetune.people import Person
from finetune.records import Json
from finetune.schema import LOCAL
from finetune.store import ACTIVE, Run, Store
from finetune.workshop import Workshop

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""With these, a spreadsheet takes a cell for a formula."""

MOST_VERDICTS = 500
"""Verdicts that are remembered: reading one takes the hash of its run's adapter."""

_verdicts: dict[tuple[Any, ...], evaluate.Report | None] = {}


@dataclass(frozen=True)
class Row:
    """A run of the room. `waits` (until it begins) and `left` are seconds, None where they are not known.

    `losses` are those on held-out rows, of the base and the newest; `code` is that of the verdict.
    """

    person: str
    run: str
    name: str
    state: str
    word: str
    step: int
    steps: int
    seconds: float
    waits: float | None
    left: float | None
    losses: tuple[float, float] | None
    verdict: str
    code: str
    shown: bool


@dataclass(frozen=True)
class Board:
    """The room: `people` in the order in which they came; `rows` train, then wait in their order, then have ended.

    `empty_in` are the seconds until nothing waits or trains any more, None where they are not known, or while the
    queue is paused.
    """

    people: list[Person]
    rows: list[Row]
    empty_in: float | None
    held: bool
    minutes: float | None
    closed: bool

    def count(self, *states: str) -> int:
        """How many runs are in one of these states."""
        return sum(row.state in states for row in self.rows)


def look(store: Store, workshop: Workshop, progress: Callable[[Run], train.Progress]) -> Board:
    """The board as it is now; `progress` says how far a run is that trains."""
    everybody = people.everybody(store)
    called = {person.owner: person.nickname for person in everybody}
    shown = {run.id for run in workshop.shown()}
    runs = {run.id: run for run in store.runs() if run.owner in called or _is_here(run, workshop)}
    line = [run_id for run_id in limits.line(store) if run_id in runs]
    order = {run_id: place for place, run_id in enumerate(line)}
    states = ("running", "queued", "validating", "paused")
    ranked = sorted(
        runs.values(),
        key=lambda run: (
            states.index(run.state) if run.state in states else len(states),
            order.get(run.id, 0),
            -run.created,
        ),
    )
    seen = {run.id: progress(run) for run in ranked if run.state == "running"}
    held = limits.held(store)
    waits, empty_in = ({}, None) if held else _waits(ranked, line, seen, workshop.usual())
    called[LOCAL] = "Teacher"
    rows = [
        _row(run, called.get(run.owner, ""), seen.get(run.id), waits.get(run.id), run.id in shown) for run in ranked
    ]
    return Board(everybody, rows, empty_in, held, settings.read().max_minutes, workshop.closed)


def _is_here(run: Run, workshop: Workshop) -> bool:
    """Whether a run of somebody without a nickname is about this workshop, or stands in its queue."""
    new = run.owner != LOCAL and run.created >= workshop.began
    return new or run.state in ACTIVE or (run.owner == LOCAL and workshop.has_rows_of(run))


def _waits(
    runs: list[Run], line: list[str], seen: dict[str, train.Progress], usual: Callable[[Run], float | None]
) -> tuple[dict[str, float | None], float | None]:
    """Seconds until each run that waits begins, and until all have ended: of as many at a time as there are workers."""
    by_id = {run.id: run for run in runs}
    free: list[float | None] = [_left(run, seen[run.id], usual(run)) for run in runs if run.state == "running"]
    free += [0.0] * (settings.read().workers - len(free))
    found: dict[str, float | None] = {}
    for run_id in line:
        if any(one is None for one in free):
            return found | dict.fromkeys(line[len(found) :]), None
        place = min(range(len(free)), key=lambda one: free[one] or 0.0)
        found[run_id] = free[place]
        takes = usual(by_id[run_id])
        free[place] = None if takes is None else (free[place] or 0.0) + takes
    return found, None if any(one is None for one in free) else max(one or 0.0 for one in free)


def _left(run: Run, progress: train.Progress, usual: float | None) -> float | None:
    """Seconds a run still trains: as it measures itself; until it can, as long as others like it, `usual`."""
    if progress.eta is not None:
        return progress.eta
    return None if usual is None else max(0.0, usual - train.duration(run))


def _row(run: Run, person: str, progress: train.Progress | None, waits: float | None, shown: bool) -> Row:
    found, before, after = verdict_of(run), run.result.base_eval_loss, run.result.eval_loss
    if progress and len(progress.held_out) > 1:
        before, after = progress.held_out[0][1], progress.held_out[-1][1]
    return Row(
        person=person,
        run=run.id,
        name=run.name,
        state=run.state,
        word=train.state_word(run),
        step=run.step,
        steps=run.steps,
        seconds=train.duration(run),
        waits=waits,
        left=progress.eta if progress else None,
        losses=(before, after) if before is not None and after is not None else None,
        verdict=headline(found) if found and found.verdict else "",
        code=found.verdict.code if found and found.verdict else "",
        shown=shown,
    )


def verdict_of(run: Run) -> evaluate.Report | None:
    """`evaluate.known`, read again only when a report was written since."""
    reports = sorted((train.run_folder(run.id) / "evaluations").glob("*/report.json"))
    key = (run.id, run.state, *((str(file), file.stat().st_mtime_ns) for file in reports if file.exists()))
    if not reports:
        return None
    if key not in _verdicts:
        if len(_verdicts) > MOST_VERDICTS:
            _verdicts.clear()
        _verdicts[key] = evaluate.known(run)
    return _verdicts[key]


# To take away

COLUMNS = (
    *("nickname", "run", "name", "state", "preset", "steps", "seconds", "loss before", "loss after"),
    *("verdict", "verdict in words"),
)


def write(board: Board, store: Store, place: Path, curves: Callable[[str], str]) -> None:
    """Everything on the board as a zip: a table, the curves of each run (as CSV, from its id), and the verdicts.

    No rows, no answers to them and no adapters: those stay with their owners.
    """
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("runs.csv", _table(board, store))
        for row in board.rows:
            archive.writestr(f"curves/{row.run}.csv", curves(row.run))
        archive.writestr("verdicts.json", json.dumps(_verdicts_of(board, store), indent=1, ensure_ascii=False))


def _table(board: Board, store: Store) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in board.rows:
        preset = train.preset_of(train.TrainConfig(**store.run(row.run).config)) or "own settings"
        before, after = row.losses or ("", "")
        cells = (row.person, row.run, row.name, row.word, preset, row.step, round(row.seconds, 1), before, after)
        writer.writerow(_harmless((*cells, row.code, row.verdict)))
    with_runs = {row.person for row in board.rows}
    for person in board.people:
        if person.nickname not in with_runs:
            writer.writerow(_harmless((person.nickname, *[""] * (len(COLUMNS) - 1))))
    return text.getvalue()


def _harmless(cells: Iterable[Any]) -> list[Any]:
    """What people wrote never becomes a formula."""
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in cells]


def _verdicts_of(board: Board, store: Store) -> list[Json]:
    found = []
    for row in board.rows:
        if report := verdict_of(store.run(row.run)):
            arms = {name: {"score": arm.score, "correct": arm.correct} for name, arm in report.arms.items()}
            said = report.verdict.model_dump() if report.verdict else None
            found.append({"run": row.run, "nickname": row.person, "rows": report.n, "arms": arms, "verdict": said})
    return found
