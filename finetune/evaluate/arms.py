"""The arms of an evaluation: the same rows, asked in different ways, and two references that need no model.

Few-shot prompting and retrieval are what one would do instead of fine-tuning; they are the baseline.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from finetune.chat.talk import SHOTS, shots, single
from finetune.data import Example
from finetune.evaluate.kinds import plain
from finetune.records import Json

MODELS = ("base", "few_shot", "retrieval", "tuned")
REFERENCES = ("majority", "nearest")
TITLES = {
    "base": "Base (zero-shot)",
    "few_shot": "Few-shot",
    "retrieval": "Retrieval",
    "tuned": "Tuned",
    "majority": "Most common answer",
    "nearest": "Nearest training row's answer",
}

NAMED = {
    "base": "Before: the base model",
    "tuned": "After: fine-tuned",
    "few_shot": "Base with examples in the prompt (few-shot)",
    "retrieval": "Base with similar rows in the prompt (retrieval)",
    "nearest": "No model: answer of the nearest row",
    "majority": "No model: the most common answer",
}
"""Every arm in words that need no explanation, in the order in which they are shown."""

CJK = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
WORD = rf"{CJK}|\w+"
"""What is looked for: words of any length; where a script writes no spaces, its characters."""

Messages = list[Json]


class Asking:
    """Turns a held-out row into each arm's prompt, with the training rows at hand.

    Example:
        >>> asking = Asking(train, seed=0)
        >>> asking.messages("few_shot", row)[-1] == asking.messages("base", row)[-1]
        True
    """

    def __init__(self, train: Sequence[Example], seed: int, count: int = SHOTS):
        self.train, self.count = train, count
        self.shots = shots(train, seed, count)
        self.single = single(train)
        self._index = _index([row.asked for row in self.single])
        self.majority = _majority([row.answer for row in train if row.answer.strip() and not row.tools])

    def messages(self, arm: str, row: Example) -> Messages:
        """The prompt of this arm for a row: the most similar example stands last, next to the question."""
        examples: Sequence[Example] = ()
        if arm == "few_shot":
            examples = self.shots
        elif arm == "retrieval":
            examples = self.similar(row)[::-1]
        system = [dict(message) for message in row.prompt[:1] if message["role"] == "system"]
        before = [
            {"role": role, "content": text}
            for example in examples
            for role, text in (("user", example.asked), ("assistant", example.answer))
        ]
        return [*system, *before, *(dict(message) for message in row.prompt[len(system) :])]

    def similar(self, row: Example) -> list[Example]:
        """The training rows most similar to a row by BM25 over their questions, most similar first; maybe none."""
        import bm25s

        if self._index is None:
            return []
        asked = bm25s.tokenize([row.asked], stopwords=[], token_pattern=WORD, show_progress=False)
        places, scores = self._index.retrieve(asked, k=min(self.count, len(self.single)), show_progress=False)
        return [self.single[int(place)] for place, score in zip(places[0], scores[0], strict=True) if score > 0]

    def answer(self, reference: str, row: Example) -> str:
        """What a reference answers."""
        if reference == "majority":
            return self.majority
        return next((similar.answer for similar in self.similar(row)), "")


def _majority(answers: Sequence[str]) -> str:
    """The most common answer, as it is most often written; answers that are judged alike count together."""
    if not answers:
        return ""
    common = Counter(plain(answer) for answer in answers).most_common(1)[0][0]
    return Counter(answer for answer in answers if plain(answer) == common).most_common(1)[0][0]


def _index(texts: Sequence[str]) -> Any:
    """BM25 over the texts (bm25s); None when there is nothing to search."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG

    tokens = bm25s.tokenize(list(texts), stopwords=[], token_pattern=WORD, show_progress=False) if texts else None
    if tokens is None or not tokens.vocab or all(not ids for ids in tokens.ids):
        return None
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    return index
