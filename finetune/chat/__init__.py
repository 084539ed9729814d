"""Both answers to one prompt, streamed together from one resident base model.

Importing this package is quick: torch and peft are imported when an engine loads its model.
"""

from finetune.chat.engine import Ask, Engine, Reply, Sampling

__all__ = ["Ask", "Engine", "Reply", "Sampling"]
