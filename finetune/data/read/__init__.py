"""A file becomes numbered rows, whatever it is called: the content decides, not the ending.

    open.py         read(path), read_text(text): which reader, and the limits every row keeps
    refuse.py       what is not a dataset at all (archives, models, images …), named by its first bytes
    encoding.py     UTF-8, UTF-16, or a guess that is said aloud
    recognise.py    JSONL, JSON or a table, from the first stretch of text
    decode.py       the text of one JSON value → the value, forgiving where nothing is lost
    lines.py        JSONL · elements.py, extent.py  JSON arrays and objects over many lines, streamed
    delimited.py    CSV and TSV · parquet.py, footer.py · sheet.py (.xlsx) · cells.py  what all tables share
    table.py        Row, Note, Table and the limits

Nothing holds the whole file. A row that cannot be used carries its error; a file that cannot be
used raises `DataError`, from `read` itself or, when it breaks half-way, while its rows are taken.

Example:
    >>> next(iter(read(Path("sample_data/voice/train.csv")).rows)).value.keys()
    dict_keys(['prompt', 'completion'])
"""

from finetune.data.read.open import ENDINGS, looking_at, read, read_text
from finetune.data.read.table import MOST_ROWS, ROW_CHARS, Note, Notes, Row, Table

__all__ = ["ENDINGS", "MOST_ROWS", "ROW_CHARS", "Note", "Notes", "Row", "Table", "looking_at", "read", "read_text"]
