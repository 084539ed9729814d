"""A first suggestion of which columns are the prompt and which the answer: by their names, and by what they hold.

A name says it in some twenty languages; a column of dates, numbers, addresses or running numbers is no answer,
whatever its name and wherever it stands.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date, time
from typing import Any

from finetune.data.mapping import Mapping
from finetune.data.read.header import is_class
from finetune.data.shapes import recognise
from finetune.data.shapes.columns import ANSWERS, LABELS
from finetune.data.shapes.content import is_missing
from finetune.data.shapes.not_sft import not_sft
from finetune.data.shapes.pairs import marker_in

GUESSED_FROM = 50
"""Rows that a guess is based on."""

MOSTLY = 0.9
"""Share of a column's cells from which it is a column of dates, say: a few are always written otherwise."""

ANSWER_WORDS = (
    *ANSWERS,
    *LABELS,
    *("assistant", "bot", "reply", "summary", "translation", "sql", "code", "result", "recipe", "solution"),
    *("antwort", "antworten", "lösung", "loesung", "ergebnis", "zusammenfassung", "übersetzung", "zubereitung"),
    *("respuesta", "solución", "resultado", "resumen", "traducción", "salida", "etiqueta", "categoría"),
    *("réponse", "résultat", "résumé", "traduction", "sortie", "étiquette", "catégorie", "kategorie", "kategoria"),
    *("risposta", "soluzione", "resposta", "solução", "antwoord", "oplossing", "svar", "vastaus", "odpowiedź"),
    *("odpověď", "ответ", "решение", "відповідь", "cevap", "yanıt", "απάντηση", "תשובה", "jawaban", "câu trả lời"),
    *("جواب", "إجابة", "الإجابة", "پاسخ", "उत्तर", "जवाब", "సమాధానం", "జవాబు", "பதில்", "উত্তর"),
    *("答案", "回答", "答え", "解答", "답변", "정답", "คำตอบ"),
)
SYSTEM_WORDS = ("system", "system_prompt", "persona")
METADATA = (
    *("id", "idx", "index", "uuid", "url", "source", "date", "created_at", "timestamp", "split", "author", "license"),
    *("nr", "no", "nummer", "number", "datum", "quelle", "autor", "autorin", "lizenz", "fecha", "fuente", "auteur"),
    *("تاریخ", "తేదీ", "तारीख", "дата", "日付", "日期", "날짜"),
    *("link", "links", "href", "uri", "path", "file", "filename", "hash", "time", "datetime", "created", "updated"),
)
"""Columns that are rarely part of a prompt."""

METADATA_ENDS = re.compile(r"_(ids?|urls?|uri|links?|at|date|time|timestamp|uuid|hash|index|idx)$|^unnamed:?_?\d*$")
UNNAMED = re.compile(r"column_\d+|_?c?\d+")
ID_ENDS = re.compile(r"[a-z]I[dD]$|^ID$")

NUMBER = re.compile(r"[-+]?[\d\s.,']*\d\s*[%€$£¥₹]?|[€$£¥₹]\s*[\d.,']*\d")
DAY = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}\.?([T\s,]+\d{1,2}:\d{2}\S*.{0,6})?|\d{4}年\d{1,2}月\d{1,2}日")
HOUR = re.compile(r"\d{1,2}[:.]\d{2}([:.]\d{2})?\s*\w{0,3}")
SPELLED = re.compile(r"(?=.*\b\d{1,2}(st|nd|rd|th)?\b)(?=.*\b(19|20)\d{2}\b)(?=.{6,40}$)\S+(\s+\S+){1,5}")
"""A day with its month in words, in whatever language: 3. März 2024, March 3rd, 2024, 3 de marzo de 2024."""

EPOCH = re.compile(r"1\d{9}(\.\d+)?|1\d{12}")
ADDRESS = re.compile(
    r"(https?://|www\.)\S+|[^\s@]+@[^\s@]+\.\w+|\S+\.(png|jpe?g|gif|wav|mp[34]|pdf|txt|html?|json|csv)"
)
LONG_NUMBER = re.compile(r"\d{6,}")
MARK = re.compile(r"[^\W\d_]{0,6}[-_#/.]?\d[\d-]{2,}|[0-9a-fA-F]{8}[0-9a-fA-F-]*")
"""A ticket's number, an order's, a hash."""

OFTEN, SOMETIMES = 0.2, 2
"""Answers that must come again, as a share or (in a column of numbers) a count, to say that a column tells them."""

ONE = re.compile(r"\{([^{}]+)\}")
"""A template that is a column and nothing else."""

LONGEST_TELLING, FEW_WORDS, CONSTANT_ROWS = 60, 3, 10


def guess_mapping(columns: Iterable[str], rows: Iterable[Any]) -> Mapping | None:
    """A first suggestion for the mapping form, or None when there is nothing to map.

    Example:
        >>> guess_mapping(["title", "recipe"], [{"title": "Soup", "recipe": "Boil."}])
        Mapping(user='{title}', assistant='{recipe}', system=None, split=None)
    """
    sample = [row for row, _ in zip(rows, range(GUESSED_FROM), strict=False) if isinstance(row, dict)]
    names = [name for name in map(str, columns) if any(not is_missing(row.get(name)) for row in sample)]
    if not names or any(_is_not_sft(row) for row in sample[:1]):
        return None
    words = [name for name in names if not _beside_the_point(name, sample)] or names
    if len(words) == 1:
        return _guess_split(words[0], sample)
    system = next((name for name in words if _plain(name) in SYSTEM_WORDS), None)
    candidates = [name for name in words if name != system]
    answer = _answer(candidates, sample)
    besides = [name for name in candidates if name != answer]
    asked = [name for name in besides if not _tells(name, answer, sample) and not _constant(name, sample)] or besides
    if not asked:
        return Mapping(assistant=f"{{{answer}}}", system=f"{{{system}}}" if system else None)
    one = asked[0] if len(asked) == 1 else None
    user = f"{{{one}}}" if one else "\n\n".join(f"{_title(name)}: {{{name}}}" for name in asked)
    return Mapping(user=user, assistant=f"{{{answer}}}", system=f"{{{system}}}" if system else None)


def clear_mapping(columns: Iterable[str], rows: Iterable[Any]) -> Mapping | None:
    """The guess, if nothing else could be meant: one column with the prompt, in words, and one with the answer, which
    is the only one that is named so or, where none is, holds a few values again and again beside texts that differ.

    Example:
        >>> clear_mapping(["mail", "reply"], [{"mail": "Where is it?", "reply": "On its way."}])
        Mapping(user='{mail}', assistant='{reply}', system=None, split=None)
        >>> clear_mapping(["english", "german"], [{"english": "Good day", "german": "Guten Tag"}]) is None
        True
    """
    sample = [row for row, _ in zip(rows, range(GUESSED_FROM), strict=False) if isinstance(row, dict)]
    guess = guess_mapping(columns, sample)
    if (
        not guess
        or guess.split
        or not (ask := ONE.fullmatch(guess.user))
        or not (say := ONE.fullmatch(guess.assistant))
    ):
        return None
    asked, said = (_cells(name[1], sample) for name in (ask, say))
    if _all(asked, NUMBER) or len(set(asked)) * 2 < len(asked):
        return None
    named = [name for name in (ask[1], say[1]) if _is_answer(name)]
    if named:
        return guess if named == [say[1]] else None
    return guess if len(said) >= CONSTANT_ROWS and is_class(said) and not is_class(asked) else None


def _is_answer(name: str) -> bool:
    known = set(map(_plain, ANSWER_WORDS))
    return _plain(name) in known or _plain(name).split("_")[-1] in known


def _answer(candidates: Sequence[str], sample: Sequence[dict]) -> str:
    """By its name; else the last column of words, and only where there is just one of those the last of all."""
    known = [_plain(word) for word in ANSWER_WORDS]
    named = next((name for word in known for name in candidates if _plain(name) == word), None)
    named = named or next((name for name in candidates if _plain(name).split("_")[-1] in known), None)
    if named:
        return _in_words(named, candidates, sample)
    texts = [name for name in candidates if not _all(_cells(name, sample), NUMBER)]
    return texts[-1] if len(texts) > 1 else candidates[-1]


def _in_words(answer: str, candidates: Sequence[str], sample: Sequence[dict]) -> str:
    """The column with the names of the answers, where the answers are numbers."""
    if not _all(_cells(answer, sample), NUMBER):
        return answer
    words = (name for name in candidates if name != answer and not _all(_cells(name, sample), NUMBER))
    return next((name for name in words if _tells(name, answer, sample)), answer)


def _tells(column: str, answer: str, sample: Sequence[dict]) -> bool:
    """Whether a column gives the answer away: each of its values goes with one answer, and each answer with one value,
    though the answers come again and again."""
    both = [(_text(row.get(column)), _text(row.get(answer))) for row in sample]
    both = [pair for pair in both if all(pair)]
    said, answers = {one for one, _ in both}, {one for _, one in both}
    if not len(set(both)) == len(said) == len(answers) > 1 or any(len(one) > LONGEST_TELLING for one in said):
        return False
    again = len(both) - len(answers)
    return again >= (SOMETIMES if _all([*said], NUMBER) or _all([*answers], NUMBER) else OFTEN * len(both))


def _constant(column: str, sample: Sequence[dict]) -> bool:
    """Whether a column says the same few words in every row."""
    cells = _cells(column, sample)
    return len(cells) >= CONSTANT_ROWS and len(set(cells)) == 1 and len(cells[0].split()) <= FEW_WORDS


def _beside_the_point(name: str, sample: Sequence[dict]) -> bool:
    """Whether a column only says when, where from or which one: no prompt, and no answer."""
    plain = _plain(name)
    if plain in map(_plain, METADATA):
        return True
    if plain in map(_plain, ANSWER_WORDS):
        return False
    if METADATA_ENDS.search(plain) or ID_ENDS.search(name.strip()):
        return not any(" " in cell for cell in _cells(name, sample)) or plain.endswith(("_at", "_date", "_time"))
    cells = _cells(name, sample)
    if any(_all(cells, kind) for kind in (DAY, HOUR, SPELLED, EPOCH, ADDRESS)):
        return True
    different = len(set(cells)) == len(cells) > 2
    if UNNAMED.fullmatch(plain) and different and all(cell.isdecimal() for cell in cells):
        return True
    marks = _all(cells, LONG_NUMBER) or (_all(cells, MARK) and not _all(cells, NUMBER))
    return different and (_counts(cells) or marks)


def _cells(name: str, sample: Sequence[dict]) -> list[str]:
    found = [row.get(name) for row in sample]
    return [_text(cell) for cell in found if not is_missing(cell)]


def _text(cell: Any) -> str:
    return cell.isoformat() if isinstance(cell, date | time) else str(cell).strip()


def _all(cells: Sequence[str], kind: re.Pattern[str]) -> bool:
    return sum(bool(kind.fullmatch(cell)) for cell in cells) >= MOSTLY * len(cells) > 0


def _counts(cells: Sequence[str]) -> bool:
    """Whether they are running numbers: 1, 2, 3."""
    numbers = [int(cell) for cell in cells if cell.isdecimal() and len(cell) < 16]
    return len(numbers) == len(cells) and all(b - a == 1 for a, b in zip(numbers, numbers[1:], strict=False))


def _guess_split(column: str, sample: list[dict]) -> Mapping:
    markers = {marker_in(text) for row in sample if isinstance(text := row.get(column), str)}
    marker = markers.pop() if len(markers) == 1 else None
    return Mapping(assistant=f"{{{column}}}", split=marker)


def _is_not_sft(row: dict) -> bool:
    """Whether no mapping helps: rows for another kind of training, or with a mark that says which answers are good."""
    fields = {_plain(str(key)): value for key, value in row.items()}
    answered = recognise(row) not in (None, "text", "classification")
    return not_sft(fields, rated=answered) is not None


def _plain(name: str) -> str:
    """A name without what differs from file to file: case, accents, spaces.

    Example:
        >>> _plain("Solución ")
        'solucion'
    """
    letters = unicodedata.normalize("NFKD", name.strip().casefold())
    kept = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return kept.replace(" ", "_").replace("-", "_")


def _title(name: str) -> str:
    words = name.strip().replace("_", " ")
    return words[:1].upper() + words[1:]
