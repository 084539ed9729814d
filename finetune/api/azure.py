"""Azure's flavour: chat by the name of a deployment, with ``api-key`` and ``api-version``.

On Azure a tuned model must be deployed before it can be asked, by a call to the control plane. Here every model is:
its name, as ``fine_tuned_model`` gives it, or the id of its run, is the name of its deployment.
"""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from finetune.api.answers import Completion
from finetune.api.chat import Question, answer
from finetune.api.context import Here, Owner
from finetune.api.errors import ApiError

router = APIRouter(tags=["Azure"])


def version(version: Annotated[str | None, Query(alias="api-version")] = None) -> None:
    """See that a version is named; all of them are answered alike.

    Raises:
        ApiError: there is none.
    """
    if not version:
        raise ApiError("Missing required query parameter: 'api-version'.", param="api-version")


class Deployed(Question):
    """A chat completion of a deployment: `model` may be left out, and must not say anything else."""

    model: str = ""


@router.post("/deployments/{deployment:path}/chat/completions", response_model=Completion)
async def complete(here: Here, owner: Owner, deployment: str, question: Deployed) -> Response:
    """Answer a conversation by the model of a deployment."""
    if question.model not in ("", deployment):
        raise ApiError("'model' names another deployment than the URL.", param="model")
    return await answer(here.services, owner, question.model_copy(update={"model": deployment}))
