"""OpenAI's error envelope, for everything that can go wrong under ``/v1`` and ``/openai``.

    {"error": {"message": "Unknown parameter: 'tols'.", "type": "invalid_request_error", "param": "tols",
               "code": "unknown_parameter"}}

`param` is the path of a key in the request, never its value. OpenAI's client turns the status into an exception:
400 BadRequestError, 401 AuthenticationError, 404 NotFoundError, 409 ConflictError, 429 RateLimitError.
"""

import logging
import re
import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from finetune.errors import FinetuneError
from finetune.records import Json

STATUS = {
    "run_unknown": 404,
    "dataset_unknown": 404,
    "not_allowed": 403,
    "no_training_here": 403,
    "no_gpu": 429,
    "busy": 429,
    "too_many_runs": 429,
    "no_room": 413,
    "run_not_over": 409,
    "run_ended": 409,
    "evaluating": 409,
    "run_not_resumable": 409,
    "minutes_used": 409,
    "run_elsewhere": 409,
    "disk_full": 500,
    "record_busy": 500,
}
"""The status of an error by its code; 400 for all others."""

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 500: "server_error"}
"""The type of an error by its status; those above 500 are the server's too, all others ``invalid_request_error``."""

KINDS = {
    **{"int_type": "an integer", "int_from_float": "an integer", "int_parsing": "an integer"},
    **{"float_type": "a number", "float_parsing": "a number", "finite_number": "a number"},
    **{"string_type": "a string", "bool_type": "a boolean", "bool_parsing": "a boolean"},
    **{
        "list_type": "an array",
        "dict_type": "an object",
        "model_attributes_type": "an object",
        "model_type": "an object",
    },
}
"""What was expected, by pydantic's name for the error."""

LENGTHS = {
    **dict.fromkeys(("too_short", "string_too_short"), "must not be empty"),
    "too_long": "must have at most {max_length} entries",
    "string_too_long": "must have at most {max_length} characters",
}

BOUNDS = {"greater_than_equal": "at least", "greater_than": "above", "less_than_equal": "at most", "less_than": "below"}

RANKS = {"extra_forbidden": 0, "literal_error": 1}
"""Which of several errors at one place is told: the kinds named here say the least."""

RETRY_AFTER = 10
"""Seconds after which somebody who was one too many may try again."""

OF_UNION = re.compile(r"^(str|int|float|bool|<.*>|list\[.*|function-.*|constrained-.*|literal\[.*|[A-Z]\w*)$")
"""Parts of pydantic's paths that name a choice of types, not a key."""


class ApiError(FinetuneError):
    """A request that is refused: `param` is the key that is to blame; after 429, `after` how many seconds to wait.

    Example:
        >>> raise ApiError("No such File object: file-1", param="id", status=404)
    """

    code = "invalid_value"

    def __init__(
        self,
        what: str,
        *,
        param: str | None = None,
        status: int = 400,
        code: str | None = None,
        after: int = RETRY_AFTER,
    ):
        super().__init__(what, code=code)
        self.param, self.status, self.after = param, status, after


def refused(param: str, why: str = "") -> ApiError:
    """A key that OpenAI has and this server does not honour."""
    return ApiError(
        f"Unsupported parameter: '{param}' is not supported by this server.{' ' if why else ''}{why}",
        param=param,
        code="unsupported_parameter",
    )


def envelope(message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> Json:
    """The body of an error."""
    kind = TYPES.get(min(status, 500), "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def request_id() -> dict[str, str]:
    """A header that every answer has, an id that no other has; OpenAI's client shows it in its errors."""
    return {"x-request-id": f"req_{secrets.token_hex(12)}"}


def status_of(error: FinetuneError) -> int:
    """The HTTP status of an error."""
    return error.status if isinstance(error, ApiError) else STATUS.get(error.code, 400)


def body_of(error: FinetuneError) -> Json:
    """The body of one of our errors; the place that it names may be a value, and stays in the message."""
    param = error.param if isinstance(error, ApiError) else None
    return envelope(str(error), status=status_of(error), param=param, code=error.code)


def failed(error: FinetuneError) -> JSONResponse:
    """The response for one of our errors.

    A client tries again by itself after 409, 429 and 500; after a conflict that would be of no use.
    """
    status = status_of(error)
    after = error.after if isinstance(error, ApiError) else RETRY_AFTER
    headers = {429: {"Retry-After": str(after)}, 409: {"X-Should-Retry": "false"}}.get(status)
    return JSONResponse(body_of(error), status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every error of this app in the envelope."""

    @app.exception_handler(FinetuneError)
    async def ours(request: Request, error: FinetuneError) -> JSONResponse:
        return failed(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return failed(explain(error.errors()))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        return _http(request, error)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        headers = request_id()  # Starlette answers here from outside of all middleware, `RequestId` too
        logging.error("%s %s failed (%s)", request.method, request.url.path, *headers.values())
        body = envelope("The server had an error; its log says more.", status=500)
        return JSONResponse(body, status_code=500, headers=headers)


def _http(request: Request, error: HTTPException) -> JSONResponse:
    asked, status, code = f"{request.method} {request.url.path}", error.status_code, None
    said = str(error.detail)
    if status == 404:
        said, code = f"Invalid URL ({asked})", "unknown_url"
    elif status == 405:
        said, code = f"Not allowed to {request.method} on {request.url.path}.", "method_not_supported"
    elif "maximum allowed size" in said:  # said while an upload was being read (`finetune.guard`)
        status, code = 413, "too_large"
    elif status == 400:
        code = "invalid_body"
    return JSONResponse(envelope(said, status=status, code=code), status_code=status, headers=error.headers)


def explain(errors: Sequence[Any]) -> ApiError:
    """The first thing that is wrong with a request, in OpenAI's words.

    Example:
        >>> explain([{"type": "missing", "loc": ("body", "model"), "msg": "Field required", "input": {}}]).what
        "Missing required parameter: 'model'."
    """
    first = errors[0]["loc"][:2]
    same = [one for one in errors if one["loc"][:2] == first]
    # of a union, the type that fitted best
    error = max(same, key=lambda one: (len(one["loc"]), RANKS.get(one["type"], 2)))
    param, kind, context = path_of(error["loc"]), error["type"], error.get("ctx", {})
    if kind == "json_invalid" or not param:
        return ApiError("We could not parse the body of your request: it must be a JSON object.", code="invalid_json")
    if kind == "missing":
        return ApiError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return ApiError(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if kind in KINDS:
        return ApiError(f"Invalid type for '{param}': expected {KINDS[kind]}.", param=param, code="invalid_type")
    if kind in BOUNDS:
        bound = next(iter(context.values()))
        return ApiError(f"Invalid value for '{param}': it must be {BOUNDS[kind]} {bound}.", param=param)
    if kind in LENGTHS:
        return ApiError(f"Invalid value for '{param}': it {LENGTHS[kind].format(**context)}.", param=param)
    if kind == "literal_error":
        return ApiError(f"Invalid value for '{param}': supported values are {context['expected']}.", param=param)
    if kind == "value_error" and "UploadFile" in error["msg"]:
        return ApiError(f"Invalid type for '{param}': expected a file with a name.", param=param, code="invalid_type")
    if kind == "value_error":
        return ApiError(f"Invalid value for '{param}': {context['error']}", param=param)
    return ApiError(f"Invalid value for '{param}': {error['msg']}.", param=param)


def path_of(loc: Sequence[str | int]) -> str:
    """A path as OpenAI writes it.

    Example:
        >>> path_of(("body", "messages", 0, "content", "<parts>", 1, "type"))
        'messages[0].content[1].type'
    """
    path = ""
    for part in loc[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]" and not OF_UNION.match(part):
            path += f".{part}" if path else part
    return path
