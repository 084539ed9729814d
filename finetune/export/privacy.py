"""Nothing of this machine leaves it: absolute paths and keys are taken out of texts before they are exported.

Texts of the app itself (log lines, reasons) lose every absolute path. Texts of people and models (answers, votes)
are evidence and stay as they are, but for the folders of this very installation.

Example:
    >>> Masks(["/srv/app-home"]).line('File "/srv/app-home/runs/r1/x.py", see https://hf.co/a/b')
    'File "…/x.py", see https://hf.co/a/b'
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune import settings
from finetune.data.texts import SECRET
from finetune.errors import RunError
from finetune.store import Run

LEFT = "…"
"""What stands in a path's place, before its last part."""

PATH = re.compile(r"file://[^\s\"'<>]+|(?<![\w:/.~…\\])(?:~|[A-Za-z]:)?[/\\]{1,2}[\w.\-+@]+(?:[/\\]+[\w.\-+@]+)+[/\\]?")
"""An absolute path of at least two parts, as Unix or Windows writes it; the path of a URL is none."""

SHORTEST = 4
"""Characters of a folder's name below which it is no secret: ``/``, ``/a``."""


class Masks:
    """Takes the `private` folders out of texts, keys too; out of the app's own lines also the folders in `beside`."""

    def __init__(self, private: Iterable[str | Path], beside: Iterable[str | Path] = ()):
        self.private = _longest_first(private)
        self._private = _below(self.private)
        self._beside = _below(_longest_first(beside))

    def text(self, text: str) -> str:
        """A text of a person or a model; half characters, which no strict reader takes, become ``?``."""
        return SECRET.sub("(key)", self._private.sub(_last, text.encode("utf-8", "replace").decode()))

    def line(self, text: str) -> str:
        """A text of the app: a log line, a reason, the last lines of a worker's log."""
        return PATH.sub(_last, self._beside.sub(_last, self.text(text)))

    def deep(self, value: Any, line: bool = False) -> Any:
        """The same for every text in a JSON value."""
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


def of_run(run: Run) -> Masks:
    """The same, and for the folder of the run's base where that is one of this machine."""
    model = str(run.config["model"])
    return of_this_machine(*([model] if Path(model).is_absolute() else []))


def refuse_private(folder: Path, masks: Masks, own: str | None = None) -> None:
    """The last look: no file of an export but its weights may name a folder of this machine.

    Files in a folder called `own` are the person's own rows, and say what they say.

    Raises:
        RunError: one does (code ``path_in_export``).
    """
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix not in (".safetensors", ".gguf") and file.parent.name != own:
            with file.open("rb") as opened:
                if any(masks.finds(line) for line in opened):
                    raise RunError(
                        "A folder of this machine is named in a file that would be exported.",
                        where=str(file.relative_to(folder)),
                        fix="Take it out of the file.",
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
