"""One answer in the making: the next token is chosen, and the text so far is read from the tokens."""

import time
from typing import TYPE_CHECKING, Any

import torch
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from finetune.chat.batch import Row
from finetune.chat.reply import Reply, Sampling
from finetune.errors import RunError
from finetune.models.generation import MIN_TEMPERATURE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Line(Row):
    """A row of a batch with what one asks of its answer. `place` sets columns of one seed apart.

    Example:
        >>> line = Line(prompt, "__base__", tokenizer, ends={2}, sampling=Sampling())
        >>> line.choose()  # once the batch has read the prompt
        >>> line.reply().tokens
        1
    """

    def __init__(
        self,
        prompt: list[int],
        adapter: str,
        tokenizer: "PreTrainedTokenizerBase",
        ends: set[int],
        sampling: Sampling,
        place: int = 0,
        **more: Any,
    ):
        super().__init__(prompt, adapter, **more)
        self.tokenizer, self.ends, self.sampling = tokenizer, ends, sampling
        self.stop: str | None = None
        self.began, self.last, self.share = time.monotonic(), 0.0, 0.0
        self.first: float | None = None
        self._random = torch.Generator().manual_seed(sampling.seed + place)

    def choose(self) -> None:
        """Add the next token; at an end of turn, or at the most tokens, the line is over."""
        if not self.sampling.max_tokens:
            self.stop = "length"
            return
        token = self._sampled() if self.sampling.temperature >= MIN_TEMPERATURE else int(self._scores().argmax())
        self.add(token)

    def add(self, token: int) -> None:
        """Add this token."""
        self.ids.append(token)
        self.last = time.monotonic() - self.began
        self.first = self.last if self.first is None else self.first
        if token in self.ends:
            self.stop = "end_of_turn"
        elif len(self.ids) >= self.sampling.max_tokens:
            self.stop = "length"

    def reply(self) -> Reply:
        """The answer so far. A character whose last bytes are still to come is not shown."""
        ids, stop = list(self.ids), self.stop
        said = ids[:-1] if ids and ids[-1] in self.ends else ids
        text = str(self.tokenizer.decode(said, skip_special_tokens=True))
        text = text if stop == "end_of_turn" else text.rstrip("\ufffd")
        return Reply(text, len(ids), tuple(self.prompt), self.last, self.first, stop)

    def _scores(self) -> torch.Tensor:
        """The logits (1, vocabulary), lowered where the answer would repeat itself."""
        scores, penalty = self.logits[None].float(), self.sampling.repetition_penalty
        if penalty == 1.0:
            return scores
        ids = torch.tensor([self.ids], dtype=torch.long, device=scores.device)
        return RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)

    def _sampled(self) -> int:
        scores, sampling = TemperatureLogitsWarper(self.sampling.temperature)(None, self._scores()), self.sampling
        if bool(scores.isnan().any()):
            raise RunError("The model's outputs are not numbers (NaN).", fix="Train again, with a lower learning rate.")
        if sampling.top_p < 1.0:
            scores = TopPLogitsWarper(sampling.top_p)(None, scores)
        return int(torch.multinomial(scores.softmax(-1).cpu(), 1, generator=self._random))
