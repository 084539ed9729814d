"""An exported folder goes to the Hub: private unless asked otherwise, in one commit, with the visitor's own token.

The token is handed to each call and kept nowhere; no sentence, log line or chained exception holds
it. On a shared server only the visitor's own token is used, never the server's.

A new repository is made; one that holds nothing but what this app pushed is brought up to date; any
other is left alone unless `replace` says so. Nothing is ever deleted there.

Example:
    >>> push(Path("out/adapter"), "recipes", token=None, say=print)
    'https://huggingface.co/me/recipes'
"""

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import settings
from finetune.errors import FinetuneError, NotAllowed, RunError
from finetune.export.hub_errors import scrubbed, told

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SECONDS = 60
"""How long the Hub may take to answer a question. Uploads take as long as they take, and can be stopped."""

SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".md", ".gguf", ".py", ".ipynb")
NAMES = ("Modelfile",)
"""What is pushed, by the end of a name or by its whole. Nothing else is, and nothing that begins with a dot."""

SCOPE = "contribute-repos"
"""The least that a Space must ask of its visitors (``hf_oauth_scopes`` in its README) for this: its app may
create repositories and write to those it created, and to no others."""

TITLE = "Push from Before & After"
OURS = (TITLE, "initial commit")
"""Titles of commits that people did not write. A repository with no others may be brought up to date."""

TOKEN = re.compile(r"[\x21-\x7e]+")
NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?", re.ASCII)


def push(
    folder: Path,
    repo: str,
    token: str | None,
    *,
    private: bool = True,
    replace: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
    stop: Callable[[], bool] | None = None,
    seconds: float = SECONDS,
) -> str:
    """Upload the files of a folder to a model repository, and return its address.

    `repo` is ``owner/name``, or a name alone for the token's own user. `stop` is asked twice a second until the
    commit is made; what was uploaded before then belongs to no repository. With `replace` files of a repository
    that was not made here are overwritten where names are the same.

    Raises:
        NotAllowed: no token of the visitor's own on a shared server, or none here; the token does not suffice.
        RunError: the name, the files, the Hub, or somebody stopped it; `code` says which.

    Example:
        >>> push(folder, "me/recipes-gguf", oauth_token.token, say=print)
        'https://huggingface.co/me/recipes-gguf'
    """
    token, repo = usable(token), valid(repo)
    files = pushable(folder, say)
    job = _Job(repo, token, files, private, replace)
    with _no_secrets_in_logs(token):
        return job.run(say, stop or (lambda: False), seconds)


def usable(token: str | None) -> str:
    """The token to push with: the given one, or on one's own machine that of ``hf auth login``.

    Raises:
        NotAllowed: there is none (code ``hub_login``).

    Example:
        >>> usable("hf_abc ")
        'hf_abc'
    """
    given = (token or "").strip()
    if not given and settings.read().shared:
        raise NotAllowed(
            "A push needs your own Hugging Face account.", fix="Sign in with Hugging Face first.", code="hub_login"
        )
    if not given:
        from huggingface_hub import get_token

        given = (get_token() or "").strip()
    if not given:
        raise NotAllowed(
            "Nobody is logged in to the Hub on this machine.",
            fix="Run: hf auth login - with a token that may write - or set HF_TOKEN.",
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
            "This cannot be the name of a repository.",
            where=name[:100],
            fix="Use letters, digits, - _ and . (at most 96), as in me/recipes.",
            code="hub_name",
        )
    return name


def owners(token: str | None, seconds: float = SECONDS) -> list[str]:
    """Under whose names this token may push: its user first, then the organisations it knows of.

    Example:
        >>> owners(None)
        ['me', 'my-team']
    """
    token = usable(token)

    def ask() -> list[str]:
        return _owners(_api(token).whoami())

    with _no_secrets_in_logs(token):
        return list(_within(seconds, ask, token))


def pushable(folder: Path, say: Callable[[str], None] = lambda sentence: None) -> dict[str, Path]:
    """The files of a folder that are pushed, by their name in the repository; what is left out is said.

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
        say(f"{others} other {'file stays' if others == 1 else 'files stay'} here.")
    return files


class _Job:
    """One push: a thread that talks to the Hub, and the caller's, which listens, and can give up."""

    def __init__(self, repo: str, token: str, files: dict[str, Path], private: bool, replace: bool):
        self.repo, self.token, self.files = repo, token, files
        self.private, self.replace = private, replace
        self.lines: queue.Queue[str] = queue.Queue()
        self.lock = threading.Lock()
        self.given_up = self.committing = self.uploading = False
        self.outcome: str | FinetuneError | None = None

    def run(self, say: Callable[[str], None], stop: Callable[[], bool], seconds: float) -> str:
        """Wait for the thread; its lines are said here."""
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        heard = time.monotonic()
        while thread.is_alive() or not self.lines.empty():
            try:
                say(self.lines.get(timeout=0.5 if thread.is_alive() else 0))
                heard = time.monotonic()
            except queue.Empty:
                if self.uploading:
                    heard = time.monotonic()
            if stop() and self._give_up():
                raise RunError("Stopped: nothing was committed.", where=self.repo, code="hub_stopped")
            if time.monotonic() - heard > seconds:
                self._give_up()
                raise _silent(seconds)
        if isinstance(self.outcome, FinetuneError):
            raise self.outcome
        return str(self.outcome)

    def _give_up(self) -> bool:
        """Let the thread end without a commit; False when that is under way."""
        with self.lock:
            self.given_up = not self.committing
            return self.given_up

    def _work(self) -> None:
        try:
            self.outcome = self._push(_api(self.token))
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told without the token
            self.outcome = told(error, self.repo, self.token)

    def _push(self, api: "HfApi") -> str:
        from huggingface_hub import CommitOperationAdd

        self.lines.put("Asking the Hub who you are.")
        who = api.whoami()
        _refuse_readers(who)
        if "/" not in self.repo:
            self.repo = f"{who['name']}/{self.repo}"
        self._prepare(api)
        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in self.files.items()]
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        done, total = 0, sum(sizes.values())
        for addition in additions:
            if self.given_up:
                return ""
            size = sizes[addition.path_in_repo]
            self.lines.put(f"Uploading {addition.path_in_repo} ({_mb(size)}); {_mb(done)} of {_mb(total)} are there.")
            self.uploading = True
            api.preupload_lfs_files(self.repo, [addition], free_memory=False)
            self.uploading, done = False, done + size
        with self.lock:
            if self.given_up:
                return ""
            self.committing = True
        self.lines.put(f"Committing {len(additions)} {'file' if len(additions) == 1 else 'files'} to {self.repo}.")
        api.create_commit(self.repo, additions, commit_message=TITLE)
        return f"{api.endpoint}/{self.repo}"

    def _prepare(self, api: "HfApi") -> None:
        """Make the repository, or see that the one of this name may be written to."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            there = api.model_info(self.repo)
        except RepositoryNotFoundError:
            kind = "private" if self.private else "public"
            self.lines.put(f"Making the {kind} repository {self.repo}.")
            api.create_repo(self.repo, private=self.private)
            return
        if self.private and not there.private:
            raise RunError(
                "This repository is public: what is pushed there can be read by everybody.",
                where=self.repo,
                fix="Choose another name, or push publicly.",
                code="hub_public",
            )
        if not self.replace and any(commit.title not in OURS for commit in api.list_repo_commits(self.repo)):
            raise RunError(
                "A repository of this name is there already, with other work in it.",
                where=self.repo,
                fix="Choose another name, or say that its files may be replaced.",
                code="hub_taken",
            )
        if not there.private:
            self.lines.put(f"{self.repo} is public and stays so.")
        self.lines.put(f"Bringing {self.repo} up to date.")


def _api(token: str) -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="before-and-after")


def _owners(who: dict[str, Any]) -> list[str]:
    return [str(who["name"]), *(str(org["name"]) for org in who.get("orgs") or [])]


def _refuse_readers(who: dict[str, Any]) -> None:
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise NotAllowed(
            "This token may only read.", fix="Make one that may write: huggingface.co/settings/tokens.",
            code="hub_forbidden",
        )  # fmt: skip


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _silent(seconds: float) -> RunError:
    return RunError(
        f"The Hub did not answer within {seconds:g} s.", fix="Try again; nothing was committed.", code="hub_unreachable"
    )


def _within(seconds: float, ask: Callable[[], Any], token: str) -> Any:
    """Ask something that may hang, and give up waiting for it."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(ask())
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told without the token
            outcome.append(told(error, "", token))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise _silent(seconds)
    if isinstance(outcome[0], FinetuneError):
        raise outcome[0]
    return outcome[0]


@contextmanager
def _no_secrets_in_logs(token: str) -> Iterator[None]:
    """While open, huggingface_hub's lines about requests name neither the token nor what signs an upload address."""
    logger = logging.getLogger("huggingface_hub.utils._http")

    def clean(record: logging.LogRecord) -> bool:
        record.msg, record.args = scrubbed(record.getMessage(), token), ()
        return True

    logger.addFilter(clean)
    try:
        yield
    finally:
        logger.removeFilter(clean)
