"""The finished example that the Start tab shows, from a run that was measured: ``python -m tests.example HOME RUN``.

HOME is a `FINETUNE_HOME` with a run on the sample *tickets* that was trained with the preset Quick and evaluated:

    FINETUNE_HOME=HOME python -m finetune train sample_data/tickets --preset quick
    FINETUNE_HOME=HOME python -m finetune evaluate RUN
    python -m tests.example HOME RUN

Nothing is asked here: the answers are those the evaluation kept. On two cores, training and evaluation take some
minutes each. Writes `sample_data/example.json`, and reads it back.
"""

import os
import sys
from pathlib import Path

from finetune import evaluate, train
from finetune.evaluate import finished
from finetune.export import facts
from finetune.store import Store

PRESET = "quick"


def of_run(store: Store, run_id: str) -> finished.Finished:
    """What was measured of a run, with every row that was asked.

    Raises:
        DataError, RunError: the run, its rows or its answers are not there.
    """
    run = store.run(run_id)
    record, report = store.dataset(run.dataset), evaluate.known(run)
    if report is None or report.at is None:
        sys.exit(f"{run_id} was not evaluated yet: python -m finetune evaluate {run_id}")
    usual = {**train.TrainConfig().model_dump(), **train.preset(PRESET).values}
    if {**run.config, "model": usual["model"]} != usual:
        sys.exit(f"{run_id} was not trained with the preset {PRESET}.")
    task = evaluate.of_run(run, store, limit=report.n)
    rows = evaluate.judged(task, evaluate.answered(task))
    system = next((message["content"] for message in task.rows[0].prompt if message["role"] == "system"), "")
    here = facts.environment()
    return finished.Finished(
        data=record.name,
        instruction=system,
        preset=train.preset(PRESET).title,
        settings=train.TrainConfig(**run.config).changed(),
        trained_on=len(task.train),
        steps=run.steps,
        training_seconds=train.duration(run),
        made=report.at,
        machine=finished.Machine(cpu=here["cpu"], cores=here["cores"], gpu=here["gpu"]),
        report=report.model_copy(update={"run": None}),
        rows=[row.model_copy(update={"arms": _short(row)}) for row in rows],
    )


def _short(row: evaluate.findings.Judged) -> dict[str, evaluate.findings.ArmAnswer]:
    """The losses to four digits: nobody reads more."""
    return {
        name: arm.model_copy(update={"loss": None if arm.loss is None else round(arm.loss, 4)})
        for name, arm in row.arms.items()
    }


def main(home: str, run_id: str) -> None:
    """Write the example of a run in a home."""
    os.environ["FINETUNE_HOME"] = str(Path(home).resolve())
    finished.write(of_run(Store(Path(home).resolve()), run_id))
    print(finished.headline(finished.read().report))


if __name__ == "__main__":
    main(*sys.argv[1:])
