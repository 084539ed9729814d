"""Who pays: the login that a job is started with, and what the Hub says when it refuses.

At home the login is that of this machine (``hf auth login``), looked up each time. On a shared server it is the
visitor's own, kept in this process's memory and nowhere else: after a restart a visitor has to come back signed in
before their job is followed again. No message, log line or chained exception contains a token.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune import settings
from finetune.errors import FinetuneError, NotAllowed, RunError
from finetune.models import hub
from finetune.schema import LOCAL
from finetune.store import Run

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = re.compile(r"[\x21-\x7e]+")

PAY = "Add credit or a payment method at huggingface.co/settings/billing."

BY_STATUS: dict[int, tuple[str, str, str]] = {
    401: ("hub_token", "Hugging Face no longer accepts this login.", "Sign in again."),
    402: ("jobs_payment", "This account cannot pay for jobs.", PAY),
    403: (
        "jobs_forbidden",
        "This login may not start jobs, or not create a private repository.",
        "Sign in again and allow both, or use a token with write access and access to jobs.",
    ),
    404: ("jobs_gone", "Hugging Face has no such job or repository.", "It may have been deleted there."),
    429: ("hub_busy", "This account has sent Hugging Face too many requests.", "Wait a few minutes."),
}

MOST_LOGINS = 1000
"""Logins that are kept, of the visitors who were here last: a visitor can be made up for each look at the page."""

_logins: dict[str, str] = {}
_lock = threading.Lock()


class Unreachable(RunError):
    """Hugging Face cannot be reached, or has a problem of its own: trying again later may do."""


def remember(owner: str, token: str | None) -> None:
    """A visitor of a shared server is here, signed in: their jobs can be followed while this process lives."""
    if token and TOKEN.fullmatch(token):
        with _lock:
            _logins.pop(owner, None)
            _logins[owner] = token  # the last of all
            while len(_logins) > MOST_LOGINS:
                del _logins[next(iter(_logins))]


def forget(owner: str) -> None:
    """Forget a visitor's login."""
    with _lock:
        _logins.pop(owner, None)


def offered() -> bool:
    """Whether jobs can be started from this page: at home, or on a Space, where visitors can sign in.

    Example:
        >>> offered()
        True
    """
    return not settings.read().shared or bool(os.environ.get("SPACE_ID"))


def login(owner: str, token: str | None = None) -> str:
    """The token to start something with for this owner: the given one, or at home that of this machine.

    On a shared server it is remembered, so that what was started can be followed. Nothing is started with it later:
    a visitor who has signed out pays for nothing more.

    Raises:
        NotAllowed: there is none (code ``hub_login``).

    Example:
        >>> login("local")    # after hf auth login
        'hf_…'
    """
    shared = settings.read().shared
    found = token if shared else token or _of_this_machine()
    if found and TOKEN.fullmatch(found):
        remember(owner, found if shared else None)
        return found
    if shared:
        raise NotAllowed(
            "A job runs on your own Hugging Face account, which pays for it.",
            fix="Sign in with Hugging Face first.",
            code="hub_login",
        )
    raise NotAllowed(
        "Nobody is logged in to Hugging Face on this machine.",
        fix="Run hf auth login with a token that can write and start jobs, or set HF_TOKEN.",
        code="hub_login",
    )


def login_of(run: Run) -> str | None:
    """The token to follow a run with: its visitor's, or at home that of this machine; None if there is none."""
    if settings.read().shared or run.owner != LOCAL:
        with _lock:
            return _logins.get(run.owner)
    found = _of_this_machine()
    return found if found and TOKEN.fullmatch(found) else None


def _of_this_machine() -> str | None:
    from huggingface_hub import get_token

    return (get_token() or "").strip() or None


def client(token: str) -> "HfApi":
    """The Hub, asked with this login."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="before-and-after")


@contextmanager
def told(token: str, where: str = "") -> Iterator[None]:
    """Turn errors of the Hub and of the network into ours, without their causes, which may hold the token.

    Raises:
        Unreachable: no answer, or a problem of the Hub's own.
        NotAllowed: the login does not suffice.
        RunError: the Hub refuses; `code` says why (``jobs_payment``, ``jobs_gone`` …).

    Example:
        >>> with told(token):
        ...     client(token).inspect_job(job_id="…", namespace="me")
    """
    try:
        yield
    except FinetuneError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, it is reported without the token
        ours = _as_ours(error, token, where)
        raise ours from None


def _as_ours(error: Exception, token: str, where: str) -> FinetuneError:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled) or hub.offline():
        return RunError("HF_HUB_OFFLINE is set: Hugging Face is not contacted.", fix="Unset it.", code="hub_offline")
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return _by_status(error.response.status_code, scrubbed(error.server_message or "", token), where)
    if isinstance(error, httpx2.HTTPError | OSError):  # LocalEntryNotFoundError of a failed download is one as well
        return Unreachable("Hugging Face cannot be reached.", fix="Check the connection.", code="hub_unreachable")
    reason = (scrubbed(str(error), token).strip().splitlines() or [""])[0][:200]
    return RunError(f"Hugging Face Jobs failed ({type(error).__name__}: {reason}).", where=where, code="jobs_failed")


def _by_status(status: int, message: str, where: str) -> FinetuneError:
    if status >= 500:
        said = f"Hugging Face has a problem (status {status})."
        return Unreachable(said, where=where, fix="Try again later.", code="hub_busy")
    if status not in BY_STATUS:
        said = f"Hugging Face refused (status {status}{': ' + message[:200] if message else ''})."
        return RunError(said, where=where, code="jobs_refused")
    code, what, fix = BY_STATUS[status]
    kind = NotAllowed if status in (401, 403) else Unreachable if status == 429 else RunError
    return kind(what, where=where, fix=fix, code=code)


def scrubbed(text: str, token: str) -> str:
    """The text without the token, and without what follows ``?`` in addresses, which may be signed.

    Example:
        >>> scrubbed("GET https://store/x?signature=abc with hf_secret", "hf_secret")
        'GET https://store/x with …'
    """
    return re.sub(r"(https?://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text.replace(token, "…"))
