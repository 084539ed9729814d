"""Rows that one model reads and continues together; they join and leave between two tokens.

A prompt is read once: what several prompts of a batch begin with, and what was read before (the examples of few-shot
prompting, the earlier turns of a conversation), is taken from the cache. Models whose layers do not keep every key
(sliding windows, recurrent states) get `PlainBatch`, which has none of this.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from finetune import models
from finetune.chat.cache import RoomyCache
from finetune.chat.per_row import PerRow
from finetune.chat.prefixes import Prefixes, alike

LOGITS = 2**28
"""Bytes of logits that are computed at once for expected answers."""

CHUNK = 256
"""Prompt tokens read between two looks at whether anybody still waits for them."""

WORTH = 16
"""Tokens that prompts must share before these are read separately, once."""


class Stopped(Exception):
    """Nobody waits for the rows that are being read."""


@dataclass
class Row:
    """One answer: its prompt and adapter, what of it there is, and the logits (vocabulary) of its next token.

    With `expected` (token ids) and its `labels`, the summed loss of that answer is computed once the prompt has been
    read; `remember` keeps the row's keys for a later prompt that goes on from its answer.
    """

    prompt: list[int]
    adapter: str
    expected: list[int] | None = None
    labels: list[int] | None = None
    remember: bool = False
    ids: list[int] = field(default_factory=list)
    logits: Any = None
    loss: float = 0.0


class Batch:
    """The rows in progress; after `join` and `step`, each has the `logits` of its next token.

    Example:
        >>> batch = Batch(model, per_row, Prefixes())
        >>> batch.join([Row(prompt, "__base__")], asked=lambda: False)
        >>> for row in batch.rows: row.ids.append(int(row.logits.argmax()))
        >>> batch.step()
    """

    def __init__(self, model: Any, per_row: PerRow, prefixes: Prefixes):
        self.model, self.per_row, self.prefixes = model, per_row, prefixes
        self.rows: list[Row] = []
        self._cache = RoomyCache()
        self._mask = torch.ones(0, 0, dtype=torch.bool, device=model.device)  # (rows, tokens), False in gaps
        self._last = (getattr(model.config, "max_position_embeddings", None) or 2**31) - 1
        self.judging = 0.0  # seconds spent on expected answers

    def join(self, rows: Sequence[Row], asked: Callable[[], bool]) -> None:
        """Read these rows' prompts, and take them in.

        Raises:
            Stopped: `asked` returned True meanwhile; none of them is taken in.
        """
        read = [self._read(name, same, asked) for name, same in _by_adapter(rows)]
        for same, cache, mask in read:
            gap = mask.shape[1] - self._mask.shape[1]
            masks = [_gap_before(self._mask, max(gap, 0)), _gap_before(mask, max(-gap, 0))]
            self._mask = torch.cat(masks if self.rows else [mask])
            self._cache = self._cache.with_rows(cache) if self.rows else cache
            self.rows += same

    def step(self) -> None:
        """Read the last token of every row."""
        ids = [row.ids[-1:] or [0] for row in self.rows]
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=True)
        logits = self._run([row.adapter for row in self.rows], ids, self._cache, self._mask)[:, -1]
        for row, its in zip(self.rows, logits, strict=True):
            row.logits = its

    def leave(self, gone: Callable[[Row], bool]) -> None:
        """Let rows go, and remember those that ask for it."""
        for place, row in enumerate(self.rows):
            if gone(row) and row.remember:
                here = int(self._mask[place].sum())
                start = self._mask.shape[1] - here
                if bool(self._mask[place, start:].all()):
                    read = [*row.prompt, *row.ids][:here]
                    self.prefixes.keep(row.adapter, read, self._cache.pick([place], start))
        stay = [place for place, row in enumerate(self.rows) if not gone(row)]
        for row in filter(gone, self.rows):
            row.logits = None  # a view of those of the whole batch
        self.rows = [self.rows[place] for place in stay]
        start = int(self._mask[stay].any(0).int().argmax()) if stay else self._mask.shape[1]
        self._cache = self._cache.pick(stay, start) if stay else RoomyCache()
        self._mask = self._mask[stay, start:]

    def _read(
        self, adapter: str, rows: list[Row], asked: Callable[[], bool]
    ) -> tuple[list[Row], RoomyCache, torch.Tensor]:
        """The rows' cache and mask, once their prompts are read."""
        prompts = [row.prompt for row in rows]
        shared = min(alike(prompts), min(map(len, prompts)) - 1)
        known, cache = self.prefixes.find(adapter, prompts[0][:shared])
        cache = cache.pick([0], 0, known) if cache else RoomyCache()
        if len(rows) > 1 and shared - known >= WORTH:
            self._chunks([adapter], [prompts[0][known:shared]], cache, _known(1, known, self.model), asked)
            self.prefixes.keep(adapter, prompts[0][:shared], cache.pick([0]))
            known = shared
        if known:
            cache = cache.pick([0] * len(rows))
        names, rests = [adapter] * len(rows), [prompt[known:] for prompt in prompts]
        last, mask = self._chunks(names, rests, cache, _known(len(rows), known, self.model), asked)
        for row, its in zip(rows, last, strict=True):
            row.logits = its
        if any(row.expected for row in rows):
            self._expect(rows, names, cache, mask)
        return rows, cache, mask

    def _chunks(
        self, names: list[str], ids: list[list[int]], cache: RoomyCache, mask: torch.Tensor, asked: Callable[[], bool]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read ids of uneven length, which end together; the last one's logits (rows, vocabulary), and the mask."""
        padded = models.left_padded(ids, 0, self.model.device)
        logits = torch.empty(0)
        for start in range(0, padded["input_ids"].shape[1], CHUNK):
            if asked():
                raise Stopped
            part = padded["input_ids"][:, start : start + CHUNK]
            mask = torch.cat([mask, padded["attention_mask"][:, start : start + CHUNK].bool()], 1)
            logits = self._run(names, part, cache, mask, keep=1)
        return logits[:, -1], mask

    def _expect(self, rows: list[Row], names: list[str], cache: RoomyCache, mask: torch.Tensor) -> None:
        """The loss of each row's expected answer: its first token from the prompt's logits, the others from its own.

        The logits are computed for so many tokens at a time as `LOGITS` bytes hold.
        """
        began, tokens, answers = time.monotonic(), mask.shape[1], [row.expected or [0] for row in rows]
        for row in rows:
            row.loss = _summed(row.logits[None], (row.labels or [])[:1])
        longest, part = max(map(len, answers)) - 1, max(1, LOGITS // (4 * rows[0].logits.shape[-1] * len(rows)))
        for start in range(0, longest, part):
            end = min(start + part, longest)
            ids = [(answer[:-1] + [0] * (longest + 1 - len(answer)))[start:end] for answer in answers]
            there = [[place < len(answer) - 1 for place in range(start, end)] for answer in answers]
            mask = torch.cat([mask, torch.tensor(there, device=mask.device)], 1)
            for row, its in zip(rows, self._run(names, ids, cache, mask), strict=True):
                row.loss += _summed(its, (row.labels or [])[start + 1 : end + 1])
        cache.crop_to(tokens)
        self.judging += time.monotonic() - began

    def _run(self, names: list[str], ids: Any, cache: RoomyCache, mask: torch.Tensor, keep: int = 0) -> torch.Tensor:
        """The logits (rows, tokens, vocabulary) of new tokens; `mask` covers them and all before."""
        ids = torch.as_tensor(ids, device=self.model.device)
        # rows that are over may step beyond the context until they leave
        positions = (mask.cumsum(1) - 1).clamp(0, self._last)[:, mask.shape[1] - ids.shape[1] :]
        with self.per_row.using(names):
            out = self.model(
                input_ids=ids,
                attention_mask=None if bool(mask.all()) else mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )
        logits: torch.Tensor = out.logits
        return logits


class PlainBatch:
    """The same for any model that `generate` knows: rows join an empty batch only, and leave it together."""

    def __init__(self, model: Any, per_row: PerRow):
        self.model, self.per_row = model, per_row
        self.rows: list[Row] = []
        self._names: list[str] = []
        self.judging = 0.0

    def join(self, rows: Sequence[Row], asked: Callable[[], bool]) -> None:
        """Read these rows' prompts; `asked` is heard before, not meanwhile."""
        if asked():
            raise Stopped
        began = time.monotonic()
        for row in rows:
            if row.expected:
                row.loss = self._loss(row, row.expected)
        self.judging += time.monotonic() - began
        padded = models.left_padded([row.prompt for row in rows], 0, self.model.device)
        self._ids, self.rows, self._names = padded["input_ids"], list(rows), [row.adapter for row in rows]
        self._kept: Any = {"attention_mask": padded["attention_mask"], "use_cache": True}
        self._run(is_first_iteration=True)

    def step(self) -> None:
        """Read the last token of every row."""
        last = [row.ids[-1:] or [0] for row in self.rows]
        self._ids = torch.cat([self._ids, torch.tensor(last, device=self._ids.device)], 1)
        self._run(next_sequence_length=1)

    def leave(self, gone: Callable[[Row], bool]) -> None:
        """Let the rows go once all of them may."""
        if all(map(gone, self.rows)):
            self.rows, self._kept = [], {}

    def _run(self, **how: Any) -> None:
        inputs = self.model.prepare_inputs_for_generation(self._ids, **how, **self._kept)
        with self.per_row.using(self._names):
            out = self.model(**inputs, return_dict=True)
        self._kept = self.model._update_model_kwargs_for_generation(out, self._kept)
        for row, its in zip(self.rows, out.logits[:, -1], strict=True):
            row.logits = its

    def _loss(self, row: Row, expected: list[int]) -> float:
        ids = torch.tensor([[*row.prompt, *expected]], device=self.model.device)
        with self.per_row.using([row.adapter]):
            kept = len(expected) + 1
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0, -kept:]
        return _summed(logits, row.labels or [])


def _summed(logits: torch.Tensor, labels: list[int]) -> float:
    """Cross-entropy of the labels, (tokens) of the logits' (at least as many tokens, vocabulary)."""
    wanted = torch.tensor(labels, dtype=torch.long, device=logits.device)
    return float(torch.nn.functional.cross_entropy(logits[: len(labels)].float(), wanted, reduction="sum"))


def _by_adapter(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    names = dict.fromkeys(row.adapter for row in rows)
    return [(name, [row for row in rows if row.adapter == name]) for name in names]


def _known(rows: int, tokens: int, model: Any) -> torch.Tensor:
    return torch.ones(rows, tokens, dtype=torch.bool, device=model.device)


def _gap_before(mask: torch.Tensor, gap: int) -> torch.Tensor:
    return torch.nn.functional.pad(mask, (gap, 0), value=False)
