"""Which columns a comparison has: base and tuned always, up to two more of the person's choice."""

from collections.abc import Sequence
from functools import lru_cache

from finetune import data, models, train
from finetune.chat import talk
from finetune.chat.talk import Column, Talk
from finetune.errors import NotAllowed
from finetune.services import Browser, Services
from finetune.store import Run, Store

MOST = talk.MOST_COLUMNS - 2


def possible(services: Services, run: Run, state: Browser) -> list[tuple[str, str]]:
    """(label, key) of every column there could be beside base and tuned.

    Example:
        >>> possible(services, run, state)[:2]
        [('Base + 3 examples', 'shots'), ('Tuned, other strength', 'strength')]
    """
    found = [(f"Base + {talk.SHOTS} examples", "shots")] if services.shows_rows(run, state) else []
    found.append(("Tuned, other strength", "strength"))
    shown = run.result.adapter_step
    found += [(f"Checkpoint, step {step}", f"step:{step}") for step in train.checkpoint_steps(run.id) if step != shown]
    for other in services.seen_runs(state):
        same = other.config["model"] == run.config["model"] and other.id != run.id
        same = same and models.copy_of(other.result.source) == models.copy_of(run.result.source)
        if same and train.adapter_folder(other.id).is_dir():
            found.append((f"{other.name} · {services.whose(other, state) or other.id}", f"run:{other.id}"))
    return found


def begin(
    services: Services, run: Run, state: Browser, keys: Sequence[str], strength: float, system: str | None = None
) -> Talk:
    """An empty conversation with these columns; `system` None takes the one the run was trained with.

    Raises:
        RunError: another run may not be seen by the visitor, or the dataset is gone.
        NotAllowed: examples are asked for, and the rows of the run are somebody else's.
    """
    facts = services.store.dataset(run.dataset).facts
    system = (facts.system or "") if system is None else system
    columns = [Column("base", "Before · base model"), Column("tuned", "After · tuned model", run)]
    columns += [_column(services, run, state, key, strength) for key in keys[:MOST]]
    return Talk(run, tuple(columns), system, facts.thinks)


def _column(services: Services, run: Run, state: Browser, key: str, strength: float) -> Column:
    kind, _, which = key.partition(":")
    if kind == "shots":
        if not services.shows_rows(run, state):
            raise NotAllowed("The examples of this run belong to somebody else.", where=run.id, code="only_shown")
        drawn = talk.shots(examples(services, run)[0], run.config["seed"])
        return Column(key, f"Base + {len(drawn)} examples", shots=drawn)
    if kind == "strength":
        return Column(key, f"Tuned, strength {strength:g}", run, strength=strength)
    if kind == "step":
        return Column(key, f"Tuned, step {which}", run, step=int(which))
    other = services.seen(which, state)
    return Column(key, other.name, other)


def refuse_hidden(services: Services, talk: Talk, state: Browser) -> None:
    """Who shows a run to others may hide it again, also from those who talk to it just then.

    Raises:
        RunError: the visitor may not see one of these runs any more.
    """
    for column in talk.columns:
        if column.run:
            services.seen(column.run.id, state)


def examples(services: Services, run: Run) -> tuple[Sequence[data.Example], Sequence[data.Example]]:
    """The rows the run was trained on, and those held out.

    Raises:
        DataError: the dataset is gone.
    """
    return _opened(services.store, run.id)


@lru_cache(8)
def _opened(store: Store, run_id: str) -> tuple[Sequence[data.Example], Sequence[data.Example]]:
    """A run's rows never change; reading many takes seconds."""
    return train.rows_of_run(store, store.run(run_id))


def askable(services: Services, run: Run, state: Browser) -> list[data.Example]:
    """Held-out rows that are one question and one answer, each question once; none where they are somebody else's."""
    if not services.shows_rows(run, state):
        return []
    rows = talk.single(examples(services, run)[1])
    return list({row.asked: row for row in reversed(rows)}.values())[::-1]
