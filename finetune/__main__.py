"""``python -m finetune`` is the command line of Before & After."""

import os
import sys

from finetune.cli import main

sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name of a file may be no text
try:
    code = main()
    sys.stdout.flush()
except BrokenPipeError:  # whoever read it has enough: head, say
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 141
sys.exit(code)
