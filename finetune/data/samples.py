"""The datasets that come with the app, in ``sample_data/``: one per kind of task."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "sample_data"


@dataclass(frozen=True)
class Sample:
    """A bundled dataset: `name` is its folder, `teaches` one sentence for the page."""

    name: str
    teaches: str

    @property
    def path(self) -> Path:
        return FOLDER / self.name


def samples() -> tuple[Sample, ...]:
    """The bundled datasets, the one to start with first.

    Example:
        >>> [sample.name for sample in samples()]
        ['recipes', 'sql', 'tickets', 'voice']
    """
    return (
        Sample("recipes", "A recipe becomes a JSON list of its generic ingredients."),
        Sample("sql", "A question about a table becomes one SQL query."),
        Sample("tickets", "A support message gets one of eight labels."),
        Sample("voice", "Facts, told by an old lighthouse keeper."),
    )
