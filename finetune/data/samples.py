"""The datasets that come with the app, in ``sample_data/``: one per kind of task."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "sample_data"


@dataclass(frozen=True)
class Sample:
    """A bundled dataset: `name` is its folder or file, `title` and `teaches` are for the page."""

    name: str
    title: str
    teaches: str

    @property
    def path(self) -> Path:
        return FOLDER / self.name


DIRTY = Sample("dirty.jsonl", "Deliberately dirty", "Garden questions with every problem a file can have.")
"""Not to be trained on: it shows what the report can do."""


def samples() -> tuple[Sample, ...]:
    """The bundled datasets, the one to start with first.

    Example:
        >>> [sample.name for sample in samples()]
        ['recipes', 'sql', 'tickets', 'voice']
    """
    return (
        Sample("recipes", "Recipes", "A recipe becomes a JSON list of its generic ingredients."),
        Sample("sql", "SQL", "A question about a table becomes one SQL query."),
        Sample("tickets", "Tickets", "A support message gets one of eight labels."),
        Sample("voice", "Voice", "Facts, told by an old lighthouse keeper."),
    )
