"""What kind of answer the data wants, and whether one is right: the part of a comparison that can be counted."""

from finetune.evaluate.kinds import KINDS, Look, kind_of, look

__all__ = ["KINDS", "Look", "kind_of", "look"]
