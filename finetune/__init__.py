"""Before & After: fine-tune a small language model and see, with evidence, whether it helped.

The folders follow the journey: `data` -> `models` -> `train` -> `chat` -> `evaluate` -> `export`. The interfaces are
`ui` (the page), `cli` (``python -m finetune``) and `api` (OpenAI-compatible HTTP).
"""

import os

__version__ = "0.1.0"

# Training data is private: libraries must not send telemetry, unless the user has enabled it.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
