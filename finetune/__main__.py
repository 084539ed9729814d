"""``python -m finetune``, or ``before-after`` where it is installed, is the command line of Before & After."""

import errno
import os
import sys

from finetune.cli import main

UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EBADF)


def run() -> int:
    """The command line as a process: also an output that is closed, full or not read to its end is no traceback."""
    if sys.stdout is None:  # closed by the shell: >&-
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # file names may not be valid text
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: The output cannot be written ({error.strerror}).", file=sys.stderr)
        code = 2
    return code


if __name__ == "__main__":
    sys.exit(run())
