"""Examples and one `TrainConfig` become a run: metrics, held-out loss and an adapter.

`start` records the run and returns at once; a `Supervisor` (in the server, or in the command
line) starts a separate worker process for it. Importing this package is quick.
"""

from finetune.models import LONGEST
from finetune.train.config import TrainConfig
from finetune.train.failures import remedy
from finetune.train.lineage import learned_before, shape, weights_of
from finetune.train.manage import IMPORTED, clean, delete, delete_dataset, imported, rename
from finetune.train.notes import new_notes
from finetune.train.plan import Plan, machine_memory, measure, plan, within
from finetune.train.presets import PRESETS, Preset, preset, preset_of
from finetune.train.probe import Measured
from finetune.train.progress import Note, Progress, Tally, duration, held_out, measured, progress, seconds_for
from finetune.train.rate import fitting_model
from finetune.train.start import (
    adapter_folder,
    can_resume,
    checkpoint_steps,
    limits_of_server,
    most_active,
    pause,
    resume,
    rows_of_run,
    run_folder,
    start,
    state_word,
    stop,
)
from finetune.train.supervisor import Supervisor
from finetune.train.sweep import MINUTES, Sweep, look, settings_of, start_sweep

__all__ = [
    "IMPORTED",
    "LONGEST",
    "MINUTES",
    "PRESETS",
    "Measured",
    "Note",
    "Plan",
    "Preset",
    "Progress",
    "Supervisor",
    "Sweep",
    "Tally",
    "TrainConfig",
    "adapter_folder",
    "can_resume",
    "checkpoint_steps",
    "clean",
    "delete",
    "delete_dataset",
    "duration",
    "fitting_model",
    "held_out",
    "imported",
    "learned_before",
    "look",
    "limits_of_server",
    "machine_memory",
    "measure",
    "measured",
    "most_active",
    "new_notes",
    "pause",
    "plan",
    "preset",
    "preset_of",
    "progress",
    "remedy",
    "rename",
    "resume",
    "rows_of_run",
    "run_folder",
    "seconds_for",
    "settings_of",
    "shape",
    "start",
    "start_sweep",
    "state_word",
    "stop",
    "weights_of",
    "within",
]
