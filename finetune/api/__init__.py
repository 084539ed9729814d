"""The OpenAI-compatible HTTP API: ``/v1/models`` and ``/v1/chat/completions``."""

from finetune.api.openai import routes

__all__ = ["routes"]
