"""The loss of given answers, without generating anything."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune.models.render import IGNORED
from finetune.records import Json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Loss:
    """Cross-entropy in nats, summed over the tokens of an answer including its end of turn, and their number."""

    total: float
    tokens: int


def answer_losses(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    conversations: Sequence[Sequence[Json]],
    adapters: Sequence[str],
    context: int,
    stop: threading.Event,
) -> list[Loss]:
    """The loss of each conversation's last answer with its adapter; the oldest turns are dropped to fit the context.

    `adapters` has one name per conversation. Empty if `stop` is set.

    Raises:
        ModelError: the template rejects a conversation.
    """
    import torch

    rows = [_rendered(messages, tokenizer, context) for messages in conversations]
    if stop.is_set():
        return []
    # The rows end together (left padding), so the last `kept` positions hold every answer and the token before it,
    # whose logits predict the answer's first token. Logits of the prompts are not computed: for a long
    # prompt, a row of the vocabulary per token can take more memory than the model.
    kept = 1 + max(len(ids) - _first(labels) for ids, labels in rows)
    pad = min(models.end_tokens(model, tokenizer))
    inputs: Json = models.left_padded([ids for ids, _ in rows], pad, model.device)
    if hasattr(model, "peft_config"):
        inputs["adapter_names"] = list(adapters)
    with torch.inference_mode():
        logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits[:, :-1].float()
        found = []
        for row, (_, labels) in zip(logits, rows, strict=True):
            wanted = torch.tensor(([IGNORED] * kept + labels)[-(kept - 1) :], device=row.device)
            loss = torch.nn.functional.cross_entropy(row, wanted, reduction="sum", ignore_index=IGNORED)
            found.append(Loss(float(loss), int((wanted != IGNORED).sum())))
    return found


def _rendered(
    messages: Sequence[Json], tokenizer: "PreTrainedTokenizerBase", context: int
) -> tuple[list[int], list[int]]:
    turns = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in messages[:-1]]
    while True:
        rendered = models.render([*turns, messages[-1]], tokenizer)
        oldest = 1 if turns[:1] and turns[0]["role"] == "system" else 0
        later = next((i for i in range(oldest + 1, len(turns)) if turns[i]["role"] == "user"), None)
        if len(rendered.input_ids) <= context or later is None:
            return rendered.input_ids[-context:], rendered.labels[-context:]
        del turns[oldest:later]


def _first(labels: Sequence[int]) -> int:
    return next(place for place, label in enumerate(labels) if label != IGNORED)
