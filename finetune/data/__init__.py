"""A file becomes chat examples, and a report of every problem on the way.

Example:
    >>> dataset = load("sample_data/recipes")
    >>> dataset.rows == len(dataset.examples) + len(dataset.rejected)
    True
"""

from finetune.data.dataset import Dataset, Split
from finetune.data.example import Example, Problem, Rejected
from finetune.data.fixes import Fix, Length, apply, fixes
from finetune.data.hub import own_folder
from finetune.data.load import load, load_hub, raw_rows, with_validation
from finetune.data.mapping import Mapping, guess_mapping
from finetune.data.preview import Segment, preview
from finetune.data.read import ENDINGS
from finetune.data.report import report, write_rejected
from finetune.data.samples import DIRTY, Sample, samples
from finetune.data.split import held_out, label_rows
from finetune.data.texts import visible
from finetune.data.tokens import TokenStats, token_stats

__all__ = [
    "DIRTY",
    "ENDINGS",
    "Dataset",
    "Example",
    "Fix",
    "Length",
    "Mapping",
    "Problem",
    "Rejected",
    "Sample",
    "Segment",
    "Split",
    "TokenStats",
    "apply",
    "fixes",
    "guess_mapping",
    "held_out",
    "label_rows",
    "load",
    "load_hub",
    "own_folder",
    "preview",
    "raw_rows",
    "report",
    "samples",
    "token_stats",
    "visible",
    "with_validation",
    "write_rejected",
]
