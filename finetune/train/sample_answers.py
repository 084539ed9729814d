"""A few held-out prompts, answered at every evaluation: a person sees what the loss only counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from finetune import models
from finetune.errors import ModelError
from finetune.train.events import Answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Example

MOST_TOKENS = 48
"""Tokens of an answer: enough to see what it is like, and short beside the steps between two evaluations."""

LONGEST_PROMPT = 1024
"""Tokens of a prompt; rows with a longer one are passed over."""


@dataclass(frozen=True)
class Sample:
    """A prompt as ids and as the last thing said in it, and the answer its row expects."""

    ids: list[int]
    prompt: str
    expected: str


def choose(examples: "Sequence[Example]", tokenizer: "PreTrainedTokenizerBase", count: int) -> list[Sample]:
    """The first `count` examples that can be asked, each up to its last answer.

    Example:
        >>> choose(held_out, tokenizer, 1)[0].expected
        'It is 4.'
    """
    samples: list[Sample] = []
    for example in examples:
        if len(samples) >= count:
            break
        if not example.asked or example.good is False:  # a bad answer is none to expect
            continue
        try:
            ids = models.prompt_ids(example.prompt, tokenizer, example.tools, models.thinks(example.messages))
        except ModelError:
            continue  # the same row was already reported when it was rendered
        if len(ids) <= LONGEST_PROMPT:
            samples.append(Sample(ids, example.asked, example.answer))
    return samples


class _When(StoppingCriteria):
    def __init__(self, stopping: Callable[[], bool]):
        self.stopping = stopping

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.stopping(), device=input_ids.device)


def answer(
    model: Any, tokenizer: "PreTrainedTokenizerBase", samples: Sequence[Sample], stopping: Callable[[], bool]
) -> list[Answer] | None:
    """Greedy answers of the model as it is now, all in one batch; None when `stopping` said so on the way."""
    ends = models.end_tokens(model, tokenizer)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            written = model.generate(
                **models.left_padded([sample.ids for sample in samples], min(ends), model.device),
                generation_config=models.choice(ends, MOST_TOKENS),
                stopping_criteria=StoppingCriteriaList([_When(stopping)]),
            )
    finally:
        model.train(was_training)
    if stopping():
        return None
    answers = written[:, max(len(sample.ids) for sample in samples) :].tolist()
    return [
        Answer(prompt=sample.prompt, expected=sample.expected, text=_text(ids, ends, tokenizer))
        for sample, ids in zip(samples, answers, strict=True)
    ]


def _text(ids: list[int], ends: set[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    until = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return str(tokenizer.decode(ids[:until], skip_special_tokens=True))
