"""Makes an export: writes the files aside, loads them again and asks them, adds the card, and publishes.

<out>/<run>-merged-<dtype>/    files, README.md, SHA256SUMS; so are <run>-gguf-<quant>/ and <run>-gguf-lora/
<out>/<run>-adapter.zip        the same, in one file; so are bundle and notebook
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from finetune import chat, models, train
from finetune.errors import ConfigError, DataError, ModelError, RunError
from finetune.evaluate.task import adapter_hash
from finetune.export import destination, facts, llamacpp, parity, privacy, reload
from finetune.export.adapter import write_adapter
from finetune.export.bundle import write_bundle
from finetune.export.card import card
from finetune.export.formats import FORMATS, format_of
from finetune.export.gguf import Kind, refuse_inexpressible, write_gguf, write_gguf_lora
from finetune.export.gguf.howto import llama_command, modelfile
from finetune.export.merged import DType, write_merged
from finetune.export.parity import Parity
from finetune.export.script import write_script
from finetune.files import aside
from finetune.store import Run, Store

ZIPPED = ("adapter", "bundle", "notebook")


@dataclass(frozen=True)
class Choices:
    """What can be chosen of an export. `quant` and `dtype` are those of GGUF and of the merged weights."""

    dtype: str = "float32"
    quant: str = "f16"
    rows: int = parity.ROWS
    check: bool = True
    with_data: bool = False

    def __post_init__(self) -> None:
        for name, known in (("dtype", get_args(DType)), ("quant", get_args(Kind))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    "There is no such kind.", where=getattr(self, name), fix=f"Known: {', '.join(known)}."
                )


@dataclass(frozen=True)
class Exported:
    """What was made: a file, or a folder, whose `sha256` is then that of its ``SHA256SUMS``."""

    format: str
    path: Path
    bytes: int
    sha256: str
    parity: Parity | None = None

    @property
    def broken(self) -> str:
        """Why it must not be shipped; "" unless its check was red."""
        return self.parity.sentence if self.parity and self.parity.status == "red" else ""

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        told = {"path": str(self.path), "bytes": self.bytes, "sha256": self.sha256}
        return told | {"parity": self.parity.as_dict() if self.parity else None}


def export(
    store: Store,
    run: Run,
    to: str,
    out: Path,
    choices: Choices = Choices(),
    engine: chat.Engine | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Exported:
    """Make one export of a run in the folder `out`; one of the same kind that is there already is replaced.

    Raises:
        ConfigError: no such format.
        RunError: the run has no adapter, or one that cannot be taken away like this; or `out` cannot take it (codes
            ``exists``, ``disk_full``, ``not_writable``).
        ModelError: the base is not here, or its family cannot be written as GGUF.
        DataError: rows are needed (for a bundle with data, a script) and are not here.

    Example:
        >>> export(store, run, "gguf", Path("out")).parity.status
        'green'
    """
    if to not in [one.key for one in FORMATS]:
        raise ConfigError("There is no such format.", where=to, fix=f"Known: {', '.join(o.key for o in FORMATS)}.")
    if not train.adapter_folder(run.id).is_dir():
        raise RunError(f"The run has no adapter ({run.state}).", where=run.id, fix="Wait until it has finished.")
    kind = {"merged": f"-{choices.dtype}", "gguf": f"-{choices.quant}"}.get(to, "")
    place = out / f"{run.id}-{to}{kind}{'.zip' if to in ZIPPED else ''}"
    with destination.told(out):
        out.mkdir(parents=True, exist_ok=True)
        destination.refuse_others(place, folder=to not in ZIPPED)
        _record(run, to).unlink(missing_ok=True)  # what was found of another one says nothing of this
        if to == "bundle":
            write_bundle(store, run, place, with_data=choices.with_data)
        elif to == "notebook":
            write_script(store, run, place)
        else:
            return _checked(store, run, to, place, choices, engine or chat.Engine(), say)
        return _keep(run, Exported(to, place, place.stat().st_size, _sha256(place)))


def _checked(
    store: Store, run: Run, to: str, place: Path, choices: Choices, engine: chat.Engine, say: Callable[[str], None]
) -> Exported:
    asked = _question(store, run, choices, say) if choices.check else None
    with aside(place) as writing, tempfile.TemporaryDirectory(dir=place.parent, prefix=".export-") as scratch:
        folder = Path(scratch) / "files"
        replay = _write(store, run, to, folder, Path(scratch), replace(choices, check=asked is not None), say)
        found = None
        if asked:
            say(f"Loading it again with {format_of(to).loads} and asking held-out prompts.")
            found = _asked_again(run, asked, replay, engine, say)
        names = sorted(file.name for file in folder.iterdir())
        told = found.as_dict() if found else None
        (folder / "README.md").write_text(card(store, run, format=to, files=names, parity=told), encoding="utf-8")
        privacy.refuse_private(folder, privacy.of_run(run))
        sums = "".join(f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir()))
        (folder / destination.SUMS).write_text(sums, encoding="ascii")
        size = sum(file.stat().st_size for file in folder.iterdir())
        if to in ZIPPED:
            _zip(folder, writing)
            size, digest = writing.stat().st_size, _sha256(writing)
        else:
            digest = hashlib.sha256(sums.encode()).hexdigest()
            shutil.move(folder, writing)
    return _keep(run, Exported(to, place, size, digest, found))


def _write(
    store: Store, run: Run, to: str, folder: Path, scratch: Path, choices: Choices, say: Callable[[str], None]
) -> parity.Replay:
    """Write the files of a format; returns how it is asked."""
    found = models.find(run.config["model"], say, source=run.result.get("source"))
    each = {"merged": 4 if choices.dtype == "float32" else 2, "gguf": 6, "gguf-lora": 2 * choices.check}.get(to, 0)
    destination.refuse_full(scratch.parent, each * destination.parameters(found.folder))
    if to == "adapter":
        write_adapter(run, folder)
        return lambda asked, most, thinking: reload.answers(folder, asked, most, found.folder, thinking)
    if to == "merged":
        write_merged(run, folder, choices.dtype, say)  # type: ignore[arg-type]
        return lambda asked, most, thinking: reload.answers(folder, asked, most, None, thinking)
    system, folder_name = store.dataset(run.dataset).facts.get("system"), facts.base(run).name.rsplit("/", 1)[-1]
    system = privacy.of_run(run).text(system) if system else None
    thinks = facts.thinking(store, run)
    folder.mkdir()
    if to == "gguf-lora":
        lora, base = folder / f"{folder_name}-lora.gguf", scratch / "base.gguf"
        write_gguf_lora(run, lora)
        command = llama_command("base.gguf", system, lora.name, thinks)
        (folder / "llama.cpp.txt").write_text(command + "\n", encoding="utf-8")
        if choices.check:
            write_gguf(found.folder, base, "f16")
        return lambda asked, most, thinking: llamacpp.answers(base, asked, most, lora, thinking)
    refuse_inexpressible(found.folder)
    gguf = folder / f"{folder_name}-tuned-{choices.quant}.gguf"
    merged = write_merged(run, scratch / "merged", "float32", say)
    say("Writing the GGUF.")
    write_gguf(merged, gguf, choices.quant)  # type: ignore[arg-type]
    tokenizer = models.load_tokenizer(found)
    ends = json.loads((merged / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    ends = ends if isinstance(ends, list) else [ends]
    recipe = modelfile(gguf.name, tokenizer, system, ends, bool(thinks))
    (folder / "Modelfile").write_text(recipe, encoding="utf-8")
    (folder / "llama.cpp.txt").write_text(llama_command(gguf.name, system, None, thinks) + "\n", encoding="utf-8")
    return lambda asked, most, thinking: llamacpp.answers(gguf, asked, most, None, thinking)


def _question(store: Store, run: Run, choices: Choices, say: Callable[[str], None]) -> parity.Question | None:
    """Settled before anything is merged; a run without rows to ask is exported all the same, unchecked."""
    try:
        asked = parity.question(store, run, choices.rows)
    except DataError as error:
        say(f"Not checked: {error}")
        return None
    if asked.skipped:
        say(f"{asked.skipped} held-out rows are whole texts: nothing is asked in them, and they are not checked.")
    return asked


def _asked_again(
    run: Run, asked: parity.Question, replay: parity.Replay, engine: chat.Engine, say: Callable[[str], None]
) -> parity.Parity | None:
    """What cannot be checked here is exported all the same, and said to be unchecked."""
    try:
        found = parity.check(run, asked, replay, engine)
    except ModelError as error:
        if error.code != "llamacpp_missing":
            raise
        say(f"Not checked: {error}")
        return None
    say(found.sentence)
    return found


def kept(run: Run) -> dict[str, dict[str, Any]]:
    """What was exported of a run before, by format: size, hash, parity with its evidence; of this very adapter.

    Example:
        >>> kept(run)["gguf"]["parity"]["status"]
        'green'
    """
    found, adapter = {}, adapter_hash(run)
    for file in sorted((train.run_folder(run.id) / "exports").glob("*.json")):
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # cut short: as good as not there
            continue
        if told.get("adapter") == adapter:
            found[file.stem] = told
    return found


def _record(run: Run, to: str) -> Path:
    return train.run_folder(run.id) / "exports" / f"{to}.json"


def _keep(run: Run, made: Exported) -> Exported:
    evidence = list(made.parity.rows) if made.parity else []
    told = replace(made, path=Path(made.path.name)).as_dict()
    told |= {"rows": evidence, "adapter": adapter_hash(run)}
    with aside(_record(run, made.format)) as place:
        place.write_text(json.dumps(told), encoding="utf-8")
    return made


def _zip(folder: Path, place: Path) -> None:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            method = zipfile.ZIP_STORED if file.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            archive.write(file, file.name, compress_type=method)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpacked(made: Exported, folder: Path) -> Path:
    """The export as a folder: itself, or what is in its zip, unpacked to `folder`."""
    if made.path.is_dir():
        return made.path
    with zipfile.ZipFile(made.path) as archive:
        archive.extractall(folder)
    return folder


def files(made: Exported) -> Sequence[Path]:
    """The files of an export, to hand over one by one.

    Example:
        >>> [file.name for file in files(export(store, run, "adapter", Path("out")))]
        ['r06ebe670-adapter.zip']
    """
    return sorted(made.path.iterdir()) if made.path.is_dir() else [made.path]
