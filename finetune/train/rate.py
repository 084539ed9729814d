"""The learning rate of a run that names none: the smaller the model, the larger.

2e-4, as most recipes have it, is a habit from models of 7 billion weights. A LoRA adapter takes ten times the rate of
full fine-tuning at any rank, and small models take more still. The formula is the one that tinker-cookbook
(`hyperparam_utils.get_lr`) fits to its sweeps, described in "LoRA Without Regret" (Thinking Machines Lab, 2025):

    5e-5 × 10 × (2000 / hidden size) ^ exponent        exponent: 0.781 for Llama, 0.0775 for Qwen

Other families get Llama's exponent. `docs/tuning.md` has what it is worth on the samples.
"""

from typing import TYPE_CHECKING, Any

from finetune import models

if TYPE_CHECKING:
    from finetune.data.example import Kind

USUAL, WIDTH = 5e-4, 2000
"""The rate at that hidden size, in any family."""

PREFERENCES = 0.1
"""Of that rate, what a run on preferences takes: it compares answers it can give already, and need not learn them."""

EXPONENTS = {"qwen": 0.0775}
EXPONENT = 0.781


def fitting(config: Any, kind: "Kind" = "answers") -> float:
    """The learning rate that fits the model of this configuration (transformers' own) and this kind of rows, to two
    digits.

    Example:
        >>> fitting(AutoConfig.for_model("llama", hidden_size=576))
        0.0013
    """
    family = next((name for name in EXPONENTS if config.get_text_config().model_type.startswith(name)), "")
    share, width = 1 if kind == "answers" else PREFERENCES, hidden_size(config) or WIDTH
    return float(f"{share * USUAL * (WIDTH / width) ** EXPONENTS.get(family, EXPONENT):.1e}")


def fitting_model(name: str, kind: "Kind" = "answers") -> float:
    """The learning rate that fits the model of this name and this kind of rows; it is fetched if it is not here.

    Raises:
        ModelError: it is not to be had.

    Example:
        >>> fitting_model("HuggingFaceTB/SmolLM2-135M-Instruct")
        0.0013
    """
    return fitting(models.load_empty(models.find(name)).config, kind)


def hidden_size(config: Any) -> int | None:
    """How many numbers the model has for a token between its layers; None where no one width is named."""
    return getattr(config.get_text_config(), "hidden_size", None)
