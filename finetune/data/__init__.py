"""A file becomes chat examples, and a report of every problem on the way.

Example:
    >>> dataset = load("sample_data/recipes")
    >>> dataset.rows == len(dataset.examples) + len(dataset.rejected)
    True
"""

from finetune.data.choices import HEADER, NO_HEADER
from finetune.data.compare import Comparison, Difference, compare
from finetune.data.dataset import Dataset, Part, Split
from finetune.data.drafts import add_step, discard_draft, draft, settle, undo_step
from finetune.data.edits import Edited, apply_edits, checked, mark, one_answer
from finetune.data.example import Example, Problem, Rejected, in_order
from finetune.data.fixes import Fix, Length, apply, fixes
from finetune.data.guess import guess_mapping
from finetune.data.hub import own_folder
from finetune.data.hub import parse as hub_parts
from finetune.data.library import (
    FixedWith,
    fixed_with,
    keep_dataset,
    kept_parts,
    originals,
    reload,
    reopen,
    rows_of,
    save_dataset,
    write_examples,
)
from finetune.data.load import load, load_hub, raw_rows, with_validation
from finetune.data.mapping import Mapping
from finetune.data.mix import SHARES, clear, load_mix, said_of
from finetune.data.preview import Segment, preview
from finetune.data.printed import summary
from finetune.data.read import ENDINGS
from finetune.data.report import report, write_rejected
from finetune.data.row_split import RowSplit, choose_split, kept_rows, read_split, rows_hash, set_apart
from finetune.data.samples import DIRTY, Sample, samples
from finetune.data.search import all_known, next_with, preview_replace, walkable
from finetune.data.shapes.kinds import reads_back
from finetune.data.split import different_answers, held_out, held_places, label_rows
from finetune.data.steps import Add, Counts, Delete, Edit, Replace
from finetune.data.texts import visible
from finetune.data.tokens import TokenStats, WillTrain, token_stats
from finetune.data.write import KINDS, write_rows

__all__ = [
    "Add",
    "Comparison",
    "Counts",
    "DIRTY",
    "Dataset",
    "Delete",
    "Difference",
    "ENDINGS",
    "Edit",
    "Edited",
    "Example",
    "Fix",
    "FixedWith",
    "HEADER",
    "KINDS",
    "Length",
    "Mapping",
    "NO_HEADER",
    "Part",
    "Problem",
    "Rejected",
    "Replace",
    "RowSplit",
    "SHARES",
    "Sample",
    "Segment",
    "Split",
    "TokenStats",
    "WillTrain",
    "add_step",
    "all_known",
    "apply",
    "apply_edits",
    "checked",
    "choose_split",
    "clear",
    "compare",
    "different_answers",
    "discard_draft",
    "draft",
    "fixed_with",
    "fixes",
    "guess_mapping",
    "hub_parts",
    "held_out",
    "held_places",
    "in_order",
    "keep_dataset",
    "kept_parts",
    "kept_rows",
    "label_rows",
    "load",
    "load_hub",
    "load_mix",
    "mark",
    "next_with",
    "one_answer",
    "originals",
    "own_folder",
    "preview",
    "preview_replace",
    "raw_rows",
    "read_split",
    "reads_back",
    "reload",
    "reopen",
    "report",
    "rows_hash",
    "set_apart",
    "rows_of",
    "said_of",
    "samples",
    "save_dataset",
    "settle",
    "summary",
    "token_stats",
    "undo_step",
    "visible",
    "walkable",
    "with_validation",
    "write_examples",
    "write_rejected",
    "write_rows",
]
