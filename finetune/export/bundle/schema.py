"""What a run bundle holds, file by file: names, sizes, and the shape of every record. Nothing else is let in.

manifest.json                       format, version, {file: bytes, sha256} of every other file
run.json environment.json data.json the run, where it was trained, what its data was (no row)
events.jsonl votes.jsonl            what happened, and the votes of the run's owner
report.json strengths.json          what its evaluation found, and what its strengths do, if that was measured
evaluations/KEY/task.json answers.jsonl
adapter/…                           what PEFT and a tokenizer save: safetensors, JSON, jinja, txt
data/train.jsonl validation.jsonl   the examples, only if they were asked for
parent/rows.jsonl                   with them: rows that runs which it continues were trained on, if it continues any
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from finetune.data import RowSplit
from finetune.evaluate.arms import MODELS
from finetune.evaluate.findings import Conclusion, Gap, Report
from finetune.evaluate.tradeoff import Strengths
from finetune.export.strength import AS_TRAINED, Strength
from finetune.records import Count, Json, Moment, Name, Number, Record, Seconds, Sha
from finetune.schema import Ancestor
from finetune.store import ENDED, Result
from finetune.train.events import KINDS

FORMAT, VERSION = "before-and-after-run", 1

MANIFEST, WEIGHTS, ADAPTER = "manifest.json", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
NEEDED = ("run.json", "environment.json", "data.json", "events.jsonl", "votes.jsonl", WEIGHTS, ADAPTER)

MOST_MEMBERS = 500
MB = 2**20
SIZES: dict[str, int] = {
    r"(?:manifest|run|environment|evaluations/[0-9a-f]{16}/task)\.json": 1 * MB,
    r"(?:data|report|strengths)\.json": 4 * MB,
    r"(?:events|votes|evaluations/[0-9a-f]{16}/answers)\.jsonl": 256 * MB,
    r"adapter/adapter_model\.safetensors": 16 * 1024 * MB,
    r"adapter/adapter_config\.json": MB // 16,
    r"adapter/(?:chat_template\.jinja|(?:special_tokens_map|generation_config)\.json)": 1 * MB,
    r"adapter/(?:(?:tokenizer_config|added_tokens|vocab)\.json|(?:merges|vocab)\.txt)": 8 * MB,
    r"adapter/tokenizer\.json": 64 * MB,
    r"(?:data/(?:train|validation)|parent/rows)\.jsonl": 8 * 1024 * MB,
}
"""The names a bundle may have, and how many bytes such a file may hold."""

LONGEST_LINE = 8 * MB  # of a JSONL file


def most_bytes(name: str) -> int | None:
    """How large a member of this name may be; None when a bundle has no such member.

    Example:
        >>> most_bytes("adapter/pytorch_model.bin") is None
        True
    """
    return next((size for pattern, size in SIZES.items() if re.fullmatch(pattern, name)), None)


class FileRecord(Record):
    bytes: Count
    sha256: Sha


class ManifestRecord(Record):
    format: Literal["before-and-after-run"]
    version: Literal[1]
    files: dict[str, FileRecord]


class BaseRecord(Record):
    """The base's Hub id; of a `local` one its folder's last part, and the hash of its weights."""

    name: Name
    local: bool
    weights: Sha | None = None


class RunRecord(Record):
    name: Name
    config: Json
    base: BaseRecord
    resolved: dict[str, Number | None]
    result: Result
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
    lineage: list[Ancestor] = []
    strength: Strength = AS_TRAINED


class EnvironmentRecord(Record):
    python: Name
    platform: Name
    cpu: Name
    cores: Count | None
    memory: Count | None
    gpu: Name | None
    packages: dict[str, Name]


class DataRecord(Record):
    """`facts.data_facts`, whether the rows are `included`, and the hashes of the kept files."""

    name: Name
    format: Name | None
    kind: Literal["answers", "pairs", "ratings"] = "answers"
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


class EventRecord(Record):
    seq: Annotated[int, Field(ge=1)]
    at: Moment
    kind: Literal[*KINDS]  # type: ignore[valid-type]
    data: Json


class TaskRecord(Record):
    """Which evaluation: of at most `limit` held-out rows; None for one of a file's rows."""

    limit: Annotated[int, Field(ge=1, le=10**9)] | None


class ReportRecord(Report):
    """`evaluate.report` of a finished evaluation: base and tuned were scored, and a model's answers measured."""

    run: None
    difference: Gap
    verdict: Conclusion

    def model_post_init(self, _: Any) -> None:
        if any(arm not in self.arms or self.arms[arm].score is None for arm in ("base", "tuned")):
            raise ValueError("base and tuned need a score")
        if any("answer_tokens" not in arm.model_fields_set for name, arm in self.arms.items() if name in MODELS):
            raise ValueError("a model's arm needs answer_tokens")
        if self.model_fields_set & KEPT_HERE:
            raise ValueError("data, origin, adapter and at do not belong in a bundle's report")


class StrengthsRecord(Strengths):
    """What was measured at several strengths of the adapter; which of them was chosen stands in `RunRecord`."""

    def model_post_init(self, _: Any) -> None:
        if self.model_fields_set & KEPT_HERE:
            raise ValueError("origin, adapter and at do not belong in a bundle")


KEPT_HERE = {"data", "origin", "adapter", "at"}
