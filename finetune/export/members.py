"""What a run bundle holds, file by file: names, sizes, and the shape of every record. Nothing else is let in.

manifest.json                       format, version, {file: bytes, sha256} of every other file
run.json environment.json data.json the run, where it was trained, what its data was (no row)
events.jsonl votes.jsonl            what happened, and the votes of the run's owner
report.json                         what its evaluation found, if one was finished
evaluations/KEY/task.json answers.jsonl
adapter/…                           safetensors, JSON, jinja, txt
data/train.jsonl validation.jsonl   the examples, only if they were asked for
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.evaluate import ARMS, KINDS
from finetune.store import ENDED, STATES

FORMAT, VERSION = "before-and-after-run", 1

MANIFEST, WEIGHTS, ADAPTER = "manifest.json", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
NEEDED = ("run.json", "environment.json", "data.json", "events.jsonl", WEIGHTS, ADAPTER)

MOST_MEMBERS = 500
MB = 2**20
SIZES: dict[str, int] = {
    r"manifest\.json": 1 * MB,
    r"(?:run|environment)\.json": 1 * MB,
    r"data\.json": 4 * MB,
    r"report\.json": 8 * MB,
    r"events\.jsonl": 1024 * MB,
    r"votes\.jsonl": 256 * MB,
    r"evaluations/[0-9a-f]{16}/task\.json": 1 * MB,
    r"evaluations/[0-9a-f]{16}/answers\.jsonl": 256 * MB,
    r"adapter/adapter_model\.safetensors": 16 * 1024 * MB,
    r"adapter/[A-Za-z0-9_][A-Za-z0-9_\-]{0,80}\.(?:json|jinja|txt)": 64 * MB,
    r"data/(?:train|validation)\.jsonl": 8 * 1024 * MB,
}
"""The names a bundle may have, and how many bytes such a file may hold."""

LONGEST_LINE = 8 * MB
"""Bytes of one line of a JSONL file."""


def most_bytes(name: str) -> int | None:
    """How large a member of this name may be; None when a bundle has no such member.

    Example:
        >>> most_bytes("adapter/pytorch_model.bin") is None
        True
    """
    return next((size for pattern, size in SIZES.items() if re.fullmatch(pattern, name)), None)


class Strict(BaseModel):
    """Exactly these fields, of exactly these types, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Moment = Annotated[float, Field(ge=0, le=4e9)]
"""Unix seconds, to the year 2096: a date that no calendar has would break every page that shows it."""

Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LONGEST_NAME = 300
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]


class FileRecord(Strict):
    bytes: Count
    sha256: Sha


class ManifestRecord(Strict):
    format: Literal["before-and-after-run"]
    version: Literal[1]
    files: dict[str, FileRecord]


class BaseRecord(Strict):
    """The base's Hub id; of a `local` one its folder's last part, and the hash of its weights."""

    name: Name
    local: bool
    weights: Sha | None = None


class Figures(Strict):
    """What a run ended with: its `result`."""

    source: Literal["local", "cache", "hub", "packaged"] | None = None
    train_loss: float | None = None
    eval_loss: float | None = None
    base_eval_loss: float | None = None
    train_seconds: float | None = None
    tokens_per_second: float | None = None
    adapter_step: Count | None = None


class RunRecord(Strict):
    name: Name
    config: dict[str, Any]
    base: BaseRecord
    resolved: dict[str, float | None]
    result: Figures
    state: Literal[*ENDED]  # type: ignore[valid-type]
    code: Name | None
    reason: str | None
    created: Moment
    started: Moment | None
    ended: Moment | None
    step: Count
    steps: Count
    attempt: Count
    seconds: Seconds
    memory: Count


class EnvironmentRecord(Strict):
    python: Name
    platform: Name
    cpu: Name
    cores: Count | None
    memory: Count | None
    gpu: Name | None
    packages: dict[str, Name]


class DataRecord(Strict):
    """`facts.data_facts`, whether the rows are `included`, and the hashes of the kept files."""

    name: Name
    format: Name | None
    rows: Count | None
    accepted: Count | None
    rejected: Count | None
    applied: list[Name]
    system: str | None
    thinks: bool
    train: Count | None
    held_out: Count | None
    sha256: Sha | None
    held_out_sha256: Sha | None
    included: bool
    files: dict[Literal["train.jsonl", "validation.jsonl"], FileRecord]


class State(Strict):
    state: Literal[*STATES]  # type: ignore[valid-type]
    code: str | None = None
    reason: str | None = None


class Log(Strict):
    text: str


class Tokens(Strict):
    tokens: float


class Eval(Strict):
    step: Count
    loss: float
    tokens: float
    seconds: Seconds
    of: Count


class Answer(Strict):
    prompt: str
    expected: str
    text: str


class Samples(Strict):
    step: Count
    answers: list[Answer]
    seconds: Seconds = 0


class Step(Strict):
    step: Count
    loss: float
    learning_rate: float
    grad_norm: float | None
    tokens: float
    seconds: Seconds


class Saved(Strict):
    step: Count
    loss: float | None
    best: bool
    seconds: Seconds = 0


class NoteRecord(Strict):
    code: str
    text: str


class Resumed(Strict):
    step: Count


KINDS_OF_EVENT: dict[str, type[Strict]] = {
    "state": State, "log": Log, "rows": Tokens, "eval": Eval, "samples": Samples, "step": Step, "checkpoint": Saved,
    "note": NoteRecord, "resumed": Resumed,
}  # fmt: skip


class EventRecord(Strict):
    seq: Annotated[int, Field(ge=1)]
    at: Moment
    kind: Literal[*KINDS_OF_EVENT]  # type: ignore[valid-type]
    data: dict[str, Any]


class Message(Strict):
    role: Name
    content: str


class VoteRecord(Strict):
    choice: Literal["base", "tuned", "tie", "neither"]
    left: Literal["base", "tuned"]
    messages: list[Message]
    base: str
    tuned: str
    at: Moment


class TaskRecord(Strict):
    """Which evaluation: of at most `limit` held-out rows; None for one of a file's rows."""

    limit: Annotated[int, Field(ge=1, le=10**9)] | None


class AnsweredRecord(Strict):
    row: Count
    arm: Literal["base", "few_shot", "retrieval", "tuned", "general_base", "general_tuned"]
    text: str
    tokens: Count
    prompt_tokens: Count
    seconds: Seconds
    stop: str | None
    loss: float
    loss_tokens: Count


class ArmReport(Strict):
    score: float | None
    ci: Interval | None
    correct: Count | None
    parts: dict[str, float]
    confusion: dict[str, dict[str, Count]] | None = None
    loss: float | None
    perplexity: float | None
    prompt_tokens: float
    seconds: float
    answer_tokens: float = 0
    empty: Count = 0
    over_long: Count = 0


class DifferenceReport(Strict):
    vs: Literal[*ARMS]  # type: ignore[valid-type]
    points: float
    ci: Interval
    p: float


class ShownReport(Strict):
    prompt: str
    base: str
    tuned: str


class ForgettingReport(Strict):
    base_loss: float
    tuned_loss: float
    ci: Interval
    n: Count
    said: Literal["worse", "better", "unchanged", "no clear change"]
    answers: list[ShownReport]


class VerdictReport(Strict):
    code: Literal["helped", "alternative_as_good", "no_difference", "hurt", "too_few_rows"]
    sentence: str


class ReportRecord(Strict):
    """`evaluate.report` of a finished evaluation."""

    run: None
    model: Name
    n: Count
    excluded: Count
    kind: Literal[*KINDS]  # type: ignore[valid-type]
    metric: Name
    arms: dict[Literal[*ARMS], ArmReport]  # type: ignore[valid-type]
    difference: DifferenceReport
    forgetting: ForgettingReport | None
    verdict: VerdictReport
