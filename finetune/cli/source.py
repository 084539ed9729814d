"""Which rows, and which settings, a command line is about: the same words for `check`, `preview`, `train` and `plan`.

A YAML file says the same as the options:

    data: mails.csv
    mapping: {prompt: "Mail: {email}", answer: expected}
    fixes: [drop_duplicates]
    epochs: 1

Several files are a list, each with what only it needs:

    data: [{path: chats.jsonl, share: 0.7}, {path: mails.csv, mapping: {prompt: email, answer: label}}, faq.xlsx]
"""

import argparse
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import data, models
from finetune.cli import PROGRAM
from finetune.cli.piped import file_of
from finetune.data.split import HELD_OUT
from finetune.errors import ConfigError
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.store import Run
    from finetune.train import TrainConfig

PARTS = {"prompt": "user", "answer": "assistant", "system": "system", "marker": "split"}
"""The parts of a mapping as people write them, and as `data.Mapping` has them."""

FILL = "fill_system_prompt"
"""The fix that a system prompt without a mapping asks for."""

OF_A_FILE = ("path", "share", "mapping", "header")
"""What may be said of one of several files."""

ONE_FILE = "With several files, say it beside the file that it is about, in a YAML file."


@dataclass(frozen=True)
class Asked:
    """What somebody asked for. `changed` are the settings that differ from the defaults; the rest decides the rows.

    `parts` are several files, `place` then the YAML file that lists them ("" if the command line does). `header` says
    whether the first line of a table is its header; None: look at it. `written` are the settings that were named.
    """

    place: str | Path
    parts: tuple[data.Part, ...] = ()
    validation: str | Path | None = None
    header: bool | None = None
    mapping: data.Mapping | None = None
    fixes: tuple[str, ...] = ()
    system: str | None = None
    model: str = models.DEFAULT
    max_length: int | None = None
    every_answer: bool = False
    held_out: float = HELD_OUT
    seed: int = 0
    changed: Json | None = None
    written: Json | None = None

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
        read = self._read_all() if self.parts else self._read()
        if not self.fixes:
            return read
        given = self.fixed_with
        return data.apply(read, self.fixes, given.length(), given.system)

    def _read_all(self) -> data.Dataset:
        """The several files."""
        parts = [replace(part, place=str(file_of(part.place))) for part in self.parts]
        return data.load_mix(parts, self.validation and file_of(self.validation))

    def _read(self) -> data.Dataset:
        """The one file; a mapping that is clear from its columns is used, and said."""
        choices = () if self.header is None else (data.HEADER if self.header else data.NO_HEADER,)
        place, validation = file_of(self.place), self.validation and file_of(self.validation)
        read = replace(data.load(place, validation, self.mapping, choices), applied=choices)
        mapping = data.clear(read)
        if not mapping:
            return read
        read = data.load(place, validation, mapping, choices)
        return replace(read, applied=choices, problems=data.in_order([*read.problems, data.said_of(mapping)]))

    def command(self, verb: str = "train") -> str:
        """The command line that trains on (or checks) exactly these rows with these settings.

        Example:
            >>> Asked("my.csv", fixes=("drop_duplicates",)).command()
            'python -m finetune train my.csv --fix drop_duplicates'
        """
        places = [self.place] if self.place else [part.place for part in self.parts]
        words = [*PROGRAM.split(), verb, *map(str, places)]
        if not self.place and any(part.share != 1 for part in self.parts):
            words += ["--share", *(f"{part.share:g}" for part in self.parts)]
        words += ["--header", "yes" if self.header else "no"] if self.header is not None else []
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
    parser.add_argument(
        "--share",
        nargs="+",
        type=float,
        metavar="SHARE",
        help="with several files: the share of each file's usable rows to use: --share 0.7 1",
    )
    parser.add_argument("--validation", help="a file of held-out examples")
    parser.add_argument(
        "--header",
        choices=("yes", "no"),
        help="whether the first line of a table names its columns; default: what it looks like",
    )
    parser.add_argument("--prompt", metavar="TEXT", help='the prompt: a column, or text with columns: "Mail: {email}"')
    parser.add_argument("--answer", metavar="TEXT", help='the answer: a column, or text with columns: "{label}"')
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help="the system prompt of each row; without --answer, of the rows that have none",
    )
    parser.add_argument(
        "--marker", metavar="TEXT", help="where the answer column is split: the text before it is the prompt"
    )
    parser.add_argument("--fix", nargs="+", default=[], action="extend", metavar="FIX", help="fixes that check offers")


def add_settings(parser: argparse.ArgumentParser, presets: str = "") -> None:
    """The options that say with which settings."""
    parser.add_argument("--preset", help=f"preset to start from{presets}")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="settings to change")


def asked(options: argparse.Namespace, parent: "Run | None" = None) -> "tuple[Asked, TrainConfig]":
    """The rows and the settings that the options, or the YAML file they name, ask for.

    A run that continues a `parent` keeps that one's model and the shape of its adapter, whatever a preset says.

    Raises:
        ConfigError: a setting, the file or the mapping makes no sense.
    """
    from finetune import train

    pairs = [pair.partition("=") for pair in options.set]
    if wrong := [key for key, sign, _ in pairs if not sign]:
        raise ConfigError("Settings must be written as key=value.", where=wrong[0], fix="Example: --set epochs=1")
    changes: Json = {key: value for key, _, value in pairs}
    start = train.preset(options.preset).values if options.preset else {}
    path, places, written = Path(options.data[0]), {"data": _listed(options)}, {}
    if is_yaml(options):
        if options.share:
            raise ConfigError("Shares are in the YAML file.", where="--share", fix="Write them beside the files there.")
        read, places = train.TrainConfig.from_yaml(path)
        if "data" not in places:
            raise ConfigError("The YAML file does not name a dataset.", where=path.name, fix="Add a line: data: PATH")
        written = read.model_dump(exclude_unset=True)
        places = _near(places, path)
    if parent:
        start = {**start, **train.shape(parent)}
    config = train.TrainConfig.parse({**start, **written, **changes, **_given(options)})
    rows = _rows(places, options)
    return _with_config(rows, config), config


def is_yaml(options: argparse.Namespace) -> bool:
    """Whether the data is named by a YAML file of settings."""
    found = [Path(name).suffix.lower() in (".yaml", ".yml") for name in options.data]
    if any(found) and len(found) > 1:
        raise ConfigError(
            "A YAML file of settings stands alone.",
            where=str(options.data[found.index(True)]),
            fix="List the files in it.",
        )
    return found[0]


def _listed(options: argparse.Namespace) -> str | list[Json]:
    """The data as it would stand in a YAML file: a path, or a list of files."""
    if len(options.data) == 1 and not options.share:
        return options.data[0]
    shares = options.share or [1.0] * len(options.data)
    if len(shares) != len(options.data):
        files = f"{len(options.data)} file{'s' if len(options.data) > 1 else ''}"
        raise ConfigError(
            f"There are {files} and {len(shares)} shares.",
            where="--share",
            fix="Give one share for each file, in order.",
        )
    return [{"path": name, "share": share} for name, share in zip(options.data, shares, strict=True)]


def _near(places: Json, path: Path) -> Json:
    """The places of a YAML file, seen from the folder that it is in."""

    def near(name: object) -> str | Path:
        return str(name) if str(name).startswith("hub:") else path.parent / str(name)

    found = dict(places)
    if "validation" in found:
        found["validation"] = near(found["validation"])
    if isinstance(found["data"], str):
        return found | {"data": near(found["data"])}
    named = found["data"] if isinstance(found["data"], list) else [found["data"]]
    files = [{"path": one} if isinstance(one, str) else one for one in named]
    if wrong := [one for one in files if not isinstance(one, dict) or not one.get("path")]:
        raise ConfigError(
            "Each file of a list needs a path.",
            where=f"data: {str(wrong[0])[:60]}",
            fix="Example: data: [{path: a.jsonl, share: 0.7}, {path: b.csv}]",
        )
    return found | {"data": [one | {"path": str(near(one["path"]))} for one in files], "list": path}


def quickly_asked(options: argparse.Namespace) -> Asked:
    """As `asked`, for options that name no setting: the settings need not be imported, which takes a while.

    Example:
        >>> quickly_asked(options).held_out
        0.15
    """
    if options.set or options.preset or is_yaml(options):
        return asked(options)[0]
    given = _given(options)
    rows = _rows({"data": _listed(options)}, options)
    default = given.get("model") == models.DEFAULT
    changed = {key: value for key, value in given.items() if not (key == "model" and default)}
    return Asked(**{**rows, **given, "changed": changed, "written": given})


def _given(options: argparse.Namespace) -> Json:
    """The settings that have options of their own."""
    names = ("model", "max_length")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def _with_config(rows: Json, config: "TrainConfig") -> Asked:
    decides = {name: getattr(config, name) for name in ("model", "max_length", "every_answer", "held_out", "seed")}
    return Asked(**rows, **decides, changed=config.changed(), written=config.model_dump(exclude_unset=True))


def _rows(places: Json, options: argparse.Namespace) -> Json:
    """What decides the rows; an option wins over the file."""
    fixes = options.fix or places.get("fixes") or []
    if isinstance(fixes, str):
        fixes = fixes.replace(",", " ").split()
    if not isinstance(fixes, list) or not all(isinstance(fix, str) for fix in fixes):
        raise ConfigError("Fixes must be a list of names.", where="fixes", fix="Example: fixes: [drop_duplicates]")
    parts = tuple(map(_part, places["data"])) if isinstance(places["data"], list) else ()
    mapping, system = _mapping(places.get("mapping"), options)
    header = _yes_no(options.header or places.get("header"), "header")
    if data.HEADER in fixes and data.NO_HEADER in fixes:
        raise ConfigError("The first line is the header or a row.", where=data.NO_HEADER, fix="Choose one of the two.")
    if data.HEADER in fixes or data.NO_HEADER in fixes:  # what check calls a fix is said of the file, before it is read
        header, fixes = data.HEADER in fixes, [fix for fix in fixes if fix not in (data.HEADER, data.NO_HEADER)]
    for name, given in (("mapping", mapping), ("header", header)):
        if parts and given is not None:
            raise ConfigError(f"Each of several files has its own {name}.", where=name, fix=ONE_FILE)
    if system and not mapping and FILL not in fixes:
        fixes = [*fixes, FILL]
    return {
        "place": places.get("list", "") if parts else places["data"],
        "parts": parts,
        "header": header,
        "validation": options.validation or places.get("validation"),
        "mapping": mapping,
        "fixes": tuple(fixes),
        "system": system,
    }


def _part(written: Json) -> data.Part:
    """One of several files, as a YAML file has it.

    Raises:
        ConfigError: naming the file.
    """
    name = str(written["path"])
    if unknown := [str(key) for key in written if key not in OF_A_FILE]:
        raise ConfigError(f"A file has no {unknown[0][:60]!r}.", where=name, fix=f"Use: {', '.join(OF_A_FILE)}.")
    share = written.get("share", 1)
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise ConfigError(f"The share {str(share)[:60]!r} is not a number.", where=name, fix=data.SHARES)
    try:
        mapping = _built(_parts_of(written.get("mapping")))
    except ConfigError as error:
        raise ConfigError(error.what, where=f"{name}: {error.where}", fix=error.fix) from error
    return data.Part(name, float(share), mapping, _yes_no(written.get("header"), name))


def _yes_no(given: Any, where: str) -> bool | None:
    known = {"yes": True, "no": False, "true": True, "false": False}
    found = known.get(given.strip().lower()) if isinstance(given, str) else given
    if given is None or isinstance(found, bool):
        return found
    raise ConfigError("A header is there or not.", where=where, fix="Write header: true or header: false.")


def _mapping(written: object, options: argparse.Namespace) -> tuple[data.Mapping | None, str | None]:
    """The mapping, if there is one, and the system prompt to fill in."""
    parts = _parts_of(written)
    parts |= {part: value for part in PARTS if (value := getattr(options, part)) is not None}
    system = parts.get("system")
    if not parts.keys() - {"system"}:
        return None, system
    return _built(parts), system


def _parts_of(written: object) -> Json:
    """A mapping as it is written in a YAML file."""
    if written is not None and not isinstance(written, dict):
        raise ConfigError(
            "A mapping must name columns.", where="mapping", fix='Example: mapping: {prompt: "{email}", answer: label}'
        )
    parts = dict(written or {})
    if unknown := [str(key) for key in parts if key not in PARTS]:
        raise ConfigError("A mapping has no such part.", where=unknown[0][:60], fix=f"Use: {', '.join(PARTS)}.")
    return parts


def _built(parts: Json) -> data.Mapping | None:
    if not parts:
        return None
    if not parts.get("answer"):
        raise ConfigError("The mapping has no answer.", where="answer", fix="Add --answer COLUMN.")
    return data.Mapping.from_dict({PARTS[part]: value for part, value in parts.items()})
