"""Errors of the Hub or the network as errors of this app, without any token.

Example:
    >>> as_ours(OfflineModeIsEnabled(), "me/recipes", "hf_secret").code
    'hub_offline'
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.errors import FinetuneError, NotAllowed, RunError

SIGNED = re.compile(r"\?[^\s'\"]*")
AGAIN = "Nothing was uploaded to the repository. Try again."

BY_STATUS = {
    401: ("hub_token", "The Hub does not recognise this token.", "Log in again: it may have expired or been revoked."),
    402: ("hub_quota", "The account's storage on the Hub is used up.", "Free some there, or upgrade."),
    403: (
        "hub_forbidden",
        "This token has no write access there.",
        "Choose a repository in your own namespace, or a token with write access.",
    ),
    404: ("hub_forbidden", "There is no such repository, or this token may not see it.", "Check owner and name."),
    409: (
        "hub_taken",
        "A repository of this name exists, but this token has no access to it.",
        "Choose another name.",
    ),
    412: (
        "hub_busy",
        "Somebody else has committed there in the meantime.",
        "Check that commit, then push again; nothing of yours was committed.",
    ),
    413: ("hub_quota", "This is too large for the Hub.", "Free some of the account's storage, or push less."),
    429: ("hub_busy", "This account has sent the Hub too many requests.", "Wait a few minutes and push again."),
}


def as_ours(error: Exception, repo: str, token: str) -> FinetuneError:
    """Any error of a push to `repo` as one of this app, without its cause, which may hold the token.

    Example:
        >>> str(as_ours(httpx2.ConnectError("…"), "me/recipes", "hf_secret"))
        'The Hub cannot be reached. Check the connection and try again; nothing was committed.'
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cause: BaseException | None = error
    while isinstance(cause, RuntimeError) and not isinstance(cause, FinetuneError) and cause.__cause__:
        cause = cause.__cause__  # "Error while uploading …", and why
    if isinstance(cause, FinetuneError):
        return cause
    if isinstance(cause, OfflineModeIsEnabled):
        return RunError("HF_HUB_OFFLINE is set: the Hub is not contacted.", fix="Unset it.", code="hub_offline")
    if isinstance(cause, HfHubHTTPError):
        return _by_status(cause.response.status_code, scrubbed(cause.server_message or "", token), repo)
    if isinstance(cause, httpx2.HTTPError | OSError):
        fix = "Check the connection and try again; nothing was committed."
        return RunError("The Hub cannot be reached.", fix=fix, code="hub_unreachable")
    reason = (scrubbed(str(cause), token).strip().splitlines() or [""])[0][:200]
    return RunError(f"The push failed ({type(cause).__name__}: {reason}).", where=repo, fix=AGAIN, code="hub_refused")


def _by_status(status: int, message: str, repo: str) -> FinetuneError:
    if status >= 500:
        return RunError(f"The Hub has a problem (status {status}).", where=repo, fix=AGAIN, code="hub_busy")
    if status == 403 and re.search(r"storage|quota|limit", message, re.I):
        status = 402
    if status not in BY_STATUS:
        said = f"The Hub refused (status {status}{': ' + message[:200] if message else ''})."
        return RunError(said, where=repo, fix=AGAIN, code="hub_refused")
    code, what, fix = BY_STATUS[status]
    kind = NotAllowed if status in (401, 403, 404) else RunError
    return kind(what, where=repo if status != 401 else "", fix=fix, code=code)


def scrubbed(text: str, token: str) -> str:
    """The text without the token, and without what follows ``?`` in addresses.

    Example:
        >>> scrubbed("PUT https://store/x?signature=abc with hf_secret", "hf_secret")
        'PUT https://store/x with …'
    """
    return SIGNED.sub("", text.replace(token, "…"))


@contextmanager
def no_secrets_in_logs(token: str) -> Iterator[None]:
    """While open, log lines about requests contain neither the token nor signatures of upload addresses.

    The thread that asks holds it open: it may outlive whoever waits for it.
    """
    loggers = [logging.getLogger(name) for name in ("huggingface_hub.utils._http", "httpx2")]

    def clean(record: logging.LogRecord) -> bool:
        record.msg, record.args = scrubbed(record.getMessage(), token), ()
        return True

    for logger in loggers:
        logger.addFilter(clean)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(clean)
