"""Recommended small open models; any other Hub id or local folder works too."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A model as its card describes it: `parameters` in millions, `gated` if the Hub requires accepting its terms."""

    name: str
    parameters: int
    licence: str
    gated: bool
    note: str


DEFAULT = "HuggingFaceTB/SmolLM2-135M-Instruct"

CATALOGUE = (
    Entry(DEFAULT, 135, "Apache-2.0", False, "The default: trains on a laptop, works without the Hub."),
    Entry("HuggingFaceTB/SmolLM2-360M-Instruct", 362, "Apache-2.0", False, "The default's bigger sibling."),
    Entry("Qwen/Qwen3-0.6B", 596, "Apache-2.0", False, "Strong for its size; can reason step by step."),
    Entry("Qwen/Qwen2.5-0.5B-Instruct", 494, "Apache-2.0", False, "Many languages, good at JSON."),
    Entry("google/gemma-3-270m-it", 268, "Gemma", True, "Made to be fine-tuned; large vocabulary."),
    Entry("meta-llama/Llama-3.2-1B-Instruct", 1236, "Llama 3.2 Community", True, "The largest here: needs a GPU."),
    Entry("LiquidAI/LFM2-350M", 354, "LFM Open License 1.0", False, "A hybrid of convolution and attention."),
)


def entry(name: str) -> Entry | None:
    """The catalogue's entry for a model name, or None if it is not listed.

    Example:
        >>> entry(DEFAULT).licence
        'Apache-2.0'
    """
    return next((known for known in CATALOGUE if known.name == name), None)
