"""A run in one zip: written here, read again on another machine as a stranger's file is read."""

from finetune.export.bundle.read import read_bundle
from finetune.export.bundle.write import write_bundle

__all__ = ["read_bundle", "write_bundle"]
