"""Who is asking, and with what: the owner behind a key, and the one ledger of the server."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from finetune import settings
from finetune.api.errors import ApiError
from finetune.api.pace import counted
from finetune.ledger import Ledger, key_in
from finetune.pace import Pace
from finetune.schema import LOCAL

if TYPE_CHECKING:
    from finetune.api.validate import Validator
    from finetune.api.verdict import Verdicts
    from finetune.services import Services

SHOWN = 4
"""Last characters of a wrong key that are named."""


@dataclass(frozen=True)
class Context:
    """What handlers need: the services, the ledger, what checks the files of new jobs, and what judges old ones."""

    services: "Services"
    ledger: Ledger
    validator: "Validator"
    verdicts: "Verdicts"
    pace: Pace


def context(request: Request) -> Context:
    """The context of this app."""
    found: Context = request.app.state.context
    return found


def owner(request: Request) -> str:
    """The owner whose files, jobs and models a request sees: ``local`` at home, the key's owner on a shared server.

    Raises:
        ApiError: the key is missing or wrong (401), or has made too many requests (429).
    """
    where = settings.read()
    whose = _owner_of_key(request) if where.shared else LOCAL
    if where.api_per_minute is not None:
        request.state.pace = counted(context(request).pace, whose, where.api_per_minute)
    return whose


def _owner_of_key(request: Request) -> str:
    key = key_in(request.headers)
    if not key:
        raise ApiError(
            "You didn't provide an API key. Make one on the page, and send it as 'Authorization: Bearer KEY'.",
            status=401,
            code="missing_api_key",
        )
    whose = context(request).ledger.owner_of(key)
    if whose is None:
        shown = f"…{key[-SHOWN:]}" if len(key) > 4 * SHOWN else "…"
        raise ApiError(
            f"Incorrect API key provided: {shown}. Make one on the page.", status=401, code="invalid_api_key"
        )
    return whose


def only_known(request: Request) -> None:
    """Refuse a query that names something this route does not have.

    Raises:
        ApiError: naming it.
    """
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params} | {"api-version"}
    for name in request.query_params:
        if name not in known and not (name.startswith("metadata[") and "metadata" in known):
            raise ApiError(f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter")


Here = Annotated[Context, Depends(context)]
Owner = Annotated[str, Depends(owner)]


def organisation(name: str) -> str:
    """An owner's name for others: on a shared server the owner itself is a secret.

    Example:
        >>> organisation("local")
        'local'
    """
    return LOCAL if name == LOCAL else "visitor"
