"""Who takes part in a workshop: a nickname instead of an account, and the runs that their owners show to everybody.

    people    owner, nickname, and how it is compared with others
    shown     ids of runs that everybody in the room may look at

Nothing else is kept of anybody, and all of it is forgotten when the workshop is closed.

Example:
    >>> join(store, owner, "  Kiwi ")
    'Kiwi'
    >>> show(store, run); is_shown(store, run.id)
    True
"""

import time
import unicodedata
from dataclasses import dataclass
from itertools import groupby

from finetune.errors import ConfigError, NotAllowed
from finetune.store import Run, Store

LONGEST = 30
"""Characters of a nickname."""

MOST = 300
"""Nicknames at a time: an owner is a secret that anybody can make up."""

MARKS = 3
"""Accents and vowel signs on one letter: enough for every script, too few to climb out of a line."""

RESERVED = {"example", "teacher", "operator", "admin", "you"}
"""Names under which the page speaks of somebody else."""


@dataclass(frozen=True)
class Person:
    """Somebody who takes part. `owner` is the browser's secret, and is shown to nobody."""

    owner: str
    nickname: str
    joined: float


def cleaned(given: str) -> str:
    """A nickname as it is kept and shown: on one line, without what cannot be seen or would turn the text around.

    Raises:
        ConfigError: nothing that can be read is left, or it is too long or reserved.

    Example:
        >>> cleaned("  Ki\\u202ewi\\n")
        'Kiwi'
    """
    text = unicodedata.normalize("NFC", given[: 20 * LONGEST])
    text = "".join(" " if char.isspace() else char for char in text)
    text = "".join(char for char in text if not unicodedata.category(char).startswith("C"))
    text = " ".join(_few_marks(text).split())
    if not any(char.isalnum() for char in text):
        raise ConfigError("A nickname needs a letter or a digit.", where="Nickname", fix="For example: Kiwi.")
    if len(text) > LONGEST:
        raise ConfigError(f"A nickname has at most {LONGEST} characters.", where="Nickname", fix="Shorten it.")
    if compared(text) in RESERVED:
        raise ConfigError("This nickname is reserved.", where="Nickname", fix="Choose another.")
    return text


def _few_marks(text: str) -> str:
    groups = groupby(text, key=lambda char: unicodedata.category(char).startswith("M"))
    return "".join("".join(chars)[: MARKS if marks else None] for marks, chars in groups)


def compared(nickname: str) -> str:
    """What two nicknames must not share: the letters and digits, however they are written.

    Example:
        >>> compared("Ｋi-wi 2") == compared("KIWI2")
        True
    """
    text = unicodedata.normalize("NFKC", nickname).casefold()
    return "".join(char for char in text if char.isalnum() or unicodedata.category(char).startswith("M"))


def join(store: Store, owner: str, given: str) -> str:
    """Give somebody a nickname, in place of the one they had; returns it as it is kept.

    Raises:
        ConfigError: it cannot be used, or somebody else has it (code ``nickname_taken``).
        NotAllowed: too many people have joined.
    """
    nickname = cleaned(given)
    with store.writing() as db:
        mine = db.execute("SELECT joined FROM people WHERE owner=?", (owner,)).fetchone()
        same = "SELECT 1 FROM people WHERE compared=? AND owner<>?"
        if db.execute(same, (compared(nickname), owner)).fetchone():
            raise ConfigError(
                "Somebody here already has this nickname.",
                where="Nickname",
                fix="Choose another, or add a letter to it.",
                code="nickname_taken",
            )
        if mine is None and db.execute("SELECT COUNT(*) FROM people").fetchone()[0] >= MOST:
            raise NotAllowed(f"{MOST} people have joined already.", fix="Ask the teacher.", code="workshop_full")
        row = (owner, nickname, compared(nickname), mine["joined"] if mine else time.time())
        db.execute("INSERT OR REPLACE INTO people VALUES (?,?,?,?)", row)
    return nickname


def everybody(store: Store) -> list[Person]:
    """All who have joined, the first one first."""
    with store.reading() as db:
        rows = db.execute("SELECT owner, nickname, joined FROM people ORDER BY joined, rowid")
        return [Person(**row) for row in rows]


def nickname(store: Store, owner: str) -> str:
    """What somebody is called; "" for one who has not joined."""
    with store.reading() as db:
        row = db.execute("SELECT nickname FROM people WHERE owner=?", (owner,)).fetchone()
    return row["nickname"] if row else ""


def show(store: Store, run: Run, shown: bool = True) -> None:
    """Let everybody in the room look at a run, or its owner alone again."""
    with store.writing() as db:
        if shown:
            db.execute("INSERT OR IGNORE INTO shown SELECT id FROM runs WHERE id=?", (run.id,))
        else:
            db.execute("DELETE FROM shown WHERE run=?", (run.id,))


def is_shown(store: Store, run_id: str) -> bool:
    """Whether the owner of a run shows it to everybody."""
    with store.reading() as db:
        return db.execute("SELECT 1 FROM shown WHERE run=?", (run_id,)).fetchone() is not None


def shown(store: Store) -> set[str]:
    """The ids of all runs that are shown to everybody."""
    with store.reading() as db:
        return {row["run"] for row in db.execute("SELECT run FROM shown")}


def forget_absent(store: Store) -> None:
    """Forget the nicknames of those of whom nothing is left: what they brought was deleted, by them or in time."""
    with store.writing() as db:
        there = "SELECT owner FROM datasets UNION SELECT owner FROM runs"
        db.execute(f"DELETE FROM people WHERE owner NOT IN ({there})")


def forget(store: Store, owner: str | None = None) -> None:
    """Forget the nickname of an owner, or of everybody, and show none of their runs any more."""
    with store.writing() as db:
        theirs = "SELECT id FROM runs WHERE owner=COALESCE(?, owner)"
        db.execute(f"DELETE FROM shown WHERE run IN ({theirs})", (owner,))
        db.execute("DELETE FROM people WHERE owner=COALESCE(?, owner)", (owner,))
