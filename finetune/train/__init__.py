"""Examples and one `TrainConfig` become a run: metrics, held-out loss and an adapter.

`start` records the run and returns at once; a `Supervisor` (in the server, or in the command
line) starts a separate worker process for it. Importing this package is quick.
"""

from finetune.train.config import TrainConfig
from finetune.train.progress import Progress, progress
from finetune.train.start import adapter_folder, open_dataset, run_folder, save_dataset, start, stop
from finetune.train.supervisor import Supervisor

__all__ = [
    "Progress",
    "Supervisor",
    "TrainConfig",
    "adapter_folder",
    "open_dataset",
    "progress",
    "run_folder",
    "save_dataset",
    "start",
    "stop",
]
