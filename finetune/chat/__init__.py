"""Both answers to one prompt, streamed together from one resident base model.

Importing this package is quick: torch and peft are imported when an engine loads its model.
"""

from finetune.chat.engine import Ask, Engine
from finetune.chat.reply import Reply, Sampling

__all__ = ["Ask", "Engine", "Reply", "Sampling"]
