"""A file becomes chat examples, and a report of every problem on the way.

Example:
    >>> dataset = load("sample_data/recipes")
    >>> dataset.rows == len(dataset.examples) + len(dataset.rejected)
    True
"""

from finetune.data.example import Dataset, Example, Problem, Rejected
from finetune.data.load import load
from finetune.data.read import ENDINGS
from finetune.data.samples import Sample, samples
from finetune.data.split import held_out

__all__ = ["ENDINGS", "Dataset", "Example", "Problem", "Rejected", "Sample", "held_out", "load", "samples"]
