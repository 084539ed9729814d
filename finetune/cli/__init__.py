"""The command line: the same functions as the page, for scripts and terminals.

With ``--json``, stdout is exactly one JSON object; everything else goes to stderr. Errors are always
``{"error": {"code", "message", "where", "fix"}}``; a failed run also reports its figures. Exit codes: 0 success, 1 a
negative result (data not trainable, run failed), 2 wrong usage or unreadable input. Installed with ``pip install .``,
the command is ``before-after`` instead of ``python -m finetune``.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune import __version__
from finetune.cli.arguments import VERBS, Parser
from finetune.errors import ConfigError, FinetuneError, RunError
from finetune.files import FULL, NOT_WRITABLE

INSTALLED = "before-after"
PROGRAM = INSTALLED if Path(sys.argv[0]).stem == INSTALLED else "python -m finetune"
"""How this was started, and can be again: the installed command, or the package in its folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code.

    Example:
        >>> main(["check", "sample_data/recipes"])
        0
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in arguments
    try:
        options = _options(arguments)
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            code, answer = _done(options)
    except FinetuneError as error:
        code, answer = 2, {"error": error.as_dict()}
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        code, answer = 130, {"error": RunError("Interrupted.", code="interrupted").as_dict()}
    if as_json:
        print(json.dumps(answer))
    return code


def _done(options: argparse.Namespace) -> tuple[int, Any]:
    """What the verb answers.

    Raises:
        FinetuneError: what it raises, also instead of what the system says of a file (code ``not_writable``).
    """
    try:
        code, answer = options.verb(options)
    except OSError as error:  # one that names no file is about the output, which `__main__` tells
        if isinstance(error, FinetuneError) or error.filename is None or error.errno not in (*FULL, *NOT_WRITABLE):
            raise
        raise RunError(
            f"This cannot be read or written ({error.strerror}).",
            where=str(error.filename),
            fix="Check its permissions and the free space, or set FINETUNE_HOME to a folder you can write to.",
            code="not_writable",
        ) from error
    return code, answer


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed options. argparse itself points from an unknown one to the help of no verb.

    Raises:
        ConfigError: wrong usage.
    """
    options, unknown = _parser(arguments[0] if arguments else "").parse_known_args(arguments)
    if unknown:
        raise ConfigError(
            f"Unrecognized arguments: {' '.join(unknown)}.",
            fix=f"See: {PROGRAM} {arguments[0]} --help",
            code="usage",
        )
    return options


def _parser(only: str | None = None) -> Parser:
    """The parser of every verb. Given one, only its arguments are added: their choices and defaults are the stations'
    own, and importing every station takes a second.
    """
    parser = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Fine-tune a small language model, and see whether it helped.",
    )
    parser.add_argument("--version", action="version", version=f"{INSTALLED} {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    for name, (text, arguments) in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        if only not in (None, name):
            continue
        if name != "serve":
            sub.add_argument("--json", action="store_true", help="print exactly one JSON object to stdout")
        arguments(sub)
    return parser
