"""The verb `sweep`: a small search for good settings, and the command that trains with them."""

import argparse
from dataclasses import replace

from finetune import data, models, settings, train
from finetune.cli.check import Answer, log
from finetune.cli.source import asked
from finetune.cli.verbs import outcome, said
from finetune.errors import FinetuneError
from finetune.records import Json
from finetune.store import Store
from finetune.train.follow import follow

NEGATIVE = ("data_not_trainable", "too_few_rows")
"""What is wrong with the data rather than with the command."""


def sweep(options: argparse.Namespace) -> Answer:
    """`sweep DATA_OR_YAML`: exit 0 if settings were found, 1 if not, 2 if it could not start."""
    try:
        store = Store(settings.read().home)
        wanted, config = asked(options)
        record = data.save_dataset(store, said(wanted.dataset()), fixed_with=wanted.fixed_with)
        models.find(config.model, log)
        started = train.start_sweep(store, config, record, options.minutes)
    except FinetuneError as error:
        log(f"error: {error}")
        return (1 if error.code in NEGATIVE else 2), {"error": error.as_dict()}
    ended = follow(store, started.id)
    found = train.look(store, ended)
    answer = outcome(ended) | {"minutes": options.minutes, **_measured(found)}
    if found.config is None:
        return 1, answer
    command = replace(wanted, changed=found.config.changed()).command()
    print(f"\nBest on the rows set apart; train with it:\n{command}\n\nAs YAML:")
    print(found.config.to_yaml(str(wanted.place) or None), end="")
    return 0, answer | {"set": found.config.changed(), "command": command}


def _measured(found: train.Sweep) -> Json:
    """Every candidate with its losses; printed as a table."""
    if (planned := found.planned) is None:
        return {"candidates": []}
    print(f"{'':2}{'learning rate':>13} {'rank':>5} {'epochs':>6} {'steps':>6} {'loss':>8}")
    candidates: list[Json] = []
    for number, curve in enumerate(found.curves):
        tried, diverged = found.tried_with(number), number in found.diverged
        best = found.found is not None and found.found.candidate == number
        steps, loss = (f"{curve[-1][0]}", f"{curve[-1][1]:.4f}") if curve else ("–", "–")
        figures = f"{tried.learning_rate:>13g} {tried.r:>5} {tried.epochs:>6g} {steps:>6}"
        note = "" if number else "  as set"
        print(f"{'✓' if best else '':2}{figures} {'diverged' if diverged else loss:>8}{note}")
        candidates.append({"set": planned.candidates[number], "losses": curve, "diverged": diverged})
    return {
        "candidates": candidates,
        "best": found.found.candidate if found.found else None,
        "loss": found.found.loss if found.found else None,
        "loss_as_set": found.found.before if found.found else None,
        "steps_each": planned.steps,
        "steps_of_a_run": planned.whole,
        "rows": planned.rows,
        "rows_apart": planned.apart,
    }
