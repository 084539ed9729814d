"""Read a file as numbered rows. Its content decides how, not its extension.

    open.py         read(path), read_text(text): choose the reader, apply the limits
    refuse.py       files that are not datasets (archives, models, images …), recognised by their first bytes
    encoding.py     UTF-8, UTF-16, or a guess that is reported
    recognise.py    JSONL, JSON or a table, from the beginning of the text
    decode.py       the text of one JSON value → the value, lenient where nothing is lost
    lines.py        JSONL · elements.py, extent.py  JSON arrays and multi-line objects, streamed
    delimited.py    CSV and TSV · parquet.py, footer.py · sheet.py (.xlsx) · header.py, cells.py  shared by tables
    table.py        Row, Note, Table and the limits

No reader holds the whole file in memory. A row that cannot be used carries its error; a file that cannot be
used raises `DataError`, either from `read` or, when it turns out to be damaged, while its rows are iterated.

Example:
    >>> next(iter(read(Path("sample_data/voice/train.csv")).rows)).value.keys()
    dict_keys(['prompt', 'completion'])
"""

from finetune.data.read.open import ENDINGS, path_errors, read, read_text
from finetune.data.read.table import MOST_ROWS, ROW_CHARS, Note, Notes, Row, Table

__all__ = ["ENDINGS", "MOST_ROWS", "ROW_CHARS", "Note", "Notes", "Row", "Table", "path_errors", "read", "read_text"]
