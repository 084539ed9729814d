"""The steps of which edits by hand are made, as they are kept: one JSON object a line.

Example:
    >>> STEP.validate_json('{"kind": "replace", "find": "colour", "put": "color"}').find
    'colour'
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from finetune.data.example import Example
from finetune.records import Count, Json, Record

EDITED = "edited"
"""What stands for a round of edits among the fixes that were `applied` to a dataset."""

LONGEST_FIND = 10_000
"""Characters of a text to find, and of what it is replaced with."""

LONGEST_TURN = 10_000_000
"""A turn that would have more characters stays as it is: one letter replaced by a page is a gigabyte."""

Where = Literal["everywhere", "answers", "prompts"]


class Edit(Record):
    """The row `place` (from 0) has these messages. `was` is the `mark` of the row that was edited first."""

    kind: Literal["edit"] = "edit"
    place: Count
    was: str
    messages: list[Json]


class Delete(Record):
    """The row is left out; or, with `gone` false, it is back."""

    kind: Literal["delete"] = "delete"
    place: Count
    was: str
    gone: bool = True


class Add(Record):
    """One more row, behind all others."""

    kind: Literal["add"] = "add"
    messages: list[Json]
    tools: list[Json] = []


class Replace(Record):
    """A text is replaced wherever it stands, in the rows there are by then. `rows` is how many that changed.

    A row in which a turn would be left empty stays as it is; so does a turn that would be longer than any file's row.
    """

    kind: Literal["replace"] = "replace"
    find: Annotated[str, Field(min_length=1, max_length=LONGEST_FIND)]
    put: Annotated[str, Field(max_length=LONGEST_FIND)] = ""
    case: bool = True
    where: Where = "everywhere"
    rows: Count = 0

    def of(self, example: Example) -> Example:
        """The row with the text replaced; the same object where nothing changes."""
        if not self.may_be_in(example):
            return example
        after = example.changed(self.turn)
        emptied = any(
            not new["content"].strip() and old["content"].strip()
            for old, new in zip(example.told, after.told, strict=True)
        )
        return example if emptied else after

    def may_be_in(self, example: Example) -> bool:
        """A quick test, which most of a million rows do not pass: whether the text stands in any turn."""
        return not self.case or any([self.find in message["content"] for message in example.told])

    def turn(self, message: Json) -> Json:
        """A turn with the text replaced."""
        answer = message["role"] == "assistant"
        if self.where != "everywhere" and answer != (self.where == "answers"):
            return message
        content = message["content"]
        pattern = None if self.case else re.compile(re.escape(self.find), re.IGNORECASE)
        times = sum(1 for _ in pattern.finditer(content)) if pattern else content.count(self.find)
        if not times or len(content) + times * (len(self.put) - len(self.find)) > LONGEST_TURN:
            return message
        put = pattern.sub(lambda _: self.put, content) if pattern else content.replace(self.find, self.put)
        return {**message, "content": put}


Step = Annotated[Edit | Delete | Add | Replace, Field(discriminator="kind")]
STEP: TypeAdapter[Edit | Delete | Add | Replace] = TypeAdapter(Step)
Steps = Sequence[Edit | Delete | Add | Replace]


class Counts(Record):
    """What edits did, in rows; and each replacement: what, by what, in how many rows."""

    edited: Count = 0
    added: Count = 0
    deleted: Count = 0
    replaced: list[tuple[str, str, Count]] = []


@dataclass(frozen=True)
class Round:
    """The edits that made a version, and what they came to."""

    steps: Steps
    counts: Counts
