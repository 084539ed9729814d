"""A zip from a stranger, unpacked so that nothing happens but the writing of files we know.

Every name is on the list of `finetune.export.bundle.schema`, every size is bounded before and while it is read, and
every byte is the one that the manifest's hash names. Files are streamed, never held whole.
"""

import errno
import hashlib
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from finetune import settings
from finetune.errors import FinetuneError, RunError
from finetune.export.bundle import schema
from finetune.export.bundle.strict_json import read_json, refused

MOST_DIRECTORY = 1 * schema.MB
"""Bytes of the zip's own table of contents; zipfile reads it into memory."""

RATIO, RATIO_FROM = 200, 1 * schema.MB
"""How much larger than the zip its contents may be, once they are larger than `RATIO_FROM`."""

SPREAD = 4
"""How many times the largest upload a bundle may unpack to."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OverflowError)
"""What zipfile raises at a zip that is not as it says."""


def unpack(path: Path, place: Path) -> dict[str, Path]:
    """Unpack a bundle into the empty folder `place`; every file's name in the bundle, and where it is now.

    Raises:
        DataError: anything is not as it must be (code ``bundle_refused``).
        RunError: the disk is too full (code ``disk_full``).

    Example:
        >>> unpack(Path("r06ebe670-bundle.zip"), place)["run.json"].name
        'run.json'
    """
    try:
        opened = path.open("rb")
    except OSError as error:
        raise refused(
            "There is no such file, or it cannot be read.", path.name, "Give the path of a bundle."
        ) from error
    try:
        with opened as file:
            _refuse_long_directory(file)
            with zipfile.ZipFile(file) as bundle:
                infos = _checked(bundle.infolist(), path.stat().st_size)
                _refuse_full_disk(sum(info.file_size for info in infos.values()), place)
                return _unpacked(bundle, infos, place)
    except FinetuneError:  # some of these are OSErrors or ValueErrors, too
        raise
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a place no file has
            raise
        raise refused("This is not a valid zip file.", path.name) from error


def _unpacked(bundle: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo], place: Path) -> dict[str, Path]:
    first = infos.pop(schema.MANIFEST)
    _copy(bundle, first, place)
    manifest = read_json(place / schema.MANIFEST, schema.ManifestRecord)
    if unknown := sorted(infos.keys() - manifest.files.keys()):
        raise refused("The manifest does not name this file.", unknown[0])
    answers = {f"evaluations/{name.split('/')[1]}/answers.jsonl" for name in infos if name.startswith("evaluations/")}
    if missing := sorted((manifest.files.keys() | answers | set(schema.NEEDED)) - infos.keys()):
        raise refused("This file is missing.", missing[0])
    for name, entry in manifest.files.items():
        if (entry.bytes, entry.sha256) != (infos[name].file_size, _copy(bundle, infos[name], place)):
            raise refused("The file is not the one that the manifest names (its SHA-256 or size differs).", name)
    return {name: place / name for name in infos}


def _checked(infos: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > schema.MOST_MEMBERS:
        raise refused(f"The zip holds more than {schema.MOST_MEMBERS} files.")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        _check(info)
        if info.filename.casefold() in found:
            raise refused("The zip holds two files of this name.", info.filename)
        found[info.filename.casefold()] = info
    total = sum(info.file_size for info in infos)
    if total > (most := SPREAD * settings.read().max_upload_mb * schema.MB):
        raise refused(f"Unpacked it would be {total / 1e6:,.0f} MB; at most {most / 1e6:,.0f} MB are accepted.")
    if total > RATIO_FROM and total > RATIO * size:
        raise refused(f"It would unpack to more than {RATIO} times its size, as only a zip bomb does.")
    named = {info.filename: info for info in infos}
    if schema.MANIFEST not in named:
        raise refused("The zip has no manifest, so it is not a run bundle.")
    return named


def _check(info: zipfile.ZipInfo) -> None:
    """Refuse what no bundle of ours holds, by what the zip says of a file."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    parts = name.replace("\\", "/").split("/")
    if "\\" in name or "\0" in name or ":" in name or name.startswith("/") or ".." in parts or "." in parts:
        raise refused("The name points outside the bundle, or is not a valid file name.", name)
    if kind not in (0, stat.S_IFREG) or info.external_attr & 0x10:
        raise refused("Links, folders and special files are not accepted.", name)
    if info.flag_bits & 0x1:
        raise refused("The file is encrypted.", name)
    if info.compress_type not in METHODS:
        raise refused("The file uses a compression method that bundles do not use.", name)
    most = schema.most_bytes(name)
    if most is None or name != info.filename:
        raise refused("This file does not belong in a bundle; only safetensors, JSON and text files are read.", name)
    if info.file_size > most:
        raise refused(
            f"The file would be {info.file_size / 1e6:,.0f} MB; at most {most / 1e6:,.0f} are accepted.", name
        )


def _copy(bundle: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> str:
    """Write one file, and return its SHA-256. zipfile gives no more bytes than the zip said there would be."""
    target = place / info.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, count = hashlib.sha256(), 0
    with bundle.open(info) as source, target.open("xb") as file:
        while part := source.read(schema.MB):
            count += len(part)
            digest.update(part)
            file.write(part)
    if count != info.file_size:
        raise refused("The file is not as long as the zip says.", info.filename)
    return digest.hexdigest()


def _refuse_long_directory(file: "object") -> None:
    """Before zipfile reads the whole of it."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[5] > MOST_DIRECTORY:  # the size of the central directory
        raise refused(f"The zip holds more than {schema.MOST_MEMBERS} files.")


def _refuse_full_disk(needed: int, place: Path) -> None:
    if shutil.disk_usage(place).free < needed + 8 * schema.MB:
        raise RunError(
            f"The disk is too full: {needed / 1e6:,.0f} MB is needed.", fix="Free some space.", code="disk_full"
        )
