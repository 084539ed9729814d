"""What is evaluated: which rows, asked of whom, in which arms; made from a run, or from a dataset alone.

<run folder>/evaluations/<key>/        of a run on its held-out rows; it goes when the run goes
<run folder>/other-rows/evaluations/…  of a run on rows of another file
<dataset folder>/evaluations/<key>/    of a kept dataset, before any training
<home>/evaluations/<key>/              of a file, from the command line
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune import data, models, settings, train
from finetune.chat.talk import single
from finetune.data.split import leaks
from finetune.errors import ConfigError, DataError
from finetune.evaluate import scores
from finetune.evaluate.arms import MODELS, REFERENCES
from finetune.evaluate.kinds import KINDS, kind_of
from finetune.records import Json
from finetune.store import DatasetRecord, Run, Store

MOST_ROWS = 100
"""Rows that are asked unless another limit is given; drawn by seed when there are more."""

ARMS = (*MODELS, *REFERENCES)
BEFORE = tuple(arm for arm in ARMS if arm != "tuned")
"""The arms there are before any training."""

BROUGHT = "brought"
"""Beside answers that came in a bundle."""

LEFT_OUT = "are unreadable, are duplicates, use tools, or have no good text answer"
"""Of held-out rows: why such are not asked."""

NOTHING_HELD_OUT = "nothing_held_out"
"""Code of the error where no row is left that was not trained on."""

NEED_EXAMPLES = ("few_shot", "retrieval", "nearest")
"""Arms that are no arms of their own without training rows of one question and one answer."""


@dataclass(frozen=True)
class Task:
    """An evaluation to be done.

    `excluded` counts held-out rows that training saw too, that of this run or of one that it continues, `left_out`
    those that `LEFT_OUT` names: none of them is asked. `usual`: every arm there can be, judged as the data tells.
    """

    model: str
    run: Run | None
    train: Sequence[data.Example]
    rows: Sequence[data.Example]
    excluded: int
    kind: str
    arms: tuple[str, ...]
    seed: int
    place: Path
    thinking: bool = False
    schema: Json | None = None
    left_out: int = 0
    usual: bool = True

    @property
    def adapter(self) -> str:
        """The SHA-256 of the run's adapter weights: resumed, a run has others. "" without a run."""
        return adapter_hash(self.run) if self.run else ""

    @cached_property
    def key(self) -> str:
        """The same for the same question, so that what was answered of it already is found again."""
        model, seed, thinking, rows = self.asks
        asked = [model, models.stamp(model), self.adapter, seed, thinking, rows]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def asks(self) -> tuple[str, int, bool, list[Any]]:
        """All that the base's answers depend on."""
        rows = [[row.as_row() for row in part] for part in (self.rows, self.train)]
        return self.model, self.seed, self.thinking, rows

    @property
    def source(self) -> str | None:
        """Which copy of the base every arm is asked of: the one that the run was trained on."""
        return self.run.result.source if self.run else None

    @property
    def picked(self) -> bool:
        """Whether the adapter was chosen among checkpoints by its loss on the very rows that are asked."""
        if not self.run or self.place != train.run_folder(self.run.id):
            return False
        return train.TrainConfig(**self.run.config).keeps_best

    @property
    def unsure(self) -> bool:
        """Whether a run before this one was trained on rows that are not known, which may be among those asked."""
        return self.run is not None and not all(one.rows for one in self.run.lineage)

    @property
    def brought(self) -> bool:
        """Whether some of its answers came in a bundle; those that are asked since do not make the others ours."""
        return (self.folder / BROUGHT).exists()

    @property
    def folder(self) -> Path:
        """Where its answers are kept: with the run or the data, so that they go with it."""
        return self.place / "evaluations" / self.key

    def make_folder(self) -> Path:
        """Make `folder`, unless the run or the data that it goes with was deleted: the answers quote its rows.

        Raises:
            DataError: it was deleted.
        """
        root = train.run_folder(self.run.id) if self.run else self.place
        made = root
        try:
            for part in self.folder.relative_to(root).parts:  # step by step: never the root itself
                made = made / part
                made.mkdir(exist_ok=True)
        except FileNotFoundError as error:
            name = self.run.name if self.run else "Its data"
            raise DataError("It was deleted meanwhile.", where=name, fix="Choose another.", code="deleted") from error
        return made


def adapter_hash(run: Run) -> str:
    """The SHA-256 of a run's adapter weights; "" when there are none."""
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else ""


def of_run(
    run: Run,
    store: Store,
    *,
    held_out: Path | None = None,
    arms: Sequence[str] = ARMS,
    limit: int = MOST_ROWS,
    kind: str | None = None,
    schema: Json | None = None,
) -> Task:
    """The evaluation of a run on its held-out rows, or on those of a file.

    Raises:
        ConfigError: an arm or kind that does not exist, or no JSON Schema.
        DataError: there is no row to ask.
    """
    record = store.dataset(run.dataset)
    config = train.TrainConfig(**run.config)
    learned, held = train.rows_of_run(store, run)
    place = train.run_folder(run.id)
    unreadable = 0
    if held_out:
        other = data.load(held_out)
        other = other.validation if held_out.is_dir() and other.validation else other
        held, unreadable, place = other.examples, len(other.rejected), place / "other-rows"
    thinking = record.facts.thinks
    draft = Task(config.model, run, learned, held, 0, "", tuple(arms), config.seed, place, thinking, schema, unreadable)
    return _settled(draft, limit, kind, train.learned_before(train.run_folder(run.id)))


def of_learned(run: Run, store: Store, *, limit: int = MOST_ROWS) -> Task:
    """The rows a run was trained on: evidence of whether an export answers as the run does, never of how well it does.

    Raises:
        DataError: there is no row to ask, or they are not here.
    """
    config, (learned, _) = train.TrainConfig(**run.config), train.rows_of_run(store, run)
    place, thinking = train.run_folder(run.id) / "learned-rows", store.dataset(run.dataset).facts.thinks
    return _settled(Task(config.model, run, [], learned, 0, "", ("tuned",), config.seed, place, thinking), limit, None)


def of_data(
    model: str,
    path: Path,
    *,
    arms: Sequence[str] = BEFORE,
    limit: int = MOST_ROWS,
    kind: str | None = None,
    schema: Json | None = None,
    place: Path | None = None,
) -> Task:
    """The evaluation of a base model with what could be done instead of fine-tuning it: is there need for it?

    The rows held out are those that a run with default settings would hold out.

    Raises:
        ConfigError: the tuned arm is asked for, or one that does not exist.
        DataError: there is no row to ask.
    """
    if "tuned" in arms:
        raise ConfigError("Without a run there is no tuned arm.", where="arms", fix="Name a run, or drop tuned.")
    usual = train.TrainConfig()
    whole = data.held_out(data.load(path), usual.held_out, usual.seed)
    held, unreadable = (whole.validation.examples, len(whole.validation.rejected)) if whole.validation else ([], 0)
    place = place or settings.read().home
    draft = Task(model, None, whole.examples, held, 0, "", tuple(arms), usual.seed, place, False, schema, unreadable)
    return _settled(draft, limit, kind)


def of_dataset(model: str, record: DatasetRecord, *, limit: int = MOST_ROWS) -> Task:
    """As `of_data`, of a kept dataset.

    Raises:
        DataError: nothing is held out, or the kept dataset is gone.
    """
    folder = data.rows_of(record)
    return of_data(model, folder, limit=limit, place=folder)


def _settled(draft: Task, limit: int, kind: str | None, before: Sequence[data.Example] = ()) -> Task:
    """Which of the draft's rows are asked, in which of its arms, judged as what.

    None is asked that the run was trained on, or one `before` it that it continues.
    """
    for name, known, given in (("arm", ARMS, draft.arms), ("kind", KINDS, [kind] if kind else [])):
        if wrong := [one for one in given if one not in known]:
            raise ConfigError(f"There is no such {name}.", where=wrong[0], fix=f"Choose from: {', '.join(known)}.")
    unseen = _not_trained(before, _not_trained(draft.train, draft.rows))
    fresh = askable(unseen)
    if not fresh:
        raise DataError(
            "No held-out row is left to evaluate." if draft.rows else "Nothing is held out.",
            where=draft.run.id if draft.run else draft.model,
            fix="Give rows that were not used in training.",
            code=NOTHING_HELD_OUT,
        )
    rows = drawn(fresh, limit, draft.seed)
    learned = draft.train
    if len(learned) and learned[0].kind == "ratings":  # a bad answer is no example of how to answer
        learned = [row for row in learned if row.good]
    usual_kind = kind_of([row.answer for row in learned] or [row.answer for row in rows])
    can = [arm for arm in ARMS if arm in draft.arms and (arm not in NEED_EXAMPLES or single(learned))]
    if draft.schema is not None:
        scores.refuse_schema(draft.schema, kind or usual_kind)
    every = set(draft.arms) == set(ARMS if draft.run else BEFORE)
    return replace(
        draft,
        train=learned,
        rows=rows,
        arms=tuple(can),
        kind=kind or usual_kind,
        excluded=len(draft.rows) - len(unseen),
        left_out=draft.left_out + len(unseen) - len(fresh),
        usual=kind in (None, usual_kind) and draft.schema is None and every,
    )


def drawn(rows: Sequence[data.Example], limit: int, seed: int) -> list[data.Example]:
    """At most `limit` of the rows, in their order; the same ones each time.

    Example:
        >>> len(drawn(rows, 60, seed=0))
        60
    """
    chosen = sorted(random.Random(seed).sample(range(len(rows)), min(limit, len(rows))))
    return [rows[place] for place in chosen]


def askable(rows: Sequence[data.Example]) -> list[data.Example]:
    """Each row once, and only those that are answered with text: nothing else is evidence here."""
    asked = (row for row in rows if row.answer.strip() and not row.tools and row.good is not False)
    return list({json.dumps(row.as_row(), sort_keys=True): row for row in asked}.values())


def _not_trained(learned: Sequence[data.Example], held: Sequence[data.Example]) -> list[data.Example]:
    """Held-out rows whose question, or nearly that, is not among those trained on."""
    if not learned or not held:
        return list(held)
    seen = leaks(_dataset(held), _dataset(learned))
    return [row for place, row in enumerate(held) if place not in seen]


def _dataset(rows: Sequence[data.Example]) -> data.Dataset:
    return data.Dataset("rows", Path(), None, rows, [], [])
