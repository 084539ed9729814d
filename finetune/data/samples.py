"""The sample datasets in ``sample_data/``, one per kind of task."""

from dataclasses import dataclass
from pathlib import Path

NAME = "sample_data"
INSTALLED = Path(__file__).resolve().parents[1] / NAME
FOLDER = INSTALLED if INSTALLED.is_dir() else INSTALLED.parents[1] / NAME
"""Beside the package, or in it where that is installed."""


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


def or_sample(path: Path) -> Path:
    """The path itself, unless nothing is there and it names a sample: that comes with the package.

    Example:
        >>> or_sample(Path("sample_data/recipes")).is_dir(), or_sample(Path("my.csv"))
        (True, PosixPath('my.csv'))
    """
    sample = path.parts[:1] == (NAME,) and not path.exists()
    return FOLDER.joinpath(*path.parts[1:]) if sample else path


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
