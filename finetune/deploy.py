"""A Hugging Face Space of one's own, made or updated from a checkout with one's own token.

What goes up is an allow-list: the app's code, its samples, its requirements, and the README, whose front matter is the
Space's configuration. Everything is one commit, so a Space is the old one or the new one, and a deployment that was
interrupted is simply begun again. A Space that holds anything but this app's own deployments is left alone.

Example:
    >>> deployment = Deployment("me/before-after", Path("."), hardware="t4-small")
    >>> deployment.look()
    ['A new public Space, me/before-after, with the 300 files of this checkout (3.3 MB).', 't4-small: $0.40 an hour …']
    >>> deployment.carry_out(print)
    'https://huggingface.co/spaces/me/before-after'
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from finetune.checkout import FOLDERS, app_files, refuse_secrets
from finetune.errors import ConfigError, FinetuneError, RunError
from finetune.export.hub import checks
from finetune.export.hub.errors import as_ours, no_secrets_in_logs, scrubbed
from finetune.models.hub import size, within
from finetune.records import Json

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import SpaceInfo

T = TypeVar("T")

SECONDS = 60
"""How long the Hub may take to answer a question. The upload has no limit, and Ctrl-C ends it."""

TITLE = "Deploy Before & After"
OURS = (TITLE, "initial commit")
"""Titles of commits that no person wrote: the second is the Hub's own, when it makes a Space."""

RESTARTS = "It is rebuilt and restarts: runs in progress end, and data, runs and models on its own disk are lost."
FREE = "cpu-basic"
ZERO = "zero-a10g"
PRICES = "huggingface.co/pricing#spaces"
ZERO_DOCS = "huggingface.co/docs/hub/spaces-zerogpu"


@dataclass
class Deployment:
    """One deployment: `look` asks the Hub and changes nothing, `carry_out` does what `look` said.

    `hardware` None: cpu-basic for a new Space, and what it has for one that exists. `private` only matters for a new
    one. With `replace`, files of the same name in a Space with other work are overwritten.
    """

    repo: str
    folder: Path
    hardware: str | None = None
    private: bool = False
    replace: bool = False
    _there: "SpaceInfo | None" = None
    _gone: list[str] = field(default_factory=list)

    def look(self) -> list[str]:
        """What would be done, and what it costs, in sentences.

        Raises:
            NotAllowed: there is no token that may write.
            ConfigError: no checkout, or hardware that the Hub does not have.
            RunError: a token is written in one of the files, somebody else's work is in the Space, or the Hub refuses.
        """
        self._token, self.repo = checks.usable(None), checks.valid(self.repo)
        self._files, self._untracked = app_files(self.folder)
        refuse_secrets(self._files)
        with no_secrets_in_logs(self._token):
            return self._ours(lambda: within(SECONDS, self._look, _silent()))

    def _look(self) -> list[str]:
        api = self._api()
        who = api.whoami()
        checks.refuse_readers(who)
        if "/" not in self.repo:
            self.repo = f"{who['name']}/{self.repo}"
        self._there = self._find(api)
        total = size(sum(path.stat().st_size for path in self._files.values()))
        kind = "private" if (self._there.private if self._there else self.private) else "public"
        with_files = f"with the {len(self._files)} files of this checkout ({total})"
        said = [f"A new {kind} Space, {self.repo}, {with_files}."]
        if self._there:
            said = [f"The {kind} Space {self.repo} is updated {with_files}.", RESTARTS]
        if self._gone:
            said.append(f"Deleted there, because the app no longer has it: {_listed(self._gone)}.")
        if self._untracked:
            said.append(f"Not uploaded, because git does not track it: {_listed(self._untracked)}.")
        return said + self._costs(api)

    def _costs(self, api: "HfApi") -> list[str]:
        """What its hardware costs, also where that stays as it is: an update should surprise nobody.

        Raises:
            ConfigError: the Hub does not have the hardware that was asked for.
        """
        if self._there is None or self.hardware:
            return [price(api, self.hardware or FREE)]
        has = self._has()
        said = [f"Its hardware stays as it is{f': {has}' if has else ''}."]
        with suppress(ConfigError):  # what it has may not be offered to others any more
            said += [price(api, has)] if has else []
        return said

    def _find(self, api: "HfApi") -> "SpaceInfo | None":
        """The Space, if there is one of this name; which of its files are leftovers is noted.

        Raises:
            RunError: it holds other work, or is public where a private one was asked for.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            there = api.space_info(self.repo)
        except RepositoryNotFoundError:
            return None
        if self.private and not there.private:
            raise RunError(
                "This Space is public, and --private does not change that.",
                where=self.repo,
                fix="Make it private in its settings first, choose another name, or leave --private out.",
                code="hub_public",
            )
        commits = api.list_repo_commits(self.repo, repo_type="space")
        if not self.replace and not all(commit.title in OURS for commit in commits):
            raise RunError(
                "There is already a Space of this name, with other work in it.",
                where=self.repo,
                fix="Choose another name, or replace (--replace): files of the same name are then overwritten.",
                code="hub_taken",
            )
        held = [one.rfilename for one in there.siblings or []]
        self._gone = [name for name in held if name.partition("/")[0] in FOLDERS and name not in self._files]
        return there

    def as_dict(self) -> Json:
        """What the Space is, or will be, for programs. `look` comes first."""
        private = self._there.private if self._there else self.private
        hardware = self.hardware or (self._has() if self._there else FREE)
        return {"repo": self.repo, "new": self._there is None, "private": private, "hardware": hardware}

    def carry_out(self, say: Callable[[str], None] = lambda sentence: None) -> str:
        """Make or update the Space, and return its address. `look` comes first.

        Raises:
            NotAllowed, RunError: the Hub refuses, or cannot be reached; then nothing was committed.
        """
        with no_secrets_in_logs(self._token):
            self._ours(lambda: within(SECONDS, lambda: self._prepare(say), _silent()))
            say(f"Uploading {len(self._files)} files.")
            return self._ours(self._commit)

    def _prepare(self, say: Callable[[str], None]) -> None:
        """The Space, on its hardware."""
        api: Any = self._api()  # hardware is a word here: the Hub may have more than the installed library knows
        if self._there is None:
            wanted = self.hardware or FREE
            say(f"Creating the Space {self.repo} on {wanted}.")
            api.create_repo(
                self.repo, repo_type="space", space_sdk="gradio", private=self.private, space_hardware=wanted
            )
        elif self.hardware and self.hardware != self._has():
            say(f"Asking for {self.hardware}.")
            api.request_space_hardware(self.repo, self.hardware)

    def _commit(self) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api = self._api()
        api.create_commit(
            self.repo,
            [
                *(CommitOperationDelete(name, is_folder=False) for name in self._gone),
                *(CommitOperationAdd(name, path) for name, path in self._files.items()),
            ],
            commit_message=TITLE,
            repo_type="space",
            parent_commit=self._there.sha if self._there else None,
        )
        return f"{api.endpoint}/spaces/{self.repo}"

    def _has(self) -> str | None:
        """The hardware that an existing Space has asked for, else what it runs on."""
        runtime = self._there.runtime if self._there else None
        return (runtime.requested_hardware or runtime.hardware) if runtime else None

    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi

        return HfApi(token=self._token, library_name="before-and-after")

    def _ours(self, ask: Callable[[], T]) -> T:
        """What the Hub answers; its refusals as errors of this app, which lead to no token."""
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told without the token
            trouble = _payment(error, self.repo, self._token) or as_ours(error, self.repo, self._token)
        raise trouble


def _listed(names: list[str]) -> str:
    """The first of them, and how many there are.

    Example:
        >>> _listed(["finetune/old.py", "finetune/older.py", "sample_data/a.csv", "sample_data/b.csv"])
        'finetune/old.py, finetune/older.py, sample_data/a.csv and 1 more'
    """
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def price(api: "HfApi", hardware: str) -> str:
    """What hardware costs, as the Hub itself says it now; where to find the prices if it does not say.

    Raises:
        ConfigError: the Hub has no such hardware.

    Example:
        >>> price(HfApi(), "t4-small")
        't4-small (Nvidia T4 - small, 4 vCPU, 15 GB): $0.40 an hour, according to the Hub, for as long as it runs, …'
    """
    import httpx2
    from huggingface_hub import SpaceHardware
    from huggingface_hub.errors import HfHubHTTPError

    if hardware == ZERO:
        return (
            f"{ZERO} (ZeroGPU): no hourly price. It chats and does not train. Who may have one, and for how many "
            f"minutes a day: {ZERO_DOCS}"
        )
    known = [one.value for one in SpaceHardware]
    try:
        offered = {one.name: one for one in api.list_spaces_hardware()}
    except (HfHubHTTPError, httpx2.HTTPError, KeyError, TypeError, ValueError):
        offered = {}
    one = offered.get(hardware)
    if one is None and (offered or hardware not in known):
        raise ConfigError(
            "The Hub has no such hardware for Spaces.",
            where=hardware[:60],
            fix=f"Choose from: {', '.join(dict.fromkeys([*offered, ZERO]) if offered else known)}.",
            code="no_hardware",
        )
    if one is None:
        return f"{hardware}: the Hub did not say what it costs; see {PRICES}"
    named = f"{hardware} ({one.pretty_name}, {one.cpu}, {one.ram})"
    if not one.unit_cost_micro_usd:
        return (
            f"{named}: free, according to the Hub. To create a Gradio Space on it takes a subscription (PRO, Team or "
            f"Enterprise); without one, --hardware {ZERO} (ZeroGPU) may be possible: {ZERO_DOCS}"
        )
    by = {"minute": 60, "second": 3600, "hour": 1}.get(one.unit_label)
    cost = f"${one.unit_cost_usd * by:.2f} an hour" if by else f"${one.unit_cost_usd:g} per {one.unit_label}"
    return (
        f"{named}: {cost}, according to the Hub, for as long as it runs, used or not. It does not go to sleep by "
        f"itself: set a sleep time or pause it in its settings. Prices: {PRICES}"
    )


def _payment(error: Exception, repo: str, token: str) -> RunError | None:
    """What the Hub says when it wants to be paid; a push hears this of its storage alone."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError) or error.response.status_code != 402:
        return None
    said = scrubbed(error.server_message or "", token).strip()[:300]
    return RunError(
        f"The account has no subscription or credits for this{f' (the Hub: {said})' if said else ''}.",
        where=repo,
        fix=f"Free hardware needs a subscription, paid hardware a payment method and credits: {PRICES}. "
        f"Without either, --hardware {ZERO} may be possible: {ZERO_DOCS}. Nothing was uploaded.",
        code="hub_payment",
    )


def _silent() -> FinetuneError:
    return RunError(
        f"The Hub did not answer within {SECONDS} s.",
        fix="Check the connection, and the Space if it was being made, then run the same command again.",
        code="hub_unreachable",
    )
