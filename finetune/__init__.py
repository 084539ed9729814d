"""Before & After: fine-tune a small language model and see, with evidence, whether it helped.

The folders follow the journey: `data` -> `models` -> `train` -> `chat` -> `evaluate` -> `export`. The interfaces are
`ui` (the page), `cli` (``python -m finetune``), `api` (OpenAI-compatible HTTP) and `notebook`, which is offered here:

    >>> import finetune
    >>> run = finetune.load("sample_data/recipes").train(preset="quick")
    >>> print(run.chat("Title: Toast"), run.evaluate(), sep="\\n")

It is imported when it is first used: whatever needs only a part of the package need not wait for the rest.
"""

import os
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError

__version__ = "0.1.0"
__all__ = ["Answers", "FinetuneError", "Rows", "TunedModel", "load", "run", "runs"]

# Training data is private: libraries must not send telemetry, unless the user has enabled it.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# After each event of the page, Gradio would sort out the last ten thousand with pandas, for a view that is closed here:
# a quarter of what the server computed when three pages had been open for some minutes.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")

# Before PyTorch comes: threads of one computation that wait for each other spin for a long time, and take the processor
# from a chat or a run beside it, and from the very thread that they wait for. With fewer spins (libgomp's own number
# where there are more threads than processors) a run alone is as fast, and one beside a busy chat six times as fast.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from finetune.notebook import Answers, Rows, TunedModel, load, run, runs
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from finetune import notebook

        return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
