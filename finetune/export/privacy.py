"""Removes absolute paths and keys from texts before they are exported.

The app's own texts (log lines, reasons) lose every absolute path. Texts by people and models (answers, votes) are
evidence: they lose keys, and the folders of this installation, and nothing else.

Example:
    >>> Masks(["/srv/app-home"]).line('File "/srv/app-home/runs/r1/x.py", see https://hf.co/a/b')
    'File "…/x.py", see https://hf.co/a/b'
"""

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from finetune import settings
from finetune.data.texts import SECRET
from finetune.errors import RunError

LEFT = "…"
"""Replaces a path, before its last part."""

PATH = re.compile(r"file://[^\s\"'<>]+|(?<![\w:/.~…\\])(?:~|[A-Za-z]:)?[/\\]{1,2}[\w.\-+@]+(?:[/\\]+[\w.\-+@]+)+[/\\]?")
"""An absolute Unix or Windows path of at least two parts; the path in a URL does not match."""

SHORTEST = 4
"""Shorter names of folders (``/``, ``/a``) are not masked."""


class Masks:
    """Removes keys and the `private` folders from texts, and the folders in `beside` from the app's own lines."""

    def __init__(self, private: Iterable[str | Path], beside: Iterable[str | Path] = ()):
        self.private = _longest_first(private)
        self._private = _below(self.private)
        self._beside = _below(_longest_first(beside))

    def text(self, text: str) -> str:
        """A text by a person or a model; lone surrogates, which strict readers refuse, become ``?``."""
        return SECRET.sub("(key)", self._private.sub(_last, text.encode("utf-8", "replace").decode()))

    def line(self, text: str) -> str:
        """A text by the app: a log line, a reason, the last lines of a worker's log."""
        return PATH.sub(_last, self._beside.sub(_last, self.text(text)))

    def deep(self, value: Any, line: bool = False) -> Any:
        """Mask every text in a JSON value."""
        if isinstance(value, str):
            return self.line(value) if line else self.text(value)
        if isinstance(value, list):
            return [self.deep(one, line) for one in value]
        if isinstance(value, dict):
            return {self.deep(key, line): self.deep(one, line) for key, one in value.items()}
        return value

    def finds(self, text: bytes) -> bool:
        """Whether a private folder is named in the bytes of a file."""
        return any(one.encode() in text or json.dumps(one)[1:-1].encode() in text for one in self.private)


def of_this_machine(*more: str | Path) -> Masks:
    """Masks for the folders of this installation, and `more`.

    Example:
        >>> of_this_machine("/srv/models/tiny").text("/srv/models/tiny")
        '…/tiny'
    """
    return Masks([settings.read().home, *more], [Path(__file__).parents[2], Path.cwd(), Path.home()])


def refuse_private(folder: Path, masks: Masks, own: Collection[str] = ()) -> None:
    """Final check: no file of an export except its weights may name a folder of this machine.

    Files in folders whose names are in `own` hold the person's own rows and are not checked.

    Raises:
        RunError: a file does (code ``path_in_export``).
    """
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix not in (".safetensors", ".gguf") and file.parent.name not in own:
            with file.open("rb") as opened:
                if any(masks.finds(line) for line in opened):
                    raise RunError(
                        "A file to be exported names a folder of this machine.",
                        where=str(file.relative_to(folder)),
                        fix="Remove it from the file.",
                        code="path_in_export",
                    )


def _longest_first(folders: Iterable[str | Path]) -> list[str]:
    found = {str(one).rstrip("/\\") for one in folders}
    return sorted((one for one in found if len(one) >= SHORTEST), key=lambda one: (-len(one), one))


def _below(folders: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(rf"{re.escape(one)}(?![\w\-])(?:[/\\][\w.\-+@]+)*[/\\]?" for one in folders) or "(?!)")


def _last(match: re.Match[str]) -> str:
    parts = [part for part in re.split(r"[/\\]+", match[0]) if part]
    return f"{LEFT}/{parts[-1]}" if parts else LEFT
