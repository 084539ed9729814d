"""Checks before a push to the Hub: whose token, which name, which files.

Example:
    >>> usable("hf_abc "), valid(" me/recipes ")
    ('hf_abc', 'me/recipes')
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from finetune import settings
from finetune.errors import NotAllowed, RunError
from finetune.records import Json

SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".md", ".gguf", ".model", ".py", ".ipynb")
NAMES = ("Modelfile", "SHA256SUMS")
"""What is pushed, by suffix or by name; nothing else, and nothing whose name begins with a dot."""

TOKEN = re.compile(r"[\x21-\x7e]+")
NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?", re.ASCII)


def usable(token: str | None) -> str:
    """The token to push with: the given one, or at home that of ``hf auth login``.

    Raises:
        NotAllowed: there is none (code ``hub_login``).

    Example:
        >>> usable("hf_abc ")
        'hf_abc'
    """
    given = (token or "").strip()
    if not given and (settings.read().shared or os.environ.get("SPACE_ID")):  # a Space's token is its owner's
        raise NotAllowed(
            "A push needs your own Hugging Face account.", fix="Sign in with Hugging Face first.", code="hub_login"
        )
    if not given:
        from huggingface_hub import get_token

        given = (get_token() or "").strip()
    if not given:
        raise NotAllowed(
            "Nobody is logged in to the Hub on this machine.",
            fix="Run hf auth login with a token that can write, or set HF_TOKEN.",
            code="hub_login",
        )
    if not TOKEN.fullmatch(given):
        raise NotAllowed("This is not a Hub token.", fix="Copy it again: it is one word.", code="hub_token")
    return given


def valid(repo: str) -> str:
    """A repository's name, checked: ``name`` or ``owner/name``.

    Raises:
        RunError: the Hub would not take it (code ``hub_name``).

    Example:
        >>> valid(" me/recipes ")
        'me/recipes'
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = repo.strip()
    try:
        validate_repo_id(name)
        fits = NAME.fullmatch(name)
    except HFValidationError:
        fits = None
    if not fits:
        raise RunError(
            "This is not a valid repository name.",
            where=name[:100],
            fix="Use letters, digits, - _ and . (at most 96), as in me/recipes.",
            code="hub_name",
        )
    return name


def refuse_readers(who: Json) -> None:
    """Refuse a read-only token at once, not after the upload. `who` is the Hub's ``whoami``.

    Raises:
        NotAllowed: it may only read (code ``hub_forbidden``).
    """
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise NotAllowed(
            "This token is read-only.",
            fix="Make one that can write: huggingface.co/settings/tokens.",
            code="hub_forbidden",
        )


def pushable(folder: Path, say: Callable[[str], None] = lambda sentence: None) -> dict[str, Path]:
    """The files of a folder to push, by their name in the repository; `say` hears what is left out.

    Raises:
        RunError: there is none (code ``hub_nothing``).

    Example:
        >>> list(pushable(Path("out/adapter")))
        ['README.md', 'adapter_config.json', 'adapter_model.safetensors', …]
    """
    files, others = {}, 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() and not path.is_symlink():
            continue
        hidden = any(part.startswith(".") for part in name.parts)
        linked = any((folder / parent).is_symlink() for parent in (name, *name.parents[:-1]))
        fits = path.suffix in SUFFIXES or path.name in NAMES
        if fits and not hidden and not linked and path.is_file():
            files[name.as_posix()] = path
        else:
            others += 1
    if not files:
        raise RunError("There is nothing to push.", where=folder.name, fix="Export first.", code="hub_nothing")
    if others:
        say(f"{others} other {'file is' if others == 1 else 'files are'} not pushed.")
    return files
