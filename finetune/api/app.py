"""The API's apps: OpenAI's paths under ``/v1``, and Azure's under ``/openai``, both in front of the same handlers.

    client = OpenAI(base_url="http://127.0.0.1:7860/v1", api_key="none")
    client = AzureOpenAI(azure_endpoint="http://127.0.0.1:7860", api_version="2024-10-21", api_key="none")

Everything that goes wrong, an unknown path too, is answered in OpenAI's envelope, and every answer has a request id.
"""

import re
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.datastructures import MutableHeaders
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune import settings
from finetune.api import azure, chat, completions, document, errors, files, jobs, models, responses, uploads, verdict
from finetune.api.context import Context, only_known
from finetune.api.schemas import ERRORS
from finetune.api.validate import Validator
from finetune.ledger import Ledger
from finetune.pace import Pace
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.services import Services

TITLE = "Before & After"


class Under(Mount):
    """Everything under a path, also with a line break in it, which Starlette's own leaves to others."""

    def __init__(self, path: str, app: ASGIApp):
        super().__init__(path, app)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)


class RequestId:
    """Gives every answer the header with its id, and those of a pace."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the header to its answer."""

        state = scope.setdefault("state", {})

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(errors.request_id())
                headers.update(state.get("pace", {}))
            await send(message)

        await self.app(scope, receive, sender)


def routes(services: "Services") -> list[BaseRoute]:
    """The API's routes, served alongside the page. Jobs that an earlier server left unchecked are checked now."""
    ledger = Ledger(services.store)
    validator = Validator(ledger)
    here = Context(services, ledger, validator, verdict.Verdicts(services), Pace())
    validator.go_on()
    uploads.sweep()
    return [Under("/v1", openai_app(here)), Under("/openai/v1", openai_app(here)), Under("/openai", azure_app(here))]


def openai_app(here: Context) -> FastAPI:
    """OpenAI's paths."""
    app = _app(here)
    for part in (files, uploads, jobs, verdict, models, chat, responses, completions):
        app.include_router(part.router, dependencies=[Depends(only_known)], responses=ERRORS)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(document.as_html(app.openapi()))

    return app


def azure_app(here: Context) -> FastAPI:
    """Azure's paths: the same, with ``api-version``, and chat by the name of a deployment."""
    app = _app(here)
    known = [Depends(only_known), Depends(azure.version)]
    for part in (azure, files, uploads, jobs, verdict, models):
        app.include_router(part.router, dependencies=known, responses=ERRORS)
    return app


def _app(here: Context) -> FastAPI:
    app = FastAPI(title=TITLE, version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.context = here
    errors.install(app)
    app.add_middleware(RequestId)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _document(app: FastAPI) -> Json:
    """FastAPI's document without its own form of a refusal, with which nothing is answered here."""
    if app.openapi_schema is None:
        made: dict[str, Any] = get_openapi(
            title=TITLE, version="1", routes=app.routes, description=document.INTRODUCTION
        )
        for path in made["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            made["components"]["schemas"].pop(name, None)
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}] if settings.read().shared else [{"key": []}, {}]
        made["servers"] = [{"url": "/v1"}]
        app.openapi_schema = made
    return app.openapi_schema
