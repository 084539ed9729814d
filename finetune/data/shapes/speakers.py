"""Conversations whose speakers go by names: nothing says which of them the model is to be, so a person does.

{"conversations": [{"from": "Alice", "value": "Is it deep?"}, {"from": "Bob", "value": "Very."}]}
{"turns": [{"name": "Alice", "text": "Is it deep?"}, {"name": "Bob", "text": "Very."}]}
{"conversations": [{"from": "human", "value": "Is it deep?"}, {"from": "Bob", "value": "Very."}]}
"""

from typing import Any

from finetune.data.shapes.chat import SPEAKERS, SPOKEN_BY
from finetune.data.shapes.content import bad, listed
from finetune.errors import DataError
from finetune.records import Json


def names_of(turns: Any) -> list[str]:
    """The names of a conversation's speakers, in the order in which they speak; empty where roles say who answers.

    Example:
        >>> names_of([{"from": "Alice", "value": "Is it deep?"}, {"from": "Bob", "value": "Very."}])
        ['Alice', 'Bob']
        >>> names_of([{"from": "human", "value": "Is it deep?"}, {"from": "gpt", "value": "Very."}])
        []
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return []
    by = [(_key(turn), turn.get(_key(turn))) for turn in turns]
    if not all(isinstance(name, str) for _, name in by):
        return []
    roles = {SPEAKERS.get(_plain(name)) for _, name in by}
    named = list(dict.fromkeys(name for _, name in by if SPEAKERS.get(_plain(name)) in (None, "user")))
    unknown = [name for name in named if _plain(name) not in SPEAKERS]
    if roles & {"assistant", "tool"} or not unknown or len(named) < 2:
        return []
    if len(unknown) < 2 and any(key == "role" for key, name in by if name in unknown):
        return []  # a role that is misspelt, more likely than a name
    return named


def unknown_speakers(names: list[str]) -> DataError:
    """Why a conversation of people with names cannot be used as it is."""
    return bad(
        "speakers_unknown",
        f"The speakers have names ({listed(names, 80)}), and nothing says which of them the model should be.",
        "Choose with one click whose words are learned."
        if len(names) == 2
        else "Give each message a role: user or assistant.",
    )


def cast(turns: list[Json], answers: str) -> list[Json]:
    """The turns with roles: who `answers` is the assistant, whoever else speaks the user.

    Example:
        >>> cast([{"from": "Alice", "value": "Is it deep?"}, {"from": "Bob", "value": "Very."}], "Bob")[1]
        {'value': 'Very.', 'role': 'assistant', 'name': 'Bob'}
    """
    found = []
    for turn in turns:
        name = turn[_key(turn)]
        rest = {key: value for key, value in turn.items() if key != _key(turn)}
        role = "assistant" if name == answers else SPEAKERS.get(_plain(name), "user")
        found.append(rest | {"role": role} | ({} if _plain(name) in SPEAKERS else {"name": name}))
    return found


def _key(turn: Json) -> str:
    return next((name for name in SPOKEN_BY if turn.get(name) is not None), "name")


def _plain(name: Any) -> str:
    return str(name).strip().lower()
