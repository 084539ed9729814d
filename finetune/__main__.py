"""``python -m finetune`` is the command line of Before & After."""

import os
import sys

from finetune.cli import main

sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names may not be valid text
try:
    code = main()
    sys.stdout.flush()
except BrokenPipeError:  # the reader closed the pipe, as `head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 141
sys.exit(code)
