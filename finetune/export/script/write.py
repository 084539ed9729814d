"""A run as a Python script and as a notebook that repeat it with plain transformers, PEFT and TRL, without this app.

Both are made of the same cells (`template.py`): those the run needs, with its settings written in. Text from people
stands in them only as Python string literals. The rows come as text and as token ids, with the order in which they were
read, so that the script needs neither this app's renderer nor its sampler.

Example:
    >>> write_script(subject, Path("to-go.zip"))    # train.py, train.ipynb, the rows, requirements, settings
    PosixPath('to-go.zip')
"""

import json
import math
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune.data.prepare import cut_to, learnable, prepare, used_length
from finetune.errors import ConfigError, ModelError
from finetune.export.script.recipe import Recipe, recipe, settings
from finetune.export.subject import Choices, Say, Subject
from finetune.files import aside
from finetune.records import Json
from finetune.train.check import nothing_to_learn
from finetune.train.config import TrainConfig
from finetune.train.lineage import WEIGHTS, start_of
from finetune.train.tokenized import measured

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Example

Row = tuple["Example", dict[str, list[int]]]
"""A row as text, and its ``input_ids`` and ``labels``."""

TEMPLATE = Path(__file__).with_name("template.py")
MARK = re.compile(r"^ *# %%(?: \[(?P<markdown>markdown)\])?(?P<same> \+)?(?: (?P<rule>when|unless) (?P<what>\w+))?$")
SETTINGS = "# %% settings"
DEFINITIONS = ("def ", "class ")
APART, DEFINITIONS_APART = "\n\n", "\n\n\n"

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "jinja2")


@dataclass(frozen=True)
class Cell:
    """A piece of the script: code, or text in Markdown."""

    kind: str
    text: str


def script(recipe: Recipe) -> str:
    """The run as a Python script, in the percent format that editors show as cells.

    Example:
        >>> compile(script(recipe), "train.py", "exec")
        <code object <module> ...>
    """
    parts = []
    for cell in cells(recipe):
        if cell.kind == "markdown":
            lines = "\n".join(f"# {line}".rstrip() for line in cell.text.splitlines())
            parts.append(f"# %% [markdown]\n{lines}\n")
        else:
            above = "\n" if cell.text.startswith(DEFINITIONS) else ""
            parts.append(f"{above}# %%\n{cell.text}\n")
    return "\n".join(parts)


def notebook(recipe: Recipe) -> Json:
    """The same as a Jupyter notebook (nbformat 4.5), not yet run.

    Example:
        >>> json.dumps(notebook(recipe))[:20]
        '{"nbformat": 4, "nbf'
    """
    not_run: Json = {"execution_count": None, "outputs": []}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": [
            {"id": f"cell-{number:02d}", "cell_type": cell.kind, "metadata": {}, "source": cell.text}
            | (not_run if cell.kind == "code" else {})
            for number, cell in enumerate(cells(recipe), start=1)
        ],
    }


def make_script(subject: Subject, place: Path, choices: Choices, say: Say) -> None:
    """Write script, notebook, rows, requirements and settings to the zip `place`."""
    write_script(subject, place)


def write_script(subject: Subject, out: Path) -> Path:
    """Write script, notebook, rows, requirements and settings to the zip `out`.

    Raises:
        ConfigError: it was trained on preferences.
        DataError: the run's rows are gone, or none of them can be learned.
        RunError: it continues a run whose adapter stayed on the machine where it was trained.
        ModelError: the base is not here, so that its template cannot render the rows.

    Example:
        >>> zipfile.ZipFile(write_script(subject, Path("to-go.zip"))).namelist()[:3]
        ['train.py', 'train.ipynb', 'train.jsonl']
    """
    if subject.record.facts.kind != "answers":
        raise ConfigError(
            "A notebook repeats runs on single answers only, not on preferences.",
            where=subject.run.name,
            fix="Take the bundle: another installation of this app can repeat it.",
            code="format_unfit",
        )
    start = start_of(subject.run) if subject.run.lineage else None
    files = _files(subject)
    with aside(out) as place, zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        if start:
            archive.write(start, f"start/{WEIGHTS}")
    return out


def cells(recipe: Recipe) -> list[Cell]:
    """The template's cells that this run needs; neighbours of the same kind are one."""
    done: list[Cell] = []
    kind, lines, wanted = "", [], False
    for line in [*_template(recipe), "# %%"]:
        mark = MARK.match(line)
        if not mark:
            if wanted:
                lines.append(line)
            continue
        if not mark["same"]:
            _add(done, kind, lines)
            kind, lines = "markdown" if mark["markdown"] else "code", []
        wanted = mark["rule"] is None or (mark["what"] in recipe.conditions) == (mark["rule"] == "when")
    return done


def _add(done: list[Cell], kind: str, lines: list[str]) -> None:
    text = "\n".join(lines).strip("\n")
    if not text:
        return
    if kind == "markdown":
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
    elif done and done[-1].kind == "code":
        before = done.pop().text
        in_body = before.splitlines()[-1].startswith(" ")
        text = f"{before}{DEFINITIONS_APART if in_body or text.startswith(DEFINITIONS) else APART}{text}"
    done.append(Cell(kind, text))


def _template(recipe: Recipe) -> list[str]:
    """The lines of the template from its first cell on, with the settings in their place."""
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    lines = lines[next(place for place, line in enumerate(lines) if MARK.match(line)) :]
    start = lines.index(SETTINGS)
    end = next(place for place in range(start + 1, len(lines)) if MARK.match(lines[place]))
    return [*lines[:start], "# %%", *settings(recipe), "", *lines[end:]]


def _files(subject: Subject) -> dict[str, str]:
    tokenizer = models.load_tokenizer(subject.model)
    learned, held, length = rendered(*subject.rows, tokenizer, subject.config)
    evaluated = measured(held, subject.config)
    steps, order = _order(subject.config, learned, length, subject.run.steps)
    known = _known(tokenizer, subject.config)
    about = recipe(subject, steps, length, models.end_of_turn(tokenizer), held=bool(known))
    settings = subject.config.model_copy(update={"model": about.model}).to_yaml("train.jsonl")
    return {
        "train.py": script(about),
        "train.ipynb": json.dumps(notebook(about), indent=1) + "\n",
        "train.jsonl": _lines(example.as_row() for example in _once(learned)),
        "validation.jsonl": _lines(example.as_row() for example in _once(held)),
        "train.tokens.jsonl": _lines(tokens for _, tokens in learned),
        "validation.tokens.jsonl": _lines(tokens for _, tokens in evaluated),
        **({"known.tokens.jsonl": _lines(known)} if known else {}),
        "order.json": json.dumps(order) + "\n",
        "requirements.txt": requirements(subject.config),
        "settings.yaml": settings + ("validation: validation.jsonl\n" if held else ""),
    }


def _known(tokenizer: "PreTrainedTokenizerBase", config: TrainConfig) -> list[dict[str, list[int]]]:
    """The general questions that the run read, none if it read none."""
    from finetune.train.known import in_order

    try:
        return in_order(tokenizer, config.seed) if config.base_kl else []
    except ModelError:  # the run did without them, too
        return []


def rendered(
    learned: "Sequence[Example]",
    held: "Sequence[Example]",
    tokenizer: "PreTrainedTokenizerBase",
    config: TrainConfig,
) -> tuple[list[Row], list[Row], int]:
    """The rows to train on and the held-out rows as the run read them, and the length they are cut to.

    Like the run (`train.tokenized.render_rows`), it leaves out rows that the template refuses or that teach nothing
    within the length. The ids are made of the text that is exported, and hold nothing else. A conversation of which
    each answer is trained stands there once for each.

    Raises:
        DataError: no row is left.

    Example:
        >>> rendered(examples, [], tokenizer, TrainConfig())[0][0][1].keys()
        dict_keys(['input_ids', 'labels'])
    """
    whole = [
        [(made.example, one) for made in prepare(part, tokenizer, config.every_answer) for one in made.sequences]
        for part in (learned, held)
    ]
    length = used_length(config.max_length, max((len(one.input_ids) for part in whole for _, one in part), default=1))
    parts = [[(example, cut_to(one, length)) for example, one in part if learnable(one, length)] for part in whole]
    if not parts[0]:
        raise nothing_to_learn(length)
    return parts[0], parts[1], length


def _once(rows: list[Row]) -> list["Example"]:
    """The examples, each once however many sequences it became."""
    return list({id(example): example for example, _ in rows}.values())


def _order(config: TrainConfig, rows: list[Row], length: int, planned: int) -> tuple[int, list[list[int]]]:
    """How many steps the run takes, and which rows (packed, if it packs) each epoch reads in which order.

    `planned` are the steps the run set out to make, fewer than the settings ask for where the server allowed no more;
    0 before it began.
    """
    from finetune.train.packing import pack
    from finetune.train.sampler import Order

    lengths = [len(tokens["input_ids"]) for _, tokens in rows]
    if config.packing:
        lengths = [len(ids) for ids in pack([tokens for _, tokens in rows], length)["input_ids"]]
    wanted, order = config.steps_for(len(lengths)), Order(lengths, config.batch_size, config.seed)
    steps = min(planned or wanted, wanted)
    return steps, [order.epoch(number) for number in range(math.ceil(steps / order.steps))]


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def requirements(config: TrainConfig) -> str:
    """The packages the script imports, pinned to the versions installed here.

    Example:
        >>> requirements(TrainConfig()).splitlines()[1]
        'transformers==5.23.0'
    """
    lines = []
    for package in (*PACKAGES, *(("bitsandbytes",) if config.load_in_4bit else ())):
        try:
            lines.append(f"{package}=={version(package).split('+')[0]}")
        except PackageNotFoundError:  # bitsandbytes, where the run was not trained here
            lines.append(package)
    return "\n".join(lines) + "\n"
