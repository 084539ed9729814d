"""A run in one zip: written here, read again on another machine as a stranger's file is read."""

from finetune.export.bundle.read import read_bundle
from finetune.export.bundle.write import make_bundle, write_bundle

__all__ = ["make_bundle", "read_bundle", "write_bundle"]
