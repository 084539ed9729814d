"""One answer in the making: the next token is chosen, and the text so far is read from the tokens."""

import re
import time
from typing import TYPE_CHECKING, Any

import torch
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper
from transformers.convert_slow_tokenizer import bytes_to_unicode

from finetune.chat.batch import Row
from finetune.chat.reply import Mark, Reply, Sampling
from finetune.chat.schema import Keeper
from finetune.errors import ConfigError, RunError
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
        self._marks: list[Mark] = []
        self._keeper: Keeper | None = None
        if wrong := [token for token, _ in sampling.bias if not 0 <= token < len(tokenizer)]:
            raise ConfigError(f"The model has no token {wrong[0]}: its ids end at {len(tokenizer) - 1}.", where="bias")

    def choose(self) -> None:
        """Add the next token; at an end of turn, or at the most tokens, the line is over."""
        if not self.sampling.max_tokens:
            self.stop = "length"
            return
        token = self._sampled() if self.sampling.temperature >= MIN_TEMPERATURE else int(self._scores().argmax())
        self.add(token)
        if self._keeper and token not in self.ends:
            self._keeper.add(token)
        if self.sampling.top is not None and token not in self.ends:
            self._mark(token, self.sampling.top)

    def _mark(self, token: int, top: int) -> None:
        """Note the token just added, with its probability and the likeliest at its place."""
        likely = self.logits.float().log_softmax(-1)
        values, ids = likely.topk(max(1, top))
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        best = [(token_bytes(self.tokenizer, one), value) for one, value in pairs][:top]
        end = len(self.reply().text)
        self._marks.append(Mark(token_bytes(self.tokenizer, token), float(likely[token]), tuple(best), end))

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
        return Reply(text, len(ids), tuple(self.prompt), self.last, self.first, stop, marks=tuple(self._marks))

    def _scores(self) -> torch.Tensor:
        """The logits (1, vocabulary), lowered where the answer would repeat itself, and biased as asked."""
        scores, sampling = self.logits[None].float(), self.sampling
        if sampling.is_plain:
            return scores
        scores = scores.clone()
        ids = torch.tensor([self.ids], dtype=torch.long, device=scores.device)
        if sampling.repetition_penalty != 1.0:
            scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
        if self.ids and (sampling.frequency_penalty or sampling.presence_penalty):
            said, times = ids[0].unique(return_counts=True)
            scores[0, said] -= sampling.frequency_penalty * times + sampling.presence_penalty
        for token, bias in sampling.bias:
            scores[0, token] += bias
        if sampling.schema is None:
            return scores
        self._keeper = self._keeper or Keeper(sampling.schema, self.tokenizer, self.ends, scores.shape[-1])
        return self._keeper.masked(scores)

    def _sampled(self) -> int:
        scores, sampling = TemperatureLogitsWarper(self.sampling.temperature)(None, self._scores()), self.sampling
        if bool(scores.isnan().any()):
            raise RunError("The model's outputs are not numbers (NaN).", fix="Train again, with a lower learning rate.")
        if sampling.top_p < 1.0:
            scores = TopPLogitsWarper(sampling.top_p)(None, scores)
        return int(torch.multinomial(scores.softmax(-1).cpu(), 1, generator=self._random))


BYTES = {char: byte for byte, char in bytes_to_unicode().items()}
"""The character that stands for each byte in the vocabulary of a byte-level tokenizer."""

ONE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: "PreTrainedTokenizerBase", token: int) -> bytes:
    """The bytes of one token, which may be a part of a character.

    Example:
        >>> token_bytes(tokenizer, 504)
        b' the'
    """
    written = str(tokenizer.convert_ids_to_tokens(token))
    if token in tokenizer.all_special_ids:
        return written.encode()
    if byte := ONE_BYTE.fullmatch(written):
        return bytes.fromhex(byte[1])
    if "\u2581" not in written and all(char in BYTES for char in written):
        return bytes(BYTES[char] for char in written)
    return written.replace("\u2581", " ").encode()
