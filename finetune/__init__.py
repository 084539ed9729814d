"""Before & After: fine-tune a small language model and see, with evidence, whether it helped.

The folders follow the journey: `data` -> `models` -> `train` -> `chat`. The doors to it are
`ui` (the page), `cli` (``python -m finetune``) and `api` (OpenAI-compatible HTTP).
"""

import os

# What people train on is theirs: no library of ours calls home about it, unless they asked for that.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
