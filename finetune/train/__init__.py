"""Examples and one `TrainConfig` become a run: metrics, held-out loss and an adapter.

`start` records the run and returns at once; a `Supervisor` (in the server, or in the command
line) starts a separate worker process for it. Importing this package is quick.
"""

from finetune.train.causes import remedy
from finetune.train.config import LONGEST, TrainConfig
from finetune.train.kept import (
    FixedWith,
    fixed_with,
    keep_dataset,
    open_dataset,
    originals,
    reload,
    reopen,
    rows_of,
    save_dataset,
    write_examples,
)
from finetune.train.manage import IMPORTED, clean, delete, delete_dataset, imported, rename
from finetune.train.notes import new_notes
from finetune.train.plan import Plan, machine_memory, measure, plan, told, within
from finetune.train.presets import PRESETS, Preset, preset
from finetune.train.probe import Measured
from finetune.train.progress import Note, Progress, Tally, duration, held_out, progress, seconds_for
from finetune.train.start import (
    adapter_folder,
    can_resume,
    checkpoint_steps,
    pause,
    resume,
    run_folder,
    start,
    state_word,
    stop,
)
from finetune.train.supervisor import Supervisor

__all__ = [
    "IMPORTED",
    "LONGEST",
    "PRESETS",
    "FixedWith",
    "Measured",
    "Note",
    "Plan",
    "Preset",
    "Progress",
    "Supervisor",
    "Tally",
    "TrainConfig",
    "adapter_folder",
    "can_resume",
    "checkpoint_steps",
    "clean",
    "delete",
    "delete_dataset",
    "duration",
    "fixed_with",
    "held_out",
    "imported",
    "keep_dataset",
    "machine_memory",
    "measure",
    "new_notes",
    "open_dataset",
    "originals",
    "pause",
    "plan",
    "preset",
    "progress",
    "reload",
    "remedy",
    "rename",
    "reopen",
    "resume",
    "run_folder",
    "rows_of",
    "save_dataset",
    "seconds_for",
    "start",
    "state_word",
    "stop",
    "told",
    "within",
    "write_examples",
]
