"""A run as a script and as a notebook that repeat it without this app."""

from finetune.export.script.write import make_script, notebook, script, write_script

__all__ = ["make_script", "notebook", "script", "write_script"]
