"""Base and tuned answers to one prompt, streamed together from one base model in memory.

Importing this package is quick: torch and peft are imported only when an engine loads a model.
"""

from finetune.chat.engine import Ask, Engine
from finetune.chat.reply import Reply, Sampling

__all__ = ["Ask", "Engine", "Reply", "Sampling"]
