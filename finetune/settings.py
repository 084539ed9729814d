"""Settings of the server, read from environment variables only.

| variable                 | meaning                                                         | default             |
|--------------------------|-----------------------------------------------------------------|---------------------|
| `FINETUNE_HOME`          | folder for all stored data: database, datasets, models and runs | ~/.before-and-after |
| `FINETUNE_SHARED`        | 1: shared server; visitors see only their own data and runs     | 1 on a Space        |
| `FINETUNE_MAX_UPLOAD_MB` | maximum total size of one upload, in MB                         | 2048, shared: 100   |
| `FINETUNE_MAX_MODEL_GB`  | largest model downloaded from the Hub, in GB                    | none, shared: 3     |
| `FINETUNE_MAX_MINUTES`   | maximum training time of a run, in minutes, excluding pauses      | none, shared: 30    |
| `FINETUNE_MAX_STEPS`     | maximum number of training steps of a run                       | none, shared: 2000  |
| `FINETUNE_MAX_OWNER_MB`  | maximum disk space of a visitor's data and runs, in MB          | none, shared: 1000  |
| `FINETUNE_RUNS_PER_ADDRESS` | maximum number of active runs from one network address       | none, shared: 12    |
| `FINETUNE_REQUESTS_PER_MINUTE` | maximum number of requests (no reads) of one address a minute | none, shared: 1500 |
| `FINETUNE_KEEP_DATA_HOURS` | hours after which data that no run uses is deleted            | none, shared: 24    |
| `FINETUNE_KEEP_RUNS_HOURS` | hours after which a run that has ended is deleted             | none, shared: 72    |
| `FINETUNE_WORKERS`       | maximum number of runs trained at the same time                 | 1                   |
| `FINETUNE_CHAT_ENGINE`   | pytorch, or auto: llama.cpp unless its check is red             | pytorch             |
| `FINETUNE_API_PER_MINUTE` | maximum number of requests to the API per key and minute       | none, shared: 120   |
| `FINETUNE_PRECISION`     | fp32, or auto: gradients in bf16 on CPUs that are fast at it      | auto                |
| `FINETUNE_API_MODEL`     | the model that names such as gpt-4o-mini stand for; off: none    | the default model   |
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from finetune.errors import ConfigError

PORT = "GRADIO_SERVER_PORT"
ZERO_GPU = "SPACES_ZERO_GPU"
ENGINES = ("pytorch", "auto")
PRECISIONS = ("auto", "fp32")
ON, OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """The settings at one moment. `home` exists and is accessible only to its user."""

    home: Path
    shared: bool
    max_upload_mb: int
    workers: int
    max_minutes: float | None = None
    max_model_gb: float | None = None
    chat_engine: str = "pytorch"
    api_model: str = ""
    api_per_minute: float | None = None
    precision: str = "auto"
    max_steps: int | None = None
    max_owner_mb: float | None = None
    runs_per_address: int | None = None
    requests_per_minute: float | None = None
    keep_data_hours: float | None = None
    keep_runs_hours: float | None = None

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def datasets(self) -> Path:
        return self.home / "datasets"


def read() -> Settings:
    """Read the environment; create `FINETUNE_HOME` (mode 700) if it is missing.

    Raises:
        ConfigError: a variable is invalid, or the folder cannot be created.

    Example:
        >>> read().home.is_dir()
        True
    """
    shared = _switch("FINETUNE_SHARED", default=bool(os.environ.get("SPACE_ID")))
    home = Path(os.environ.get("FINETUNE_HOME") or Path.home() / ".before-and-after").expanduser().resolve()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"This folder cannot be created ({error.strerror}).",
            where="FINETUNE_HOME",
            fix="Set FINETUNE_HOME to a writable folder.",
        ) from error
    return Settings(
        home=home,
        shared=shared,
        max_upload_mb=_number("FINETUNE_MAX_UPLOAD_MB", 100 if shared else 2048),
        workers=_number("FINETUNE_WORKERS", 1),
        max_minutes=_amount("FINETUNE_MAX_MINUTES", 30.0 if shared else None),
        max_model_gb=_amount("FINETUNE_MAX_MODEL_GB", 3.0 if shared else None),
        chat_engine=_one_of("FINETUNE_CHAT_ENGINE", ENGINES),
        api_per_minute=_amount("FINETUNE_API_PER_MINUTE", 120.0 if shared else None),
        api_model=os.environ.get("FINETUNE_API_MODEL", "").strip(),
        precision=_one_of("FINETUNE_PRECISION", PRECISIONS),
        max_steps=_number("FINETUNE_MAX_STEPS", 2000 if shared else None),
        max_owner_mb=_amount("FINETUNE_MAX_OWNER_MB", 1000.0 if shared else None),
        runs_per_address=_number("FINETUNE_RUNS_PER_ADDRESS", 12 if shared else None),
        requests_per_minute=_amount("FINETUNE_REQUESTS_PER_MINUTE", 1500.0 if shared else None),
        keep_data_hours=_amount("FINETUNE_KEEP_DATA_HOURS", 24.0 if shared else None),
        keep_runs_hours=_amount("FINETUNE_KEEP_RUNS_HOURS", 72.0 if shared else None),
    )


def zero_gpu() -> bool:
    """Whether this is a ZeroGPU Space, which has a GPU only for the length of a call that asks for one.

    Example:
        >>> zero_gpu()    # on a laptop
        False
    """
    return os.environ.get(ZERO_GPU, "").strip().lower() in ("1", "t", "true")


def forgets(home: Path) -> bool:
    """Whether a restart loses what is in this folder: on a Space, unless storage of its own is mounted there.

    Example:
        >>> forgets(Path("/data/before-and-after"))    # on a Space with a bucket at /data
        False
    """
    places = (home, *home.parents[:-1])  # the last is the root of the container itself
    return bool(os.environ.get("SPACE_ID")) and not any(place.is_mount() for place in places)


def port() -> int | None:
    """The port that the environment names. Gradio would serve on the next one if it is taken, and cannot even be
    imported if it is none.

    Raises:
        ConfigError: it is no port.
    """
    text = os.environ.get(PORT, "").strip()
    if text and not (text.isdecimal() and len(text) < 6 and 0 < int(text) < 65536):
        raise ConfigError(f"{text[:40]!r} is not a port.", where=PORT, fix="Set it to a number from 1 to 65535.")
    return int(text) if text else None


def _switch(name: str, *, default: bool) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text in ("", *ON, *OFF):
        return default if not text else text in ON
    raise ConfigError(f"{text!r} is neither 1 nor 0.", where=name, fix="Set it to 1 or 0.")


def _one_of(name: str, choices: tuple[str, ...]) -> str:
    text = os.environ.get(name, "").strip().lower() or choices[0]
    if text not in choices:
        raise ConfigError(f"{text!r} is not allowed.", where=name, fix=f"Set it to {' or '.join(choices)}.")
    return text


@overload
def _number(name: str, default: int) -> int: ...
@overload
def _number(name: str, default: int | None) -> int | None: ...
def _number(name: str, default: int | None) -> int | None:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        fix = "Unset it for no limit." if default is None else f"Unset it to use {default}."
        raise ConfigError(f"{text!r} is not a whole number above 0.", where=name, fix=fix)
    return int(text)


def _amount(name: str, default: float | None) -> float | None:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:  # false for NaN too
        usual = "for no limit" if default is None else f"to use {default:g}"
        raise ConfigError(f"{text!r} is not a number above 0.", where=name, fix=f"Unset it {usual}.")
    return amount
