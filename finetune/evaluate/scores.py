"""One answer scored, and many scored answers summed up: the metric that fits the kind of the data's answers.

Every kind but free text has a right and a wrong, and is compared by that. Free text is compared by the
loss of the expected answer, chrF and ROUGE-L beside it.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from unicodedata import category, normalize

from finetune.errors import ConfigError
from finetune.evaluate.arms import CJK
from finetune.evaluate.kinds import Look, look, plain
from finetune.models import split_thought
from finetune.records import Json

EXACT = "exact match"
"""The same text but for case, white space, a full stop and quotation marks; of labels, that is the accuracy."""

MOST_WORDS = 1000
"""Words of each text that ROUGE-L looks at. Its table has a cell for each pair of them, so that an imported answer of
30,000 words would take 7 GB; an answer given here ends after 512 tokens."""


@dataclass(frozen=True)
class Scored:
    """One answer. `right` is None for free text; `parts` holds further scores (F1, chrF, …), each 0 to 1."""

    right: bool | None
    parts: dict[str, float]


def scored(answer: str, expected: str, kind: str, schema: Json | None = None) -> Scored:
    """Score one answer, without what was thought before it; with a JSON Schema, whether it conforms to that is a part
    of its own.

    Example:
        >>> scored('["egg", "milk"]', '["egg"]', "json")
        Scored(right=False, parts={'valid': 1.0, 'field F1': 0.6666666666666666})
    """
    answer, expected = split_thought(answer)[1], split_thought(expected)[1]
    found = look(answer, kind, expected)
    right = None if kind == "free" else found.right
    return Scored(right, SCORERS[kind].parts(found, answer, expected, schema))


def summed(answers: Sequence[Scored]) -> dict[str, float]:
    """The mean of each part over all answers; ``right`` with them, where there is a right."""
    names = dict.fromkeys(name for one in answers for name in one.parts)
    means = {name: sum(one.parts.get(name, 0.0) for one in answers) / len(answers) for name in names}
    if answers and answers[0].right is not None:
        means = {"right": sum(bool(one.right) for one in answers) / len(answers), **means}
    return means


def field_f1(answer: str, expected: str) -> float:
    """F1 over the fields of two JSON values; the order of keys and of list items does not matter.

    A field is a path with its value, counted as often as it stands there; a list's items share one path.

    Example:
        >>> field_f1('{"a": 1, "b": [2, 3]}', '{"b": [3, 2], "a": 1}')
        1.0
    """
    try:
        given, wanted = (Counter(_fields(json.loads(text))) for text in (answer, expected))
    except (ValueError, RecursionError):
        return 0.0
    both = sum((given & wanted).values())
    return 2 * both / (sum(given.values()) + sum(wanted.values())) if given or wanted else 1.0


def keeps(answer: str, schema: Json) -> bool:
    """Whether a JSON text keeps to a JSON Schema (jsonschema; the draft it names, else the newest).

    What a schema points to outside itself is neither fetched nor read from a file: the registry is empty.

    Raises:
        ConfigError: it points outside itself.

    Example:
        >>> keeps('["egg"]', {"type": "array", "items": {"type": "string"}})
        True
    """
    from jsonschema.validators import validator_for
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import EMPTY_REGISTRY

    try:
        return bool(validator_for(schema)(schema, registry=EMPTY_REGISTRY).is_valid(json.loads(answer)))
    except (ValueError, RecursionError, OverflowError):
        return False
    except Unresolvable as error:
        raise ConfigError(
            "The JSON Schema refers to an external schema; these are not fetched.",
            where=str(error.ref)[:100],
            fix="Put what it refers to under $defs.",
        ) from error


def refuse_schema(schema: Any, kind: str) -> None:
    """Raise `ConfigError` unless this is a JSON Schema, and the answers are JSON."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    if kind != "json":
        raise ConfigError(f"The answers are {kind}, not JSON.", where="schema", fix="Leave the schema out.")
    try:
        if not isinstance(schema, dict) or not isinstance(schema.get("$schema", ""), str):
            raise SchemaError("it is not a JSON object, or the name of its draft is not text")
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise ConfigError(
            f"This is not a JSON Schema: {error.message[:200]}.", where="schema", fix="Correct it."
        ) from error


def _fields(value: Any) -> list[Any]:
    """Each value with its path, as pairs (path before, key) that share what they have in common.

    Written out, the paths of a long key with many values, or of many levels, would be far longer than the text.
    """
    found: list[Any] = []
    left: list[Any] = [((), value)]
    while left:
        path, one = left.pop()
        if isinstance(one, dict) and one:
            left += [((path, key), part) for key, part in one.items()]
        elif isinstance(one, list) and one:
            left += [((path, None), part) for part in one]
        else:
            found.append((path, json.dumps(one)))
    return found


def macro_f1(answers: Sequence[str], expected: Sequence[str]) -> float:
    """The mean of every expected label's F1: a label with few rows counts like one with many.

    Example:
        >>> macro_f1(["a", "a", "b"], ["a", "b", "b"])
        0.6666666666666666
    """
    pairs = [(plain(said), plain(want)) for said, want in zip(answers, expected, strict=True)]
    given, wanted = (Counter(side) for side in zip(*pairs, strict=True)) if pairs else (Counter(), Counter())
    hits = Counter(want for said, want in pairs if said == want)
    scores = [2 * hits[label] / (given[label] + wanted[label]) for label in wanted]
    return sum(scores) / len(scores) if scores else 0.0


OTHER = "(something else)"


def confusion(answers: Sequence[str], expected: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often each expected label was answered with which; what is no label at all is one column.

    Example:
        >>> confusion(["a", "x"], ["a", "b"])
        {'a': {'a': 1}, 'b': {'(something else)': 1}}
    """
    names = {plain(want): split_thought(want)[1].strip() for want in expected}
    table: dict[str, dict[str, int]] = {name: {} for name in sorted(names.values())}
    for said, want in zip(answers, expected, strict=True):
        row, column = table[names[plain(want)]], names.get(plain(said), OTHER)
        row[column] = row.get(column, 0) + 1
    return table


def chrf(answer: str, expected: str) -> float:
    """Character n-gram F-score of one answer, 0 to 1 (sacrebleu's chrF2)."""
    return _chrf().sentence_score(answer, [expected]).score / 100


def rouge_l(answer: str, expected: str) -> float:
    """F-score of the longest common subsequence of the first `MOST_WORDS` words, 0 to 1 (rouge_score's rougeL).

    Words of any script: rouge_score's own tokenizer knows Latin letters without accents only.
    """
    return float(_rouge().score(expected, answer)["rougeL"].fmeasure)


def _words(text: str) -> list[str]:
    """Letters and digits with the marks on them; Chinese and Japanese characters one by one."""
    spaced = (
        f" {one} " if re.match(CJK, one) else one if one.isalnum() or category(one)[0] == "M" else " "
        for one in normalize("NFC", text.lower())
    )
    return "".join(spaced).split()


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class FirstWords(Tokenizer):  # type: ignore[misc]
        def tokenize(self, text: str) -> list[str]:
            return _words(text)[:MOST_WORDS]

    return RougeScorer(["rougeL"], tokenizer=FirstWords())


@dataclass(frozen=True)
class Scorer:
    """How answers of one kind are scored: the name of what is compared, and the further scores shown beside it."""

    metric: str
    parts: Callable[[Look, str, str, Json | None], dict[str, float]]


def _json_parts(found: Look, answer: str, expected: str, schema: Json | None) -> dict[str, float]:
    parts = {"valid": float(bool(found.valid)), "field F1": field_f1(answer, expected), **_exact(answer, expected)}
    return parts | ({"conforms to the schema": float(bool(found.valid) and keeps(answer, schema))} if schema else {})


def _exact(answer: str, expected: str) -> dict[str, float]:
    return {EXACT: float(plain(answer) == plain(expected))}


def _sql_parts(found: Look, answer: str, expected: str, _: Json | None) -> dict[str, float]:
    return {"parses": float(bool(found.valid)), **_exact(answer, expected)}


SCORERS = {
    "label": Scorer("accuracy", lambda *_: {}),
    "json": Scorer("exact JSON", _json_parts),
    "sql": Scorer("same SQL", _sql_parts),
    "number": Scorer("right number", lambda _found, answer, expected, _schema: _exact(answer, expected)),
    "short": Scorer(EXACT, lambda *_: {}),
    "free": Scorer(
        "loss of the expected answer",
        lambda _found, answer, expected, _schema: {
            "chrF": chrf(answer, expected),
            "ROUGE-L": rouge_l(answer, expected),
            **_exact(answer, expected),
        },
    ),
}
"""By kind of answer. What is compared is the share of right answers, but for free text, where lower is better. A new
score is a new part here: report, page, card and command line show every part there is."""

METRICS = {kind: scorer.metric for kind, scorer in SCORERS.items()}
