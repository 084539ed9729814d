"""The OpenAI-compatible HTTP API: files, fine-tuning jobs, models and chat, under ``/v1`` and ``/openai`` (Azure)."""

from finetune.api.app import routes

__all__ = ["routes"]
