"""What the base knows, kept while it learns something else: the divergence from the base on general questions.

A run that sees one kind of row forgets the others. So beside its rows it now and then reads a general question with
its answer, and is pulled to what the base says of every word of that: KL(base ‖ tuned), times `base_kl`. The
answers themselves are not learned, so nothing new is taught; that is self-distillation (Li and Hoiem, "Learning without
Forgetting", 2016). `evaluate/general.jsonl`, by which forgetting is measured, has other questions, and stays unseen.

What the base makes of a question is computed once: the states that enter its output layer, some hundred kilobytes.
"""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from finetune import models
from finetune.data import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = Path(__file__).with_name("known.jsonl")

ROWS_PER_QUESTION = 16
"""One general question beside so many rows: of a batch of 8, beside every second step."""


def beside(step: int, batch: int) -> range:
    """The numbers of the general questions that a step over so many rows reads beside them.

    Example:
        >>> beside(0, batch=8), beside(1, batch=8), beside(1, batch=32)
        (range(0, 0), range(0, 1), range(2, 4))
    """
    return range(step * batch // ROWS_PER_QUESTION, (step + 1) * batch // ROWS_PER_QUESTION)


@cache
def known() -> tuple[Example, ...]:
    """The general questions with answers.

    Example:
        >>> known()[1].answer
        'The three primary colours are red, blue and yellow.'
    """
    rows = (json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines())
    roles = {"user": "prompt", "assistant": "answer"}
    asked = ([{"role": role, "content": row[name]} for role, name in roles.items()] for row in rows)
    return tuple(Example(tuple(messages), line) for line, messages in enumerate(asked, start=1))


def in_order(tokenizer: "PreTrainedTokenizerBase", seed: int) -> list[dict[str, list[int]]]:
    """The general questions as ``input_ids`` and ``labels``, in the order in which a run with this seed reads them.

    Raises:
        ModelError: the chat template refuses them.

    Example:
        >>> in_order(tokenizer, seed=0)[0].keys()
        dict_keys(['input_ids', 'labels'])
    """
    rendered = [models.render(example.messages, tokenizer) for example in known()]
    random.Random(seed).shuffle(rendered)
    return [{"input_ids": list(one.input_ids), "labels": list(one.labels)} for one in rendered]


class Known:
    """The general questions, as a model with an adapter (PEFT's) reads them.

    Example:
        >>> held = Known(model, tokenizer, seed=0)
        >>> held.divergence(beside(step=1, batch=8)).backward()
    """

    def __init__(self, model: Any, tokenizer: "PreTrainedTokenizerBase", seed: int):
        self.model = model
        self._questions = in_order(tokenizer, seed)
        self.states: dict[int, torch.Tensor] = {}  # by question: those (tokens, hidden) that the base answers from

    @property
    def tokens(self) -> float:
        """Tokens of a question and its answer, on average."""
        return sum(len(one["input_ids"]) for one in self._questions) / len(self._questions)

    def divergence(self, numbers: Sequence[int]) -> torch.Tensor:
        """KL(base ‖ tuned) on these questions, a mean over each answer's tokens (nats); numbers go round."""
        return torch.stack([self._divergence(number % len(self._questions)) for number in numbers]).mean()

    def _divergence(self, number: int) -> torch.Tensor:
        if number not in self.states:
            self.states[number] = self._read(number)
        base = self.states[number]
        with _at_output(self.model, lambda states: torch.cat([self._answer(number, states), base]).unsqueeze(0)):
            logits = self._logits(number)[0].float()
        tuned, own = logits.log_softmax(-1).split(len(base))
        return nn.functional.kl_div(tuned, own, reduction="batchmean", log_target=True)

    def _read(self, number: int) -> torch.Tensor:
        """What the base alone predicts the answer from."""
        caught, training = [], self.model.training

        def catch(states: torch.Tensor) -> torch.Tensor:
            caught.append(self._answer(number, states))
            return states[:, :1]  # no more than the output layer has to be given

        self.model.eval()
        try:
            with torch.no_grad(), self.model.disable_adapter(), _at_output(self.model, catch):
                self._logits(number)
        finally:
            self.model.train(training)
        return caught[0]

    def _logits(self, number: int) -> torch.Tensor:
        ids = torch.tensor([self._questions[number]["input_ids"]], device=self.model.device)
        logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits

    def _answer(self, number: int, states: torch.Tensor) -> torch.Tensor:
        """The states (positions, hidden) from which the words of the answer are predicted."""
        learned = torch.tensor(self._questions[number]["labels"][1:], device=states.device) != -100
        return states[0, :-1][learned]


@contextmanager
def _at_output(model: Any, change: Any) -> Iterator[None]:
    """While open, the output layer is handed what `change` makes of its input (rows, length, hidden)."""
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda module, inputs: (change(inputs[0]),))
    try:
        yield
    finally:
        hook.remove()
