"""An exported folder goes to the Hub: private unless asked otherwise, with the visitor's own token."""

from finetune.export.hub.upload import TITLE, owners, push

__all__ = ["TITLE", "owners", "push"]
