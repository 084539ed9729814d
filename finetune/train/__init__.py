"""Examples and one `TrainConfig` become a run: metrics, held-out loss and an adapter.

`start` records the run and returns at once; a `Supervisor` (in the server, or in the command
line) starts a separate worker process for it. Importing this package is quick.
"""

from finetune.train.config import LONGEST, TrainConfig
from finetune.train.kept import (
    FixedWith,
    fixed_with,
    keep_dataset,
    open_dataset,
    originals,
    reload,
    reopen,
    save_dataset,
)
from finetune.train.progress import Progress, progress, seconds_for
from finetune.train.start import adapter_folder, run_folder, start, stop
from finetune.train.supervisor import Supervisor

__all__ = [
    "LONGEST",
    "FixedWith",
    "Progress",
    "Supervisor",
    "TrainConfig",
    "adapter_folder",
    "fixed_with",
    "keep_dataset",
    "open_dataset",
    "originals",
    "progress",
    "reload",
    "reopen",
    "run_folder",
    "save_dataset",
    "seconds_for",
    "start",
    "stop",
]
