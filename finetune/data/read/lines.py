"""JSONL: one value a line."""

from collections.abc import Iterator

from finetune.data.read.decode import RowDecoder
from finetune.data.read.source import Text, physical_lines
from finetune.data.read.table import Row, too_large


def line_rows(text: Text, decoder: RowDecoder) -> Iterator[Row]:
    """Each line that is not blank, under its physical number; several objects on one line share it.

    Example:
        >>> [row.line for row in line_rows(Text(Source("a", pasted=b'{"a": 1}\\n\\n{"a": 2}'), "utf-8"), decoder)]
        [1, 3]
    """
    with text.open() as stream:
        for number, line, whole in physical_lines(stream):
            if not whole:
                yield too_large(number, line)
            elif not line.isspace():
                yield from _line(line.rstrip("\n"), number, decoder)


def _line(line: str, number: int, decoder: RowDecoder) -> list[Row]:
    row = decoder.row(line, number)
    if row.error is None or row.error.code != "invalid_json":
        return [row]
    rows = decoder.several(line, number)
    if not rows:
        return [row]
    if len(rows) == 1:
        decoder.notes.once(
            "stray_comma", number, "A comma stands outside the object; it was passed over.", "Remove it.", "warning"
        )
    else:
        decoder.notes.once(
            "several_on_a_line",
            number,
            f"{len(rows)} objects stand on one line; each was read as a row.",
            "Put each on a line of its own.",
        )
    return rows
