"""Makes an export: writes the files aside, loads them again and asks them, adds the card, and publishes.

<out>/<run>-merged-<dtype>/    files, README.md, SHA256SUMS; so are <run>-gguf-<quant>/ and <run>-gguf-lora/
<out>/<run>-adapter.zip        the same, in one file
<out>/<run>-bundle.zip         a zip of its own; so is <run>-notebook.zip
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune import chat, train
from finetune.errors import DataError, ModelError, RunError
from finetune.evaluate.task import adapter_hash
from finetune.export import destination, parity, privacy
from finetune.export.card import card
from finetune.export.formats import Format, format_of
from finetune.export.parity import Parity
from finetune.export.strength import AS_TRAINED, chosen, word
from finetune.export.subject import DEFAULTS, Say, Subject, gather, quiet
from finetune.export.subject import Choices as Choices
from finetune.files import aside, disk_errors, sha256
from finetune.records import Json
from finetune.store import Run, Store


@dataclass(frozen=True)
class Exported:
    """What was made: a file, or a folder, whose `sha256` is then that of its ``SHA256SUMS``."""

    format: str
    path: Path
    bytes: int
    sha256: str
    parity: Parity | None = None
    strength: float = AS_TRAINED

    @property
    def broken(self) -> str:
        """Why it must not be shipped; "" unless its check was red."""
        return self.parity.sentence if self.parity and self.parity.status == "red" else ""

    def as_dict(self) -> Json:
        """For programs."""
        made = {"path": str(self.path), "bytes": self.bytes, "sha256": self.sha256, "strength": self.strength}
        return made | {"parity": self.parity.as_dict() if self.parity else None}


def export(
    store: Store,
    run: Run,
    to: str,
    out: Path,
    choices: Choices = DEFAULTS,
    engine: chat.Engine | None = None,
    say: Say = quiet,
) -> Exported:
    """Make one export of a run in the folder `out`; it replaces an earlier one of the same kind.

    Raises:
        ConfigError: no such format, or strength of an adapter.
        RunError: the run has no adapter, or one that this format cannot hold; or `out` cannot be written to (codes
            ``exists``, ``disk_full``, ``not_writable``).
        ModelError: the base is not here, or its family cannot be written as GGUF.
        DataError: rows are needed (for a bundle with data, a script) and are not here.

    Example:
        >>> export(store, run, "gguf", Path("out")).parity.status
        'green'
    """
    format = format_of(to)
    if not train.adapter_folder(run.id).is_dir():
        raise RunError(f"The run has no adapter ({run.state}).", where=run.id, fix="Wait until it has finished.")
    strength = chosen(run) if choices.strength is None else choices.strength
    choices = replace(choices, strength=strength)
    place = out / format.name(run.id, choices)
    with disk_errors(out.name):
        out.mkdir(parents=True, exist_ok=True)
        destination.refuse_others(place, folder=not format.zipped)
        _record(run, to).unlink(missing_ok=True)  # the earlier check says nothing of this export
        asked = _question(store, run, choices, say) if format.card and choices.check else None
        subject = replace(gather(store, run, say, fetch=format.needs_base), strength=strength)
        if format.card:
            made = _checked(subject, format, place, choices, asked, engine or chat.Engine(), say)
        else:
            format.make(subject, place, choices, say)
            made = Exported(to, place, place.stat().st_size, sha256(place))
    return _keep(run, made)


def _checked(
    subject: Subject,
    format: Format,
    place: Path,
    choices: Choices,
    asked: parity.Question | None,
    engine: chat.Engine,
    say: Say,
) -> Exported:
    if said := word(subject.strength):
        say(said)
    with aside(place) as writing, tempfile.TemporaryDirectory(dir=place.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / "files"
        folder.mkdir()
        replay = format.make(subject, folder, replace(choices, check=asked is not None), say)
        found = None
        if asked and replay:
            say(f"Reloading it with {format.loads} and running prompts.")
            found = _asked_again(subject.run, asked, replay, engine, say)
        names = sorted(file.name for file in folder.iterdir())
        (folder / "README.md").write_text(card(subject, format, names, found), encoding="utf-8")
        privacy.refuse_private(folder, subject.masks)
        sums = "".join(f"{sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir()))
        (folder / destination.SUMS).write_text(sums, encoding="ascii")
        size = sum(file.stat().st_size for file in folder.iterdir())
        if format.zipped:
            _zip(folder, writing)
            size, digest = writing.stat().st_size, sha256(writing)
        else:
            digest = hashlib.sha256(sums.encode()).hexdigest()
            shutil.move(folder, writing)
    return Exported(format.key, place, size, digest, found, subject.strength)


def _question(store: Store, run: Run, choices: Choices, say: Say) -> parity.Question | None:
    """Settled before anything is merged; a run without rows to ask is exported all the same, unchecked."""
    try:
        asked = parity.question(store, run, choices.rows, choices.strength or AS_TRAINED)
    except DataError as error:
        say(f"Not checked: {error}")
        return None
    if asked.learned:
        say("Nothing is held out, so it is checked on prompts it was trained on.")
    if asked.skipped:
        say(f"Skipped {asked.skipped} rows that are plain text without a prompt: there is nothing to ask.")
    return asked


def _asked_again(
    run: Run, asked: parity.Question, replay: parity.Replay, engine: chat.Engine, say: Say
) -> Parity | None:
    """Without xllamacpp, or a prompt that fits, it is exported all the same, marked as unchecked."""
    try:
        found = parity.check(run, asked, replay, engine)
    except (ModelError, DataError) as error:
        if error.code not in ("llamacpp_missing", parity.NO_QUESTION):
            raise
        say(f"Not checked: {error}")
        return None
    say(found.sentence)
    return found


def kept(run: Run) -> dict[str, Json]:
    """Earlier exports of this very adapter, by format: size, hash, parity with its evidence.

    Example:
        >>> kept(run)["gguf"]["parity"]["status"]
        'green'
    """
    found, adapter = {}, adapter_hash(run)
    for file in sorted((train.run_folder(run.id) / "exports").glob("*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # cut short by a crash: treated as missing
            continue
        if record.get("adapter") == adapter:
            found[file.stem] = record
    return found


def _record(run: Run, to: str) -> Path:
    return train.run_folder(run.id) / "exports" / f"{to}.json"


def _keep(run: Run, made: Exported) -> Exported:
    record = replace(made, path=Path(made.path.name)).as_dict()
    record |= {"rows": list(made.parity.rows) if made.parity else [], "adapter": adapter_hash(run)}
    with aside(_record(run, made.format)) as place:
        place.write_text(json.dumps(record), encoding="utf-8")
    return made


def _zip(folder: Path, place: Path) -> None:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            method = zipfile.ZIP_STORED if file.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            archive.write(file, file.name, compress_type=method)


def unpacked(made: Exported, folder: Path) -> Path:
    """The export as a folder: itself, or its zip unpacked to `folder`."""
    if made.path.is_dir():
        return made.path
    with zipfile.ZipFile(made.path) as archive:
        archive.extractall(folder)
    return folder


def files(made: Exported) -> Sequence[Path]:
    """The files of an export, to download one by one.

    Example:
        >>> [file.name for file in files(export(store, run, "adapter", Path("out")))]
        ['r06ebe670-adapter.zip']
    """
    return sorted(made.path.iterdir()) if made.path.is_dir() else [made.path]
