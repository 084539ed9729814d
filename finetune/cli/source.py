"""Which rows, and which settings, a command line is about: the same words for `check`, `preview`, `train` and `plan`.

A YAML file says the same as the options:

    data: mails.csv
    mapping: {prompt: "Mail: {email}", answer: expected}
    fixes: [drop_duplicates]
    epochs: 1
"""

import argparse
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import data, models
from finetune.data.split import HELD_OUT
from finetune.errors import ConfigError
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.train import TrainConfig

PARTS = {"prompt": "user", "answer": "assistant", "system": "system", "marker": "split"}
"""The parts of a mapping as people write them, and as `data.Mapping` has them."""

FILL = "fill_system_prompt"
"""The fix that a system prompt without a mapping asks for."""


@dataclass(frozen=True)
class Asked:
    """What somebody asked for. `changed` are the settings that differ from the defaults; the rest decides the rows."""

    place: str | Path
    validation: str | Path | None = None
    mapping: data.Mapping | None = None
    fixes: tuple[str, ...] = ()
    system: str | None = None
    model: str = models.DEFAULT
    max_length: int | None = None
    every_answer: bool = False
    held_out: float = HELD_OUT
    seed: int = 0
    changed: Json | None = None

    @property
    def fixed_with(self) -> data.FixedWith:
        """The arguments of the fixes, as they are stored beside the rows."""
        most = (self.max_length or models.LONGEST) if "drop_too_long" in self.fixes else None
        return data.FixedWith(system=self.system, model=self.model if most else None, most=most)

    def dataset(self) -> data.Dataset:
        """Read the data, mapped and mended as asked.

        Raises:
            DataError: it cannot be read, or there is no such column or fix.
            ModelError: a fix counts tokens, and the model is not here.
        """
        read = data.load(self.place, self.validation, self.mapping)
        if not self.fixes:
            return read
        given = self.fixed_with
        return data.apply(read, self.fixes, given.length(), given.system)

    def command(self, verb: str = "train") -> str:
        """The command line that trains on (or checks) exactly these rows with these settings.

        Example:
            >>> Asked("my.csv", fixes=("drop_duplicates",)).command()
            'python -m finetune train my.csv --fix drop_duplicates'
        """
        words = ["python", "-m", "finetune", verb, str(self.place)]
        words += ["--validation", str(self.validation)] if self.validation else []
        for part, name in PARTS.items():
            value = getattr(self.mapping, name) if self.mapping else None
            words += [f"--{part}", value] if value else []
        words += ["--system", self.system] if self.system and not self.mapping else []
        words += ["--fix", *self.fixes] if self.fixes else []
        pairs = [f"{key}={value}" for key, value in (self.changed or {}).items()]
        return shlex.join([*words, *(["--set", *pairs] if pairs else [])])


def add_rows(parser: argparse.ArgumentParser) -> None:
    """The options that say which rows are meant."""
    parser.add_argument("--validation", help="a file of held-out examples")
    parser.add_argument("--prompt", metavar="TEXT", help='the prompt: a column, or text with columns: "Mail: {email}"')
    parser.add_argument("--answer", metavar="TEXT", help='the answer: a column, or text with columns: "{label}"')
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help="the system prompt of each row; without --answer, of the rows that have none",
    )
    parser.add_argument("--marker", metavar="TEXT", help="the answer column is split here: before it is the prompt")
    parser.add_argument("--fix", nargs="+", default=[], action="extend", metavar="FIX", help="fixes that check offers")


def add_settings(parser: argparse.ArgumentParser, presets: str = "") -> None:
    """The options that say with which settings."""
    parser.add_argument("--preset", help=f"preset to start from{presets}")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="settings to change")


def asked(options: argparse.Namespace) -> "tuple[Asked, TrainConfig]":
    """The rows and the settings that the options, or the YAML file they name, ask for.

    Raises:
        ConfigError: a setting, the file or the mapping makes no sense.
    """
    from finetune import train

    pairs = [pair.partition("=") for pair in options.set]
    if wrong := [key for key, sign, _ in pairs if not sign]:
        raise ConfigError("Settings must be written as key=value.", where=wrong[0], fix="Example: --set epochs=1")
    changes: Json = {key: value for key, _, value in pairs}
    start = train.preset(options.preset).values if options.preset else {}
    path, places, written = Path(options.data), {"data": options.data}, {}
    if is_yaml(options):
        read, places = train.TrainConfig.from_yaml(path)
        if "data" not in places:
            raise ConfigError("The YAML file does not name a dataset.", where=path.name, fix="Add a line: data: PATH")
        written = read.changed()
        for key in {"data", "validation"} & set(places):
            named = str(places[key])
            places[key] = named if named.startswith("hub:") else path.parent / named
    config = train.TrainConfig.parse({**start, **written, **changes, **_given(options)})
    rows = _rows(places, options)
    return _with_config(rows, config), config


def is_yaml(options: argparse.Namespace) -> bool:
    """Whether the data is named by a YAML file of settings."""
    return Path(options.data).suffix.lower() in (".yaml", ".yml")


def quickly_asked(options: argparse.Namespace) -> Asked:
    """As `asked`, for options that name no setting: the settings need not be imported, which takes a while.

    Example:
        >>> quickly_asked(options).held_out
        0.15
    """
    if options.set or options.preset or is_yaml(options):
        return asked(options)[0]
    given = _given(options)
    rows = _rows({"data": options.data}, options)
    default = given.get("model") == models.DEFAULT
    changed = {key: value for key, value in given.items() if not (key == "model" and default)}
    return Asked(**{**rows, **given, "changed": changed})


def _given(options: argparse.Namespace) -> Json:
    """The settings that have options of their own."""
    names = ("model", "max_length")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def _with_config(rows: Json, config: "TrainConfig") -> Asked:
    decides = ("model", "max_length", "every_answer", "held_out", "seed")
    return Asked(**rows, **{name: getattr(config, name) for name in decides}, changed=config.changed())


def _rows(places: Json, options: argparse.Namespace) -> Json:
    """What decides the rows; an option wins over the file."""
    fixes = options.fix or places.get("fixes") or []
    if isinstance(fixes, str):
        fixes = fixes.replace(",", " ").split()
    if not isinstance(fixes, list) or not all(isinstance(fix, str) for fix in fixes):
        raise ConfigError("Fixes must be a list of names.", where="fixes", fix="Example: fixes: [drop_duplicates]")
    mapping, system = _mapping(places.get("mapping"), options)
    if system and not mapping and FILL not in fixes:
        fixes = [*fixes, FILL]
    return {
        "place": places["data"],
        "validation": options.validation or places.get("validation"),
        "mapping": mapping,
        "fixes": tuple(fixes),
        "system": system,
    }


def _mapping(written: object, options: argparse.Namespace) -> tuple[data.Mapping | None, str | None]:
    """The mapping, if there is one, and the system prompt to fill in."""
    if written is not None and not isinstance(written, dict):
        raise ConfigError(
            "A mapping must name columns.", where="mapping", fix='Example: mapping: {prompt: "{email}", answer: label}'
        )
    parts = dict(written or {})
    if unknown := [str(key) for key in parts if key not in PARTS]:
        raise ConfigError("A mapping has no such part.", where=unknown[0][:60], fix=f"Use: {', '.join(PARTS)}.")
    parts |= {part: value for part in PARTS if (value := getattr(options, part)) is not None}
    system = parts.get("system")
    if not parts.keys() - {"system"}:
        return None, system
    if not parts.get("answer"):
        raise ConfigError("The mapping has no answer.", where="answer", fix="Add --answer COLUMN.")
    return data.Mapping.from_dict({PARTS[part]: value for part, value in parts.items()}), system
