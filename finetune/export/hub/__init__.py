"""An exported folder goes to the Hub: private unless asked otherwise, with the visitor's own token."""

from finetune.export.hub.upload import TITLE, push

__all__ = ["TITLE", "push"]
