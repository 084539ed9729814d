"""The verb `deploy`: says what would be done and what it costs, asks, and does it."""

import argparse
import sys
from pathlib import Path

from finetune.cli.check import Answer, log
from finetune.errors import ConfigError


def deploy(options: argparse.Namespace) -> Answer:
    """`deploy OWNER/NAME`: exit 0 if the Space was made or updated, 1 if the answer was no."""
    from finetune.deploy import Deployment

    asked = Deployment(options.repo, Path.cwd(), options.hardware, options.private, options.replace)
    terminal = sys.stdin is not None and sys.stdin.isatty() and not options.json
    if not options.yes and not terminal:
        raise ConfigError(
            "Nobody is here to confirm the cost.",
            where="--yes",
            fix="Run it in a terminal without --json, or add --yes.",
            code="usage",
        )
    for sentence in asked.look():
        log(sentence)
    if not options.yes and not _agreed():
        log("Nothing was changed.")
        return 1, {"space": None}
    address = asked.carry_out(log)
    log("It is being built; its page shows the progress.")
    print(address)
    return 0, {"space": address, **asked.as_dict()}


def _agreed() -> bool:
    log("Go on? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
