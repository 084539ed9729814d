"""What every kept record is made of: exactly these fields, of exactly these types, every number finite.

A station owns the records that it writes (`train.events`, `evaluate.findings`, `chat.votes`, `data.RowSplit`); the
store keeps their JSON, and the importer of a bundle reads a stranger's with the same classes.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, Any]
"""A JSON object whose keys are not ours: settings before they are checked, columns of somebody's rows."""


Source = Literal["local", "cache", "hub", "packaged"]
"""Where a model's files were found (`models.find`)."""


class Record(BaseModel):
    """Exactly these fields, of exactly these types, every number finite.

    Example:
        >>> class Resumed(Record):
        ...     step: Count
        >>> Resumed.model_validate_json('{"step": 40}').step
        40
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Moment = Annotated[float, Field(ge=0, le=4e9)]
"""Unix seconds, to 2096: no page can show a date that no calendar has."""

Number = Annotated[float, Field(ge=-1e30, le=1e30)]
"""So small that no sum or difference of two overflows."""

Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LONGEST_NAME = 300
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]


class EnvironmentRecord(Record):
    """The machine that a run was trained on, and its packages, without its host name (`export.facts.environment`)."""

    python: Name
    platform: Name
    cpu: Name
    cores: Count | None
    memory: Count | None
    gpu: Name | None
    packages: dict[str, Name]
