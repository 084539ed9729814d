"""What a run bundle holds, file by file: names, sizes, and the shape of every record. Nothing else is let in.

manifest.json                       format, version, {file: bytes, sha256} of every other file
run.json environment.json data.json the run, where it was trained, what its data was (no row)
events.jsonl votes.jsonl            what happened, and the votes of the run's owner
report.json                         what its evaluation found, if one was finished
evaluations/KEY/task.json answers.jsonl
adapter/…                           what PEFT and a tokenizer save: safetensors, JSON, jinja, txt
data/train.jsonl validation.jsonl   the examples, only if they were asked for
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.data import RowSplit
from finetune.evaluate import ARMS, KINDS
from finetune.evaluate.arms import MODELS
from finetune.evaluate.scores import METRICS
from finetune.store import ENDED, STATES

FORMAT, VERSION = "before-and-after-run", 1

MANIFEST, WEIGHTS, ADAPTER = "manifest.json", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
NEEDED = ("run.json", "environment.json", "data.json", "events.jsonl", "votes.jsonl", WEIGHTS, ADAPTER)

MOST_MEMBERS = 500
MB = 2**20
SIZES: dict[str, int] = {
    r"(?:manifest|run|environment|evaluations/[0-9a-f]{16}/task)\.json": 1 * MB,
    r"(?:data|report)\.json": 4 * MB,
    r"(?:events|votes|evaluations/[0-9a-f]{16}/answers)\.jsonl": 256 * MB,
    r"adapter/adapter_model\.safetensors": 16 * 1024 * MB,
    r"adapter/adapter_config\.json": MB // 16,
    r"adapter/(?:chat_template\.jinja|(?:special_tokens_map|generation_config)\.json)": 1 * MB,
    r"adapter/(?:(?:tokenizer_config|added_tokens|vocab)\.json|(?:merges|vocab)\.txt)": 8 * MB,
    r"adapter/tokenizer\.json": 64 * MB,
    r"data/(?:train|validation)\.jsonl": 8 * 1024 * MB,
}
"""The names a bundle may have, and how many bytes such a file may hold."""

LONGEST_LINE = 8 * MB  # of a JSONL file
LONGEST_ANSWER = 100_000  # characters; one given here ends after 512 tokens


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
Moment = Annotated[float, Field(ge=0, le=4e9)]  # Unix seconds, to 2096: no page can show a date no calendar has
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LONGEST_NAME = 300
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]  # so that no sum or difference of two overflows
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]


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
    train_loss: Number | None = None
    eval_loss: Number | None = None
    base_eval_loss: Number | None = None
    train_seconds: Number | None = None
    tokens_per_second: Number | None = None
    adapter_step: Count | None = None


class RunRecord(Strict):
    name: Name
    config: dict[str, Any]
    base: BaseRecord
    resolved: dict[str, Number | None]
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
    split: RowSplit | None = None


class State(Strict):
    state: Literal[*STATES]  # type: ignore[valid-type]
    code: str | None = None
    reason: str | None = None


class Log(Strict):
    text: str


class Tokens(Strict):
    tokens: Number


class Eval(Strict):
    step: Count
    loss: Number
    tokens: Number
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
    loss: Number
    learning_rate: Number
    grad_norm: Number | None
    tokens: Number
    seconds: Seconds


class Saved(Strict):
    step: Count
    loss: Number | None
    best: bool
    seconds: Seconds = 0


class NoteRecord(Strict):
    code: str
    text: str


class Resumed(Strict):
    step: Count


KINDS_OF_EVENT: dict[str, type[Strict]] = {
    "state": State,
    "log": Log,
    "rows": Tokens,
    "eval": Eval,
    "samples": Samples,
    "step": Step,
    "checkpoint": Saved,
    "note": NoteRecord,
    "resumed": Resumed,
}


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
    text: Annotated[str, Field(max_length=LONGEST_ANSWER)]
    tokens: Count
    prompt_tokens: Count
    seconds: Seconds
    stop: str | None
    loss: Number
    loss_tokens: Count
    dropped: Count = 0


class ArmReport(Strict):
    score: Number | None
    ci: Interval | None
    correct: Count | None
    parts: dict[str, Number]
    confusion: dict[str, dict[str, Count]] | None = None
    loss: Number | None
    perplexity: Number | None
    prompt_tokens: Number
    seconds: Number
    answer_tokens: Number = 0
    empty: Count = 0
    over_long: Count = 0
    too_long: Count = 0
    fewer_examples: Count = 0
    seconds_ci: Interval | None = None


class DifferenceReport(Strict):
    vs: Literal[*ARMS]  # type: ignore[valid-type]
    points: Number
    ci: Interval | None
    p: Number


class ShownReport(Strict):
    prompt: str
    base: str
    tuned: str


class ForgettingReport(Strict):
    base_loss: Number
    tuned_loss: Number
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
    left_out: Count = 0
    kind: Literal[*KINDS]  # type: ignore[valid-type]
    metric: Literal[*METRICS.values()]  # type: ignore[valid-type]
    arms: dict[Literal[*ARMS], ArmReport]  # type: ignore[valid-type]
    difference: DifferenceReport
    forgetting: ForgettingReport | None
    verdict: VerdictReport

    def model_post_init(self, _: Any) -> None:
        if any(arm not in self.arms or self.arms[arm].score is None for arm in ("base", "tuned")):
            raise ValueError("base and tuned need a score")
        if any("answer_tokens" not in arm.model_fields_set for name, arm in self.arms.items() if name in MODELS):
            raise ValueError("a model's answers need their length")
