"""What of a checkout goes up to a Space: an allow-list, so that nothing of whoever deploys goes along.

Example:
    >>> files, untracked = app_files(Path("."))
    >>> refuse_secrets(files)
"""

import re
import subprocess
from pathlib import Path

from finetune import settings
from finetune.errors import ConfigError, NotAllowed

FILES = ("README.md", "LICENSE", "app.py", "requirements.txt")
FOLDERS = ("finetune", "sample_data")
SUFFIXES = (".py", ".html", ".css", ".json", ".jsonl", ".csv", ".md")
"""What the app needs, and all that is ever uploaded."""

TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


def app_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The files that the app needs, by their name in the Space; and those that would be, but that git does not track.

    No link is followed and nothing hidden is taken, nor anything that the app keeps (`FINETUNE_HOME`).

    Raises:
        ConfigError: this is no checkout of the app.

    Example:
        >>> list(app_files(Path("."))[0])[:3]
        ['LICENSE', 'README.md', 'app.py']
    """
    readme = folder / "README.md"
    if not readme.is_file() or "\nsdk: gradio\n" not in readme.read_text(encoding="utf-8", errors="replace")[:2000]:
        raise ConfigError(
            "This folder is no checkout of the app: its README has no Space configuration.",
            where=str(folder),
            fix="Run this in the folder that holds app.py.",
            code="no_checkout",
        )
    home = settings.read().home
    inside = [path for name in FOLDERS for path in (folder / name).rglob("*") if path.suffix in SUFFIXES]
    found = {}
    for path in sorted([*(folder / name for name in FILES), *inside]):
        name = path.relative_to(folder)
        linked = any((folder / part).is_symlink() for part in (name, *name.parents))
        hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
        if path.is_file() and not linked and not hidden and home not in path.resolve().parents:
            found[name.as_posix()] = path
    tracked = _tracked(folder)
    others = [name for name in found if tracked is not None and name not in tracked]
    return {name: path for name, path in found.items() if name not in others}, others


def _tracked(folder: Path) -> set[str] | None:
    """What git tracks here: rows that somebody put beside the samples are theirs. None without git."""
    if not (folder / ".git").exists():
        return None
    listed = subprocess.run(
        ["git", "-C", str(folder), "ls-files", "-z"], capture_output=True, text=True, errors="replace", check=False
    )
    if listed.returncode:
        raise ConfigError(
            f"Git does not say which files it tracks here ({listed.stderr.strip()[:200]}).",
            where=str(folder),
            fix="Make sure that `git status` works in this folder.",
            code="no_checkout",
        )
    return set(listed.stdout.split("\0"))


def refuse_secrets(files: dict[str, Path]) -> None:
    """Refuse to upload a file in which a Hub token is written.

    Raises:
        NotAllowed: one is (code ``secret_in_file``); the message says where, not which.
    """
    for name, path in files.items():
        if TOKEN.search(path.read_bytes()):
            raise NotAllowed(
                "This file contains a Hub token, which everybody could read.",
                where=name,
                fix="Take it out, and revoke it: huggingface.co/settings/tokens.",
                code="secret_in_file",
            )
