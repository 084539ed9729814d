"""The sample datasets in ``sample_data/``, one per kind of task."""

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


DIRTY = Sample("dirty.jsonl", "Deliberately dirty", "Gardening questions with all kinds of problems.")
"""For demonstrating the report, not for training."""


def samples() -> tuple[Sample, ...]:
    """The bundled datasets, starting with the one recommended first.

    Example:
        >>> [sample.name for sample in samples()]
        ['recipes', 'sql', 'tickets', 'voice']
    """
    return (
        Sample("recipes", "Recipes", "A recipe becomes a JSON list of its generic ingredients."),
        Sample("sql", "SQL", "A question about a table becomes one SQL query."),
        Sample("tickets", "Tickets", "A support message gets one of eight labels."),
        Sample("voice", "Voice", "Facts in the voice of an old lighthouse keeper."),
    )
