"""Preferences that contradict each other, and marks that are all the same."""

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b

from finetune.data.example import ANSWER_ROLES, FIRST_LINES, Example, Problem


class Contradictions:
    """Collects what pairs and rated answers say; of each only a hash is kept.

    Example:
        >>> said = Contradictions()
        >>> for example in examples: said.add(example)
        >>> [problem.code for problem in said.problems()]
        ['contradiction']
    """

    def __init__(self) -> None:
        self._first: dict[bytes, bytes | bool | None] = {}
        self._lines: list[int] = []
        self._count = 0
        self._marks: Counter[bool] = Counter()
        self._line = 0

    def __bool__(self) -> bool:
        return bool(self._first)

    def add(self, example: Example) -> None:
        """Add a pair or a rated answer."""
        answers = [
            _hash(repr({**one, "role": ""}))
            for one in example.told[len(example.prompt) :]
            if one["role"] in ANSWER_ROLES
        ]
        asked = _hash(repr((example.prompt, example.tools)))
        said = answers[0] if example.worse is not None else example.good
        if example.good is not None:
            self._marks[example.good] += 1
            self._line = self._line or example.line
        if self._first.setdefault(b"".join([asked, *sorted(answers)]), said) != said:
            self._count += 1
            if len(self._lines) < FIRST_LINES:
                self._lines.append(example.line)

    def problems(self) -> Iterator[Problem]:
        """What is wrong with them together."""
        if self._count:
            yield Problem(
                "contradiction",
                "warning",
                self._count,
                tuple(self._lines),
                f"{self._count:,} rows say the opposite of an earlier row about the same answers.",
                "Keep the one that is right; where both are, drop both.",
            )
        if len(self._marks) == 1:
            good = next(iter(self._marks))
            yield Problem(
                "one_sided",
                "warning",
                self._marks.total(),
                (self._line,),
                "All answers are marked as good." if good else "All answers are marked as bad.",
                "Add some of the other kind: a run learns the difference between them.",
            )


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
