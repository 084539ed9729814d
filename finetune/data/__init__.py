"""A file becomes chat examples, and a report of every problem on the way.

Example:
    >>> dataset = load("sample_data/recipes")
    >>> dataset.rows == len(dataset.examples) + len(dataset.rejected)
    True
"""

from finetune.data.example import Dataset, Example, Problem, Rejected, Split
from finetune.data.load import load, with_validation
from finetune.data.mapping import Mapping, guess_mapping
from finetune.data.samples import Sample, samples
from finetune.data.split import held_out, label_rows
from finetune.data.texts import visible

__all__ = [
    "Dataset",
    "Example",
    "Mapping",
    "Problem",
    "Rejected",
    "Sample",
    "Split",
    "guess_mapping",
    "held_out",
    "label_rows",
    "load",
    "samples",
    "visible",
    "with_validation",
]
