"""Did it help? Four arms on the same held-out rows, paired statistics, and one sentence.

Example:
    >>> task = of_run(run, store)
    >>> for done, of in measure(task, engine): ...
    >>> conclude(task, "recipes").verdict.sentence
    'Fine-tuning helped. Tuned is right on 83 of 100, …'
"""

from finetune.evaluate.arms import MODELS
from finetune.evaluate.findings import Report
from finetune.evaluate.kinds import KINDS, Look, kind_of, look
from finetune.evaluate.measure import answered, carry, longest, measure, paced
from finetune.evaluate.power import Foreseen, foresee
from finetune.evaluate.report import conclude, judged, keep, kept, known, known_before, report
from finetune.evaluate.task import (
    ARMS,
    LEFT_OUT,
    MOST_ROWS,
    NOTHING_HELD_OUT,
    Task,
    of_data,
    of_dataset,
    of_learned,
    of_run,
)

__all__ = [
    "ARMS",
    "KINDS",
    "LEFT_OUT",
    "MODELS",
    "MOST_ROWS",
    "NOTHING_HELD_OUT",
    "Foreseen",
    "Look",
    "Report",
    "Task",
    "answered",
    "carry",
    "conclude",
    "foresee",
    "judged",
    "keep",
    "kept",
    "kind_of",
    "known",
    "known_before",
    "longest",
    "look",
    "measure",
    "of_data",
    "of_dataset",
    "of_learned",
    "of_run",
    "paced",
    "report",
]
