"""JSONL: one value per line."""

from collections.abc import Iterator

from finetune.data.read.decode import RowDecoder
from finetune.data.read.source import Text, physical_lines
from finetune.data.read.table import Row, too_large


def line_rows(text: Text, decoder: RowDecoder) -> Iterator[Row]:
    """A row for each non-blank line, with its line number; several objects on one line share it.

    Example:
        >>> [row.line for row in line_rows(Text(Source("a", pasted=b'{"a": 1}\\n\\n{"a": 2}'), "utf-8"), decoder)]
        [1, 3]
    """
    with text.open() as stream:
        for number, line, whole in physical_lines(stream):
            if not whole:
                yield too_large(number, line)
                continue
            line = line.lstrip("\ufeff")  # files that were joined bring their byte order marks
            if line and not line.isspace():
                row = decoder.row(line.rstrip("\n"), number)
                if row.error is None or row.error.code != "invalid_json":
                    yield row
                else:
                    yield from _several(row, decoder)


def _several(row: Row, decoder: RowDecoder) -> list[Row]:
    """The objects on a line that is not one; the line itself where there are none."""
    rows = decoder.several(row.text, row.line)
    if not rows:
        return [row]
    if len(rows) == 1:
        decoder.notes.once("stray_comma", row.line, "A comma outside the object was ignored.", "Remove it.", "warning")
    else:
        decoder.notes.once(
            "several_on_a_line",
            row.line,
            f"One line contains {len(rows)} objects; each was read as a row.",
            "Put each object on its own line.",
        )
    return rows
