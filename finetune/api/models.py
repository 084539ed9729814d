"""``/models``, and what a model's name means: a base, a tuned model, one of its checkpoints, or an alias.

| name                                                | means                                                       |
|-----------------------------------------------------|-------------------------------------------------------------|
| `HuggingFaceTB/SmolLM2-135M-Instruct`, a folder     | that base model                                             |
| `ft:SmolLM2-135M-Instruct:local:recipes:r1a2b3c4d`  | the tuned model of run r1a2b3c4d; the run's id alone is enough |
| `ft:…:r1a2b3c4d:ckpt-step-40`                       | its checkpoint of step 40                                   |
| `gpt-4o-mini`, …                                    | the model of `FINETUNE_API_MODEL`, the default one unless set |
"""

import re
from dataclasses import dataclass

from fastapi import APIRouter

from finetune import models, settings, train
from finetune.api.context import Here, Owner, organisation
from finetune.api.errors import ApiError
from finetune.api.schemas import Deleted, Model, Page, page
from finetune.errors import FinetuneError, ModelError, RunError
from finetune.ledger import Job, Ledger
from finetune.services import Services
from finetune.settings import OFF
from finetune.store import Run

ALIASES = (
    *("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "gpt-4o", "gpt-4o-2024-08-06"),
    *("gpt-4.1", "gpt-4.1-2025-04-14", "gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),
    *("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", "gpt-4-0613"),
    *("gpt-3.5-turbo", "gpt-3.5-turbo-0125", "gpt-3.5-turbo-1106", "gpt-3.5-turbo-0613"),
    *("gpt-35-turbo", "gpt-35-turbo-0125", "gpt-35-turbo-1106", "gpt-35-turbo-0613"),
)
"""The names of OpenAI's and Azure's models that tutorials fine-tune."""

TUNED = re.compile(r"(?:ft:[^:]*:[^:]*:[^:]*:)?(?P<run>r[0-9a-f]{8})(?::ckpt-step-(?P<step>\d{1,9}))?")

router = APIRouter(tags=["Models"])


@dataclass(frozen=True)
class Named:
    """What a name stands for: `shown` is the name that answers carry, `base` the base model's."""

    shown: str
    base: str
    run: Run | None = None
    step: int | None = None


@router.get("/models", response_model=Page[Model])
def list_models(here: Here, owner: Owner) -> Page[Model]:
    """The default model, and every tuned one."""
    runs = [run for run in here.services.store.runs(owner=owner) if train.adapter_folder(run.id).is_dir()]
    return page([_base(models.DEFAULT), *(_tuned(here.ledger, run) for run in runs)], has_more=False)


@router.get("/models/{model:path}", response_model=Model)
def retrieve_model(here: Here, owner: Owner, model: str) -> Model:
    """One model: a tuned one, or a base that is here or in the catalogue. Others may be on the Hub; it is not asked."""
    named = resolve(here.services, owner, model)
    if named.run is None:
        if not (model in ALIASES or models.entry(named.base) or models.here(named.base)):
            raise no_model(model)
        return _base(named.base)
    return _tuned(here.ledger, named.run).model_copy(update={"id": named.shown})


@router.delete("/models/{model:path}", response_model=Deleted)
def delete_model(here: Here, owner: Owner, model: str) -> Deleted:
    """Delete a tuned model: its run with every checkpoint, here and on the page. Its job goes with it."""
    named = resolve(here.services, owner, model)
    if named.run is None or named.step is not None:
        raise ApiError("Only a tuned model can be deleted.", param="model", status=403, code="cannot_delete_base_model")
    train.delete(here.services.store, named.run.id)
    return Deleted(id=model, object="model")


def resolve(services: Services, owner: str, name: str) -> Named:
    """What a model's name stands for.

    Raises:
        ApiError: no model has this name, or it is somebody else's (404).

    Example:
        >>> resolve(services, "local", "gpt-4o-mini").base
        'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    if tuned := TUNED.fullmatch(name):
        try:
            run = services.run_of(owner, tuned["run"])
        except RunError as error:
            raise no_model(name) from error
        step = int(tuned["step"]) if tuned["step"] else None
        if step is not None and step not in train.checkpoint_steps(run.id):
            raise no_model(name)
        return Named(name, run.config["model"], run, step)
    base = base_of(name)
    if base is None:
        raise no_model(name)
    return Named(base, base)


def base_of(name: str) -> str | None:
    """The base model that a name stands for; None if it is none. Nothing is asked of the Hub.

    Example:
        >>> base_of("gpt-4o-mini")
        'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    if name in ALIASES:
        stands_for = settings.read().api_model or models.DEFAULT
        return None if stands_for.lower() in OFF else stands_for
    try:
        models.refuse_name(name)
    except FinetuneError:
        return None
    return name


def no_model(name: str, param: str = "model") -> ApiError:
    """Said of a missing model, and in the same words of somebody else's."""
    said = f"The model `{name[:100]}` does not exist or you do not have access to it."
    return ApiError(said, param=param, status=404, code="model_not_found")


def not_had(named: Named, error: FinetuneError) -> FinetuneError:
    """What went wrong with a model, as OpenAI says it of a base that is not here and cannot be fetched: with a 404."""
    if error.code != ModelError.code or named.run is not None or models.here(named.base):
        return error
    return ApiError(str(error), param="model", status=404, code="model_not_found")


def tuned_name(job: Job, run: Run) -> str:
    """The name of a run's model.

    Example:
        >>> tuned_name(job, run)
        'ft:SmolLM2-135M-Instruct:local:recipes:r1a2b3c4d'
    """
    suffix = re.sub(r"[^a-z0-9.\-]+", "-", ((job.request or {}).get("suffix") or "").lower()).strip("-")
    base = run.config["model"].rstrip("/").rsplit("/", 1)[-1].replace(":", "-")
    return f"ft:{base}:{organisation(run.owner)}:{suffix}:{run.id}"


def _base(name: str) -> Model:
    return Model(id=name, created=0, owned_by="base")


def _tuned(ledger: Ledger, run: Run) -> Model:
    name = tuned_name(ledger.job_of_run(run), run)
    return Model(id=name, created=int(run.created), owned_by=organisation(run.owner))
