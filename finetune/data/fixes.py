"""One-click fixes: each says how many rows it would change, shows one of them before and after, and is recorded.

A row that a fix drops is rejected with a reason, so accepted + rejected = rows still holds.

Example:
    >>> [(fix.code, fix.rows_changed) for fix in fixes(dataset)]
    [('drop_duplicates', 4), ('strip_leading_space', 2)]
    >>> apply(dataset, ["drop_duplicates"]).applied
    ('drop_duplicates',)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from finetune import models
from finetune.data.checks import CODES, Checks
from finetune.data.choices import (
    BETTER,
    CHOICES,
    FIRST,
    GOOD,
    HEADER,
    HEADERS,
    NO_HEADER,
    OF_ROWS,
    SECOND,
    USABLE,
    Chooser,
)
from finetune.data.dataset import Dataset
from finetune.data.disk_list import example_keeper, rejected_keeper
from finetune.data.duplicates import Fingerprints
from finetune.data.example import FIRST_LINES, Example, Problem, Rejected, in_order
from finetune.data.load import load_file, refuse_unusable, with_validation
from finetune.data.mends import folded, stripped, unseparated, with_system
from finetune.data.mix import load_mix
from finetune.data.read import Row, read
from finetune.data.shapes import fields_of, recognise, to_example
from finetune.data.split import fingerprints_of, leaks
from finetune.errors import DataError, ModelError
from finetune.records import Json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TITLES = {
    **CHOICES,
    "strip_leading_space": "Strip leading space from answers",
    "strip_separators": "Remove separators at the end of texts",
    "fill_system_prompt": "Fill in the system prompt where it is missing",
    "fold_system_prompt": "Put the system prompt into the first user turn",
    "drop_duplicates": "Drop rows that repeat an earlier row",
    "remove_leaks": "Remove training rows that also occur in the validation data",
    "drop_too_long": "Drop rows longer than the maximum length",
}
"""All fixes, in the order in which they are applied."""

MENDS = {
    HEADER: "header_missing",
    NO_HEADER: "header_unsure",
    GOOD: "kto_labels",
    USABLE: "preference_pairs",
    BETTER: "preference_pairs",
    FIRST: "speakers_unknown",
    SECOND: "speakers_unknown",
    "strip_leading_space": "leading_space",
    "strip_separators": "legacy_separator",
    "fill_system_prompt": "mixed_system_prompts",
    "drop_duplicates": "duplicate",
    "remove_leaks": "leak",
}
"""The problem that each fix solves; a fix is only measured if the report contains its problem."""


@dataclass(frozen=True)
class Fix:
    """An available fix. `before` and `after` show the first row it changes; `after` is "" if it drops the row."""

    code: str
    title: str
    rows_changed: int
    before: str
    after: str

    def as_dict(self) -> Json:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Length:
    """The maximum length of a row: `most` tokens, as this tokenizer counts them."""

    tokenizer: "PreTrainedTokenizerBase"
    most: int

    def fits(self, example: Example) -> bool:
        """Whether nothing would be cut. A row that the chat template rejects is not too long."""
        try:
            sides = (models.render(one.messages, self.tokenizer, self.most, one.tools) for one in example.sides)
            return all(one.cut == 0 for one in sides)
        except ModelError:
            return True


def fixes(dataset: Dataset, length: Length | None = None, system: str | None = None, fold: bool = False) -> list[Fix]:
    """The fixes that would change something, each measured on the dataset as it is now.

    With a `length`, every row is rendered (about a millisecond per row). `system` is the system
    prompt to fill in; default: the most common one. `fold` says that the chat template cannot show a system turn.
    """
    found = []
    known = {problem.code for problem in dataset.problems}
    for code in TITLES:
        asked_for = {"fill_system_prompt": system, "drop_too_long": length, "fold_system_prompt": fold}
        if not asked_for.get(code) and MENDS.get(code) not in known:
            continue
        if code in HEADERS and dataset.parts:
            continue  # said for a file, not for all of them
        if code in CHOICES and dataset.edits:
            continue  # the file would be read again, without the edits
        if code in CHOICES:
            found += _read_otherwise(dataset, code)
            continue
        changed = 0
        first: tuple[Example, Example | None] | None = None
        for example, after in _changes(dataset, code, length, system):
            if after is not example:
                changed += 1
                first = first or (example, after)
        if first:
            before, after = first
            found.append(Fix(code, TITLES[code], changed, _shown(before), _shown(after) if after else ""))
    return found


def apply(dataset: Dataset, codes: Iterable[str], length: Length | None = None, system: str | None = None) -> Dataset:
    """A copy of the dataset with these fixes applied and a new report.

    Raises:
        DataError: ``fix_unknown`` for an unknown code, or two that exclude each other; ``fix_needs_length`` when the
            length is missing; ``fix_after_edits`` where the file would be read again without its edits;
            ``validation_unusable`` when no row of the validation file would be left.
    """
    wanted = set(codes)
    if unknown := wanted - set(TITLES):
        known = ", ".join(TITLES)
        raise DataError(f"There is no fix {sorted(unknown)[0]!r}.", fix=f"Choose from: {known}.", code="fix_unknown")
    if wanted >= {FIRST, SECOND}:
        what = "Either the first speaker is learned, or the second."
        raise DataError(what, where=SECOND, fix="Choose one of the two.", code="fix_unknown")
    if dataset.edits and (choices := sorted(wanted & set(CHOICES))):
        what = "Rows were edited, and this reads the file again without the edits."
        raise DataError(what, where=choices[0], fix="Open the version before the edits.", code="fix_after_edits")
    if "drop_too_long" in wanted and length is None:
        raise DataError("This fix needs a maximum length.", fix="Choose a model and a length.", code="fix_needs_length")
    for code in TITLES:
        if code in CHOICES and code in wanted:
            dataset = _reread(dataset, code, length, system)
        elif code in wanted:
            dataset = _applied(dataset, code, length, system)
    return dataset


def _read_otherwise(dataset: Dataset, code: str) -> list[Fix]:
    """The fix that reads the file again with one choice more, measured on the rows as they are in the file."""
    changed, before, after = 0, "", ""
    chooser = Chooser((code,))
    for row in _rows_of(dataset, header=False if code == NO_HEADER else None):
        if code not in OF_ROWS:
            shown = (row.text[:1_000], "") if code == HEADER else ("", row.text[:1_000])
            return [Fix(code, TITLES[code], 1, *shown)]
        try:
            example = _as_chosen(row, chooser)
        except DataError:
            continue
        if example is None:
            continue
        changed += 1
        if changed == 1:
            before, after = row.text[:1_000], _shown(example)
    return [Fix(code, TITLES[code], changed, before, after)] if changed else []


def _rows_of(dataset: Dataset, header: bool | None) -> Iterator[Row]:
    """The rows as they are in the file, or in the files of a mix."""
    for part in dataset.parts:
        yield from read(part.path or part.place, part.header).rows
    if not dataset.parts:
        yield from read(dataset.path, header).rows


def _as_chosen(row: Row, chooser: Chooser) -> Example | None:
    """The example that a row becomes by a choice, or None if the choice does not concern it."""
    if row.error:
        raise row.error
    value = chooser.chosen(row.value)
    if value == fields_of(row.value):
        return None
    return to_example(value, recognise(value) or "text", row.line)[0]


def _reread(dataset: Dataset, code: str, length: Length | None, system: str | None) -> Dataset:
    """The files read again with one choice more, and the fixes made so far.

    Raises:
        DataError: of several files, nobody said which one has a header.
    """
    choices = (*(earlier for earlier in dataset.applied if earlier in CHOICES), code)
    kept = [problem for problem in dataset.problems if problem.code == "hub_rows_cut"]
    held = dataset.validation
    if dataset.parts:
        if code in HEADERS:
            raise DataError("Each file has its own header.", where=code, fix="Write 'header: true' beside the file.")
        fresh = load_mix(dataset.parts, choices=choices)
    else:
        fresh = load_file(dataset.path, dataset.mapping, choices)
    fresh = replace(fresh, name=dataset.name, problems=in_order([*fresh.problems, *kept]), applied=choices)
    if held and dataset.split and dataset.split.by == "file":
        fresh = with_validation(fresh, load_file(held.path, dataset.mapping, choices))
        refuse_unusable(fresh)
    for earlier in dataset.applied:
        if earlier not in CHOICES:
            fresh = _applied(fresh, earlier, length, system)
    return fresh


def _applied(dataset: Dataset, code: str, length: Length | None, system: str | None) -> Dataset:
    why = f"Dropped by a fix: {TITLES[code]}."
    fixed = rebuilt(dataset, code, _changes(dataset, code, length, system), why)
    if dataset.validation is None:
        return fixed
    validation = dataset.validation
    if code in ("strip_leading_space", "strip_separators", "fill_system_prompt", "fold_system_prompt"):
        system = system or _default_system(dataset)  # that of the training rows, not of the validation rows
        validation = rebuilt(validation, code, _changes(validation, code, length, system), why)
    joined = rejoined(dataset, fixed, validation)
    refuse_unusable(joined)
    return joined


def rejoined(dataset: Dataset, fixed: Dataset, validation: Dataset) -> Dataset:
    """Changed rows with the validation rows beside them, held out as before."""
    split = dataset.split
    joined = with_validation(fixed, validation)
    return replace(joined, split=replace(split, train=len(fixed.examples)) if split else joined.split)


def rebuilt(dataset: Dataset, code: str, changes: Iterable[tuple[Example, Example | None]], why: str) -> Dataset:
    """Keep, change or reject each row (for the reason `why`), and check what remains."""
    kept, rejected, checks = example_keeper(), rejected_keeper(), Checks()
    for row in dataset.rejected:
        rejected.add(row)
    dropped: list[int] = []
    for example, after in changes:
        if after is not None:
            kept.add(after)
            checks.add(after)
        else:
            dropped.append(example.line)
            rejected.add(Rejected(example.line, code, why, _shown(example)[:500]))
    examples = kept.kept()
    found, prints = checks.finish(examples)
    problems = [problem for problem in dataset.problems if problem.code not in {*CODES, code}] + found
    for earlier in (problem for problem in dataset.problems if problem.code == code):
        dropped = [*earlier.lines, *dropped]
    if count := sum(row.code == code for row in rejected.kept()):
        problems.append(Problem(code, "note", count, tuple(dropped[:FIRST_LINES]), *_dropped(code, count)))
    return replace(
        dataset,
        examples=examples,
        rejected=rejected.kept(),
        problems=in_order(problems),
        prints=prints,
        applied=(*dataset.applied, code),
    )


def _dropped(code: str, count: int) -> tuple[str, str]:
    """What is said of rows that are left out, and how to have them back."""
    if code in TITLES:
        title = TITLES[code]
        said = (
            f"1 row was dropped by a fix: {title}." if count == 1 else f"{count:,} rows were dropped by a fix: {title}."
        )
        return said, "Load the file again to restore them."
    said = "1 row was deleted by hand." if count == 1 else f"{count:,} rows were deleted by hand."
    return said, "Open an earlier version to get them back."


def _changes(
    dataset: Dataset, code: str, length: Length | None, system: str | None
) -> Iterator[tuple[Example, Example | None]]:
    """Each example with its result: itself, a changed copy, or None when it is dropped."""
    change = _change(dataset, code, length, system)
    for place, example in enumerate(dataset.examples):
        yield example, change(place, example)


def _change(
    dataset: Dataset, code: str, length: Length | None, system: str | None
) -> Callable[[int, Example], Example | None]:
    if code == "strip_leading_space":
        return lambda place, example: stripped(example)
    if code == "strip_separators":
        return lambda place, example: unseparated(example)
    if code == "fill_system_prompt":
        prompt = system or _default_system(dataset)
        return lambda place, example: with_system(example, prompt)
    if code == "fold_system_prompt":
        return lambda place, example: folded(example)
    if code == "drop_too_long":
        return lambda place, example: example if length is None or length.fits(example) else None
    gone = _repeated(fingerprints_of(dataset)) if code == "drop_duplicates" else _leaked(dataset)
    return lambda place, example: None if place in gone else example


def _repeated(prints: Fingerprints) -> set[int]:
    return {int(row) for row in prints.repeats()}


def _leaked(dataset: Dataset) -> set[int]:
    return set(leaks(dataset, dataset.validation)) if dataset.validation else set()


def _default_system(dataset: Dataset) -> str | None:
    """The most common system prompt; None if no row has one."""
    if dataset.system:
        return dataset.system
    prompts: dict[str, int] = {}
    for example in dataset.examples:
        if example.system:
            prompts[example.system] = prompts.get(example.system, 0) + 1
    return max(prompts, key=lambda prompt: prompts[prompt]) if prompts else None


def _shown(example: Example) -> str:
    return "\n".join(f"{m['role']}: {m['content']}" for m in _last(example.told))[:1_000]


def _last(messages: Sequence[Json]) -> Sequence[Json]:
    """The system prompt and the last three messages: enough to recognise a row."""
    head = messages[:1] if messages[0]["role"] == "system" and len(messages) > 3 else ()
    return (*head, *messages[-3:])
