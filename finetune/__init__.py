"""Before & After: fine-tune a small language model and see, with evidence, whether it helped.

The folders follow the journey: `data` -> `models` -> `train` -> `chat`. The doors to it are
`ui` (the page), `cli` (``python -m finetune``) and `api` (OpenAI-compatible HTTP).
"""
