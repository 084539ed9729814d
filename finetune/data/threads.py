"""Tables with a message or a turn in each row: the rows of one conversation are joined before they are converted.

Rows of one conversation, in three such tables:

    {"conversation_id": 7, "role": "user", "content": "2+2?"}      {"conversation_id": 7, "role": "assistant", …}
    {"conversation_id": 7, "turn": 1, "prompt": "2+2?", "answer": "4"}     {"conversation_id": 7, "turn": 2, …}
    {"id": "a", "prompt": "2+2?", "answer": "4"}      {"id": "b", "parent_id": "a", "prompt": "And 3+3?", …}

Taken row by row, a turn would be trained without what was said before it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any

from finetune.data.read import ROW_CHARS, Notes, Row
from finetune.data.shapes import fields_of, recognise, turns_of
from finetune.data.shapes.chat import SPEAKERS
from finetune.data.shapes.columns import is_number, names_used
from finetune.data.shapes.content import Remarks, bad, is_missing, unused
from finetune.data.shapes.not_sft import TRAINED, mark_of
from finetune.data.shapes.pairs import messages_of
from finetune.errors import DataError
from finetune.records import Json

PEEKED = 50
"""Rows by which such a table is recognised."""

THREADS = tuple(
    name + ending
    for name in ("conversation", "conv", "dialogue", "dialog", "thread", "session", "chat")
    for ending in ("_id", "id", "_uuid", "_no", "_number")
)
MESSAGES = ("id", "message_id", "msg_id", "messageid", "uuid", "turn_id", "node_id", "post_id", "comment_id")
PARENTS = (
    "parent_id",
    "parent",
    "parentid",
    "parent_message_id",
    "reply_to",
    "in_reply_to",
    "previous_id",
    "parent_uuid",
)
ORDERS = (
    *("turn", "turn_index", "turn_number", "turn_no", "turn_id", "turn_idx", "message_index", "index", "order", "seq"),
    *("sequence", "position", "step", "timestamp", "created_at", "time", "date"),
)
ROLES = ("role", "speaker", "from", "author", "sender")
SAID = ("content", "text", "message", "value", "utterance", "body")
ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
DAY = re.compile(r"(\d\d?)[-/.](\d\d?)[-/.](\d{4}|(?<!-)\d\d)\b")
"""1/10/2024 or 1.10.24; not 24-10-01, which may begin with the year."""
TIME = re.compile(
    rf"(?:(?:(\d{{4}})[-/.](\d\d?)[-/.](\d\d?)|{DAY.pattern})(?:,?\s|$))?"
    r"(?:(\d\d?):(\d\d)(?::(\d\d(?:\.\d+)?))?(?:\s?([ap])\.?m\.?)?)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Threading:
    """The columns by which rows belong together: a conversation's id, or a message's id and that of its parent; and a
    message's role and text, unless each row is a turn of both sides."""

    thread: str | None
    message: str | None
    parent: str | None
    order: str | None
    role: str | None
    said: str | None

    @property
    def key(self) -> str:
        return self.message or self.thread or ""

    @property
    def columns(self) -> set[str]:
        return {name for name in self.__dict__.values() if name}


def joined(rows: Iterable[Row], notes: Notes, see: Callable[[Row], object]) -> Iterator[Row]:
    """The rows, or the conversations that they are parts of. `see` is called with each row as it is in the file.

    Example:
        >>> said = ({"thread_id": 1, "role": "user", "text": "Hi"}, {"thread_id": 1, "role": "bot", "text": "Hello"})
        >>> [len(row.value["conversations"]) for row in joined([Row(1, one, "") for one in said], Notes(), print)]
        [2]
    """
    source = iter(rows)
    first = list(islice(source, PEEKED))
    threading, whole = threading_of(first), chain(first, source)
    if threading:
        yield from _Threads(threading, notes).join(whole, see)
        return
    for row in whole:
        see(row)
        yield row


def threading_of(rows: Iterable[Row]) -> Threading | None:
    """How the rows of a table belong together; None if each is an example of its own."""
    found = [
        fields for row in rows if row.error is None and isinstance(row.value, dict) and (fields := fields_of(row.value))
    ]
    names = {name for fields in found for name in fields}
    message, parent, thread = (_first(names, known) for known in (MESSAGES, PARENTS, THREADS))
    if not (message and parent) and not thread or any(turns_of(fields) for fields in found):
        return None
    role, said = _first(names, ROLES), _first(names, SAID)
    spoken = sum(str(fields.get(role)).strip().lower() in SPEAKERS for fields in found) if role and said else 0
    if not said or (2 * spoken < len(found) and not (role and thread and _between_two(found, thread, role))):
        role = said = None
    if not role and recognise(found[0]) in (None, "chat", "sharegpt", "preference", "text", "classification"):
        return None
    ids = {_key(fields.get(message)) for fields in found} if message else set()
    if not parent or not message or not (role or any(_key(fields.get(parent)) in ids for fields in found)):
        parent = None
    if not parent and not (thread and (role or _repeats(found, thread))):
        return None
    order = _first(names - {thread, message}, ORDERS)
    return Threading(None if parent else thread, message if parent else None, parent, order, role, said)


def _between_two(rows: list[Json], thread: str, role: str) -> bool:
    """Whether the conversations are between two people with names, but for a few."""
    names: dict[str, set[str]] = {}
    for fields in rows:
        names.setdefault(_key(fields.get(thread)), set()).add(_key(fields.get(role)))
    return 2 * sum(len(found) == 2 for found in names.values()) > len(names)


def _repeats(rows: list[Json], column: str) -> bool:
    return len({_key(fields.get(column)) for fields in rows}) < len(rows)


def _first(names: set[str], known: tuple[str, ...]) -> str | None:
    return next((name for name in known if name in names), None)


def _key(value: Any) -> str:
    """An id as text; pandas writes whole numbers as 3.0 where some are missing."""
    return "" if is_missing(value) else str(value).strip().removesuffix(".0")


@dataclass
class _Node:
    """A row of a conversation; in a tree with the id of its parent, and whether anything follows it."""

    row: Row
    order: Any
    parent: str
    messages: list[Json]
    followed: bool = False
    learned: bool = False


@dataclass
class _Threads:
    """The rows of a table, kept until all of a conversation are known: they need not follow each other."""

    by: Threading
    notes: Notes
    _nodes: dict[str, list[_Node]] = field(default_factory=dict)
    _unused: dict[str, None] = field(default_factory=dict)
    _rows: int = 0

    def join(self, rows: Iterable[Row], see: Callable[[Row], object]) -> Iterator[Row]:
        """First the rows that cannot be used, then the conversations, in the order of their first rows."""
        for row in rows:
            see(row)
            try:
                self._take(row)
            except DataError as error:
                yield Row(row.line, row.value, row.text, error)
        count = 0
        for conversation in self._paths() if self.by.parent else self._threads():
            count += conversation.error is None
            yield conversation
        column = self.by.parent or self.by.thread
        found = f"{count:,} conversation{'s' if count != 1 else ''}"
        message = f"{self._rows:,} rows were joined into {found} by the column {column!r}."
        self.notes.once("rows_joined", 1, message, "Check a few of them in the preview.")
        if self._unused:
            self.notes.once("unused_columns", 1, *unused(self._unused))

    def _take(self, row: Row) -> None:
        if row.error:
            raise row.error
        fields = fields_of(row.value) if isinstance(row.value, dict) else None
        if fields is None:
            raise bad("data_type", "The row is not a JSON object.", "Write each row as {…}.")
        key = _key(fields.get(self.by.key))
        if not key:
            raise bad("thread_unknown", f"The row has no {self.by.key!r}.", "Fill it in, or drop the row.")
        if self.by.parent and key in self._nodes:
            raise bad("thread_unknown", f"Two rows have the same {self.by.key!r}.", "Give each an id of its own.")
        messages = self._messages(fields)
        parent = _key(fields.get(self.by.parent)) if self.by.parent else ""
        order = fields.get(self.by.order) if self.by.order else None
        self._nodes.setdefault(key, []).append(_Node(row, order, parent, messages))
        self._rows += 1

    def _messages(self, fields: Json) -> list[Json]:
        used, messages = self.by.columns, []
        if self.by.role and self.by.said:
            role = fields.get(self.by.role)
            if isinstance(role, str) and role.strip().lower() in SPEAKERS:
                role = role.strip().lower()
            messages = [{"from": role, "value": fields.get(self.by.said)}]
        else:
            shape = recognise(fields)
            if shape is None or shape in ("chat", "sharegpt"):
                raise bad("missing_content", "The row has no question or no answer.", "Fill it in, or drop the row.")
            used = used | names_used(fields, shape)
            messages = [{"from": m["role"], "value": m["content"]} for m in messages_of(fields, shape, Remarks())]
        marks = {name: mark for name in TRAINED if (mark := mark_of(fields.get(name))) is not None}
        used, messages = used | marks.keys(), [message | marks for message in messages]
        self._unused |= dict.fromkeys(
            name for name, cell in fields.items() if name not in used and not is_missing(cell)
        )
        return messages

    def _threads(self) -> Iterator[Row]:
        readings = _readings(node.order for nodes in self._nodes.values() for node in nodes) if self.by.order else []
        for nodes in self._nodes.values():
            ordered = _in_order(nodes, readings)
            if ordered is None:
                message = (
                    f"The order column {self.by.order!r} could not be read as times or numbers; "
                    "rows were taken as they stand in the file."
                )
                hint = "Number the messages of each conversation, or write times as 2024-10-31 14:05, in every row."
                self.notes.once("order_unread", nodes[0].row.line, message, hint, "warning")
            yield _row(nodes[0].row, [message for node in ordered or nodes for message in node.messages])

    def _paths(self) -> Iterator[Row]:
        """From each message that nothing follows back to the first. What several share is learned in one of them."""
        nodes = {key: only for key, (only,) in self._nodes.items()}
        for node in nodes.values():
            if above := nodes.get(node.parent):
                above.followed = True
            elif node.parent:
                message = "Some rows follow a row that is not in the file; their conversations begin with them."
                self.notes.once("parent_missing", node.row.line, message, "Add the missing rows.", "warning")
        seen: set[int] = set()
        for leaf in [node for node in nodes.values() if not node.followed]:
            path, passed = [leaf], {leaf.row.line}
            while (above := nodes.get(path[-1].parent)) and above.row.line not in passed:
                path.append(above)
                passed.add(above.row.line)
            seen |= passed
            yield _row(leaf.row, [message for node in reversed(path) for message in _once(node)])
        for node in nodes.values():
            if node.row.line not in seen:
                what, fix = "The row's chain of parents leads back to itself.", "Correct the ids, or drop the row."
                yield Row(node.row.line, node.row.value, node.row.text, bad("thread_unknown", what, fix))


def _in_order(nodes: list[_Node], readings: list[bool]) -> list[_Node] | None:
    """By the column that says so, if it is numbers or times; as in the file, if it says nothing; else None."""
    if len({_key(node.order) for node in nodes}) < 2:
        return nodes
    if all(is_number(node.order) for node in nodes):
        return sorted(nodes, key=lambda node: float(node.order))
    found = [_by_time(nodes, day_first) for day_first in readings]
    if found and found[0] and all(other == found[0] for other in found):
        return [nodes[place] for place in found[0]]
    if all(isinstance(node.order, str) and ISO_DAY.match(node.order) for node in nodes):
        return sorted(nodes, key=lambda node: node.order)
    return None


def _readings(orders: Iterable[Any]) -> list[bool]:
    """Whether the day comes first in dates such as 1/10/2024, by all those of a file: True, False, both or neither."""
    days = [found for order in orders if isinstance(order, str) and (found := DAY.match(order.strip()))]
    return [day_first for day_first in (True, False) if all(int(found[1 + day_first]) <= 12 for found in days)]


def _by_time(nodes: list[_Node], day_first: bool) -> list[int] | None:
    """The places of the rows in the order of their times; None if one cannot be read, or midnight may have passed.

    Of a file that begins with the newest, those with the same time are turned round, too.
    """
    times = [_time(node.order, day_first) for node in nodes]
    known = [time for time in times if time]
    if len(known) < len(times):
        return None
    if min(known).year == 1 and max(known) - min(known) > timedelta(hours=12):
        return None
    places = range(len(known))
    return sorted(places if known[0] < known[-1] else reversed(places), key=known.__getitem__)


def _time(value: Any, day_first: bool) -> datetime | None:
    """A time, of the year 1 where it has no date; None if it is none.

    Example:
        >>> _time("1/10/2024, 1:05 pm", day_first=True), _time("10:02", day_first=True)
        (datetime.datetime(2024, 10, 1, 13, 5), datetime.datetime(1, 1, 1, 10, 2))
    """
    found = TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found or not found[0]:
        return None
    day, month, year = found.group(4, 5, 6) if day_first else found.group(5, 4, 6)
    if found[1]:
        year, month, day = found.group(1, 2, 3)
    hour = int(found[7] or 0)
    if half := found[10]:
        hour = hour % 12 + 12 * (half in "pP")
    try:
        minute = datetime(int(year or 1), int(month or 1), int(day or 1), hour, int(found[8] or 0))
        return minute + timedelta(seconds=float(found[9] or 0))
    except (ValueError, OverflowError):
        return None


def _once(node: _Node) -> list[Json]:
    """The messages of a row; those that another conversation has learned already are only read."""
    learned, node.learned = node.learned, True
    return [{**message, "weight": 0} if learned else message for message in node.messages]


def _row(first: Row, messages: list[Json]) -> Row:
    """A conversation as a row. The system prompt that each row of it repeats is kept once."""
    if not any(SPEAKERS.get(str(message["from"])) == "assistant" for message in messages):
        # in corpora of dialogues with a service, "system" is who answers the user
        messages = [message | {"from": "assistant"} if message["from"] == "system" else message for message in messages]
    system = next((message for message in messages if message["from"] == "system"), None)
    if system:
        messages = [system, *(message for message in messages if message != system)]
    value = {"conversations": messages}
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > ROW_CHARS:
        what = f"The conversation is longer than {ROW_CHARS // 1_000_000} million characters."
        return Row(first.line, None, text[:1000], bad("row_too_large", what, "Split it into shorter ones."))
    return Row(first.line, value, text)
