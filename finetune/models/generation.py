"""Arguments for `generate`: padded prompts, end tokens, and a config free of the model's own defaults."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune.models.template import end_of_turn

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedTokenizerBase


MIN_TEMPERATURE = 1e-6
"""Temperatures below this are greedy: dividing the logits by them would overflow."""


def left_padded(prompts: Sequence[list[int]], pad: int, device: Any) -> "dict[str, torch.Tensor]":
    """Ids and attention mask, both (rows, longest prompt). Padding is masked, so any token will do.

    Example:
        >>> left_padded([[5, 6], [7]], pad=0, device="cpu")["input_ids"].tolist()
        [[5, 6], [0, 7]]
    """
    import torch

    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def end_tokens(model: Any, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens that end an answer: the template's end of turn, which is trained, and the model's own."""
    configured = model.generation_config.eos_token_id
    ends = set(configured) if isinstance(configured, list) else {configured}
    ends |= {tokenizer.eos_token_id, end_of_turn(tokenizer)}
    return {token for token in ends if token is not None}


def choice(ends: set[int], max_tokens: int, temperature: float = 0.0, top_p: float = 1.0) -> "GenerationConfig":
    """Generation as requested (greedy at temperature 0), without the penalties or beams of a model's own config."""
    from transformers import GenerationConfig

    fixed = {"max_new_tokens": max_tokens, "eos_token_id": sorted(ends), "pad_token_id": min(ends)}
    if temperature < MIN_TEMPERATURE:
        return GenerationConfig(**fixed, do_sample=False)
    return GenerationConfig(**fixed, do_sample=True, temperature=temperature, top_p=top_p, top_k=0)
