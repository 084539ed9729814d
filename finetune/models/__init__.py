"""Find and load a model by name, and render examples to token ids with its chat template.

Importing this package is quick: torch and transformers are imported inside the functions.
"""

from finetune.models import hub
from finetune.models.catalogue import CATALOGUE, DEFAULT, Entry, entry
from finetune.models.compare import LeftOut, What, left_out
from finetune.models.device import has_gpu
from finetune.models.generation import choice, end_tokens, left_padded
from finetune.models.light import counting_tokenizer
from finetune.models.load import import_libraries, load_empty, load_model, load_tokenizer, load_weights
from finetune.models.render import IGNORED, LONGEST, Rendered, Span, render, sequences
from finetune.models.source import Found, copy_of, find, here, local, refuse_name, stamp
from finetune.models.template import can_think, end_of_turn, is_learned, prompt_ids, split_thought, thinks

__all__ = [
    "CATALOGUE",
    "DEFAULT",
    "IGNORED",
    "LONGEST",
    "LeftOut",
    "Entry",
    "Found",
    "Rendered",
    "Span",
    "What",
    "can_think",
    "choice",
    "copy_of",
    "counting_tokenizer",
    "end_of_turn",
    "end_tokens",
    "entry",
    "find",
    "has_gpu",
    "here",
    "hub",
    "import_libraries",
    "is_learned",
    "left_out",
    "left_padded",
    "load_empty",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "local",
    "prompt_ids",
    "refuse_name",
    "render",
    "sequences",
    "stamp",
    "split_thought",
    "thinks",
]
