"""Mapping by hand: which columns of an unknown format are the prompt and which the answer.

Each part is a column name, or a template with column names in braces:

    >>> mapping = Mapping(user="Title: {title}\\n\\nIngredients: {ingredients}", assistant="recipe")
    >>> mapping.example({"title": "Soup", "ingredients": "leek", "recipe": "Boil."}, line=1)[0].answer
    'Boil.'

A single text column can be split at a marker: the text before it is the prompt, the text after it the answer.

    >>> Mapping(assistant="text", split="### Response:")
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from finetune.data.example import Example
from finetune.data.read import ROW_CHARS
from finetune.data.shapes import Remark, Remarks, finished
from finetune.data.shapes.content import bad, is_missing, listed, text_of
from finetune.errors import DataError
from finetune.records import Json

NAMED = re.compile(r"\{([^{}\"'\n:]+)\}")
"""A column in a template. JSON in a template is left alone: its braces contain quotes."""

TEMPLATE_CHARS = 10_000
"""Longest template."""


@dataclass(frozen=True)
class Mapping:
    """Which columns make up which part of an example. All fields are text or None: the mapping is stored as JSON."""

    user: str = ""
    assistant: str = ""
    system: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        """Reject a template that could repeat a column thousands of times in every row."""
        longest = max(len(text or "") for text in (self.user, self.assistant, self.system, self.split))
        if longest > TEMPLATE_CHARS:
            raise _invalid(
                f"A template may have at most {TEMPLATE_CHARS:,} characters; this one has {longest:,}.",
                "Shorten it.",
            )

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns that it may use: those that its templates name, and those that they are."""
        parts = [part for part in (self.user, self.assistant, self.system) if part]
        return frozenset((*parts, *(name for part in parts for name in NAMED.findall(part))))

    def as_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Json) -> "Mapping":
        """Back from JSON.

        Raises:
            DataError: ``mapping_invalid``, for an unknown key or a value that is not text.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) - known:
            raise _invalid("A mapping has an unknown key.", "Use only: " + ", ".join(sorted(known)) + ".")
        if any(not isinstance(value, str | None) for value in values.values()):
            raise _invalid("Every part of a mapping must be text.", "Put the value in quotes.")
        return cls(**values)

    def check(self, columns: Sequence[str], where: str = "") -> None:
        """Raise `DataError` (``mapping_invalid``) when a column does not exist, suggesting the closest name.

        `where` is the file with these columns: of a training file and a validation file, one may lack a column.
        """
        if not self.assistant.strip():
            raise _invalid("The mapping has no answer.", "Choose the column with the answer.", where)
        if self.assistant not in columns and not NAMED.search(self.assistant):
            known = f"The columns are: {listed(columns, 200)}."
            raise _invalid(f"There is no column {self.assistant[:60]!r}.", known, where)
        for template in (self.user, self.assistant, self.system or ""):
            for name in NAMED.findall(template) if template not in columns else []:
                if name not in columns:
                    near = get_close_matches(name, columns, n=1)
                    advice = f"Did you mean {near[0]!r}?" if near else f"The columns are: {listed(columns, 200)}."
                    raise _invalid(f"There is no column {name!r}.", advice, where)

    def example(self, value: Any, line: int) -> tuple[Example, list[Remark]]:
        """Convert one row.

        Raises:
            DataError: with the row's problem code.
        """
        if not isinstance(value, dict):
            raise bad("data_type", "The row is not a JSON object.", "Write each row as {…}.")
        row = {str(key): item for key, item in value.items()}
        remarks = Remarks()
        remarks.unused(name for name in row if name not in self.columns and not is_missing(row[name]))
        answer = self._filled(self.assistant, row, "answer", remarks)
        user = self._filled(self.user, row, "prompt", remarks) if self.user.strip() else ""
        if self.split:
            if self.split not in answer:
                raise bad(
                    "marker_missing", f"The marker {self.split!r} is not in the text.", "Add it, or drop the row."
                )
            before, answer = answer.split(self.split, 1)
            user = "\n\n".join(part.strip() for part in (user, before) if part.strip())
            answer = answer.strip()
            text_of(answer, "answer", remarks)
            text_of(user, "prompt", remarks)
        parts = [("user", user), ("assistant", answer)] if user else [("assistant", answer)]
        if self.system and self.system.strip():
            parts.insert(0, ("system", self._filled(self.system, row, "system prompt", remarks)))
        return finished(tuple({"role": role, "content": text} for role, text in parts), line, remarks)

    def _filled(self, template: str, row: Json, where: str, remarks: Remarks) -> str:
        """One part, filled in for one row. Some of its columns may be empty, but not all of them."""
        if template in row:
            return text_of(row[template], where, remarks)
        names = NAMED.findall(template)
        if names and all(is_missing(row.get(name)) for name in names):
            raise bad(
                "missing_content",
                f"The {where} is empty, because all its columns are.",
                "Fill one in, or drop the row.",
            )
        cells = {name: self._cell(row.get(name), where, remarks) for name in names}
        if len(template) + sum(len(cells[name]) for name in names) > ROW_CHARS:
            what = f"The {where} would be longer than {ROW_CHARS // 1_000_000} million characters."
            raise bad("row_too_large", what, "Use fewer long columns in the template.")
        return NAMED.sub(lambda found: cells[found[1]], template)

    @staticmethod
    def _cell(value: Any, where: str, remarks: Remarks) -> str:
        return "" if is_missing(value) else text_of(value, where, remarks)


def _invalid(what: str, fix: str, where: str = "") -> DataError:
    return DataError(what, where=where, fix=fix, code="mapping_invalid")
