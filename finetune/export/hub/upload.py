"""An exported folder goes to the Hub: private unless asked otherwise, in one commit, with the visitor's own token.

The token is passed to each call and stored nowhere; no message, log line or chained exception contains it. On a shared
server only the visitor's own token is used, never the server's.

A new repository is created. One that holds only what this app pushed is updated to exactly the files of this push. Any
other is refused; with `replace` it is written to, and nothing in it is deleted. A commit by somebody else in between
stops the push.

Example:
    >>> push(Path("out/adapter"), "recipes", token=None, say=print)
    'https://huggingface.co/me/recipes'
"""

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import FinetuneError, RunError
from finetune.export.formats import size
from finetune.export.hub.checks import pushable, refuse_readers, usable, valid
from finetune.export.hub.errors import as_ours, no_secrets_in_logs

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SECONDS = 60
"""How long the Hub may take to answer a request. Uploads have no limit, and can be stopped."""

TITLE = "Push from Before & After"
OURS = (TITLE, "initial commit")
"""Titles of commits that no person wrote. A repository with no others may be updated."""

ATTRIBUTES = ".gitattributes"
"""The Hub's own file."""


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
    commit; what was uploaded by then belongs to no repository. An exception from `say` or `stop` stops the push too.
    With `replace`, files of the same name in a repository with other work are overwritten.

    Raises:
        NotAllowed: no token of the visitor's own on a shared server, or none here; the token does not suffice.
        RunError: the name, the files, the Hub, or somebody stopped it; `code` says which.

    Example:
        >>> push(folder, "me/recipes-gguf", oauth_token.token, say=print)
        'https://huggingface.co/me/recipes-gguf'
    """
    token, repo = usable(token), valid(repo)
    files = pushable(folder, say)
    return _Job(repo, token, files, private, replace).run(say, stop or (lambda: False), seconds)


class _Job:
    """One push: a thread that talks to the Hub, and the caller's thread, which listens and can give up."""

    def __init__(self, repo: str, token: str, files: dict[str, Path], private: bool, replace: bool):
        self.repo, self.token, self.files = repo, token, files
        self.private, self.replace = private, replace
        self.parent: str | None = None  # the newest commit when it was looked at; of a new repository, none is known
        self.lines: queue.Queue[str] = queue.Queue()
        self.lock = threading.Lock()
        self.given_up = self.committing = self.uploading = False
        self.outcome: str | FinetuneError | None = None

    def run(self, say: Callable[[str], None], stop: Callable[[], bool], seconds: float) -> str:
        """Wait for the thread, and pass its lines on.

        Whoever calls deletes the files afterwards: when a commit is under way they stay until it is made.
        """
        thread = threading.Thread(target=self._work, name="hub-push", daemon=True)
        thread.start()
        try:
            self._listen(thread, say, stop, seconds)
        except BaseException:
            if not self._give_up():
                thread.join(seconds)
            raise
        if isinstance(self.outcome, FinetuneError):
            raise self.outcome
        return str(self.outcome)

    def _listen(
        self, thread: threading.Thread, say: Callable[[str], None], stop: Callable[[], bool], seconds: float
    ) -> None:
        heard = time.monotonic()
        while thread.is_alive() or not self.lines.empty():
            try:
                say(self.lines.get(timeout=0.5 if thread.is_alive() else 0))
                heard = time.monotonic()
            except queue.Empty:
                if self.uploading:
                    heard = time.monotonic()
            if stop() and self._give_up():
                raise self._stopped()
            if time.monotonic() - heard > seconds:
                raise _silent(seconds, self._give_up())

    def _give_up(self) -> bool:
        """Let the thread end without a commit; False if the commit is under way."""
        with self.lock:
            self.given_up = not self.committing
            return self.given_up

    def _work(self) -> None:
        with no_secrets_in_logs(self.token):
            try:
                self.outcome = self._push(_api(self.token))
            except Exception as error:  # noqa: BLE001 - whatever it was, it is reported without the token
                self.outcome = as_ours(error, self.repo, self.token)

    def _say(self, line: str) -> None:
        """Every step begins with its line; none begins once the push is given up."""
        if self.given_up:
            raise self._stopped()
        self.lines.put(line)

    def _stopped(self) -> RunError:
        return RunError("Stopped: nothing was committed.", where=self.repo, code="hub_stopped")

    def _push(self, api: "HfApi") -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        self._say("Asking the Hub who you are.")
        who = api.whoami()
        refuse_readers(who)
        if "/" not in self.repo:
            self.repo = f"{who['name']}/{self.repo}"
        old = [CommitOperationDelete(name, is_folder=False) for name in self._prepare(api)]
        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in self.files.items()]
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        done, total = 0, sum(sizes.values())
        for addition in additions:
            name, here = addition.path_in_repo, sizes[addition.path_in_repo]
            self._say(f"Uploading {name} ({size(here)}); {size(done)} of {size(total)} uploaded so far.")
            self.uploading = True
            api.preupload_lfs_files(self.repo, [addition], free_memory=False)
            self.uploading, done = False, done + here
        with self.lock:
            count, going = len(additions), f", removing {len(old)} of an earlier push" if old else ""
            self._say(f"Committing {count} {'file' if count == 1 else 'files'} to {self.repo}{going}.")
            self.committing = True
        api.create_commit(self.repo, [*additions, *old], commit_message=TITLE, parent_commit=self.parent)
        return f"{api.endpoint}/{self.repo}"

    def _prepare(self, api: "HfApi") -> list[str]:
        """Create the repository, or check that it may be written to; returns which of its files to delete.

        Leftovers of an earlier push would win: next to an ``adapter_config.json``, transformers ignores merged weights.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            there = api.model_info(self.repo)
        except RepositoryNotFoundError:
            kind = "private" if self.private else "public"
            self._say(f"Creating the {kind} repository {self.repo}.")
            api.create_repo(self.repo, private=self.private)
            return []
        if self.private and not there.private:
            raise RunError(
                "This repository is public: everybody can read what is pushed there.",
                where=self.repo,
                fix="Choose another name, or push publicly.",
                code="hub_public",
            )
        self.parent = there.sha
        commits = api.list_repo_commits(self.repo)
        ours = all(commit.title in OURS for commit in commits)
        if not ours and not self.replace:
            raise RunError(
                "There is already a repository of this name, with other work in it.",
                where=self.repo,
                fix="Choose another name, or replace (--replace): files of the same name are then overwritten.",
                code="hub_taken",
            )
        self._say(f"Updating {self.repo}, which stays {'private' if there.private else 'public'}.")
        others = {one.rfilename for one in there.siblings or []} - {*self.files, ATTRIBUTES}
        if ours:  # the first commit is the Hub's, or of somebody who called it so: its files are not ours
            first = [commit.commit_id for commit in commits if commit.title != TITLE]
            return sorted(others.difference(*(api.list_repo_files(self.repo, revision=one) for one in first)))
        if others:
            self._say(f"{len(others)} other {'file stays' if len(others) == 1 else 'files stay'} in {self.repo}.")
        return []


def _api(token: str) -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="before-and-after")


def _silent(seconds: float, in_time: bool = True) -> RunError:
    fix = (
        "Nothing was uploaded to the repository. Try again."
        if in_time
        else "Check there whether the commit arrived before you try again."
    )
    return RunError(f"The Hub did not answer within {seconds:g} s.", fix=fix, code="hub_unreachable")
