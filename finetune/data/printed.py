"""The report in lines, as the command line and the library print it."""

from collections.abc import Sequence
from itertools import groupby

from finetune.data.dataset import Dataset
from finetune.records import Json


def summary(name: str, dataset: Dataset, problems: Sequence[Json] | None = None) -> list[str]:
    """The report in lines for people; `problems` are those to tell, by default the dataset's own.

    Example:
        >>> summary("recipes", load("sample_data/recipes"))[0]
        'recipes: chat_jsonl, 225 rows, 0 rejected'
    """
    told = problems if problems is not None else [problem.as_dict() for problem in dataset.problems]
    lines = [f"{name}: {dataset.format or 'unknown format'}, {dataset.rows} rows, {len(dataset.rejected)} rejected"]
    for found in told:
        place = f"({found['count']}x, line {_lines(dataset, found['lines'])})"
        lines.append(f"  {found['severity']}: {found['message']} {place} {found['hint']}")
    return lines


def _lines(dataset: Dataset, lines: list[int]) -> str:
    """Line numbers, of several files after the name of each: ``a.jsonl 3, 5; b.csv 2``."""
    found = [dataset.place(line).rpartition(" ")[::2] for line in lines]
    by_file = [(name, [line for _, line in of]) for name, of in groupby(found, key=lambda one: one[0])]
    return "; ".join(f"{name} {', '.join(numbers)}".strip() for name, numbers in by_file)
