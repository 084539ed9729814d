"""The pages of docs/ that follow from the code: ``python -m tests.docs`` writes them, a test holds them to it."""

import argparse
from pathlib import Path

from finetune import cli, settings
from finetune.train.config import TrainConfig

DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- Made by `python -m tests.docs`: change the code it comes from instead. -->"


KEPT = """\
`GRADIO_SERVER_PORT` is the port (7860). Everything durable is in `FINETUNE_HOME`: the record `finetune.db`, datasets,
models, and `runs/<id>/` with the worker's log, its checkpoints and the adapter. Page, command line and API see the
same runs."""

GIVEN = """\
On the Train tab, as `--set key=value`, or as lines `key: value` of a YAML file (`train FILE.yaml`, with a line
`data: PATH`). The presets `quick`, `balanced` (the defaults) and `thorough` fill in several at once."""


def settings_page() -> str:
    """Every environment variable and every setting of a run."""
    rows = [line for line in (settings.__doc__ or "").splitlines() if line.startswith("| ")]
    lines = [
        "# Settings",
        MADE,
        "## The server's, from the environment",
        "\n".join([rows[0], "|---|---|---|", *rows[1:]]),
        KEPT,
        "## A run's",
        GIVEN,
        "| setting | default | what it does |\n|---|---|---|\n" + "\n".join(map(_row, TrainConfig.model_fields)),
    ]
    return "\n\n".join(lines) + "\n"


def _row(name: str) -> str:
    field = TrainConfig.model_fields[name]
    default = "automatic" if field.default is None else f"`{field.default}`"
    return f"| `{name}` | {default} | {field.description} |"


def command_page() -> str:
    """Every verb with what it takes."""
    verbs = next(action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    parts = ["# Command line", MADE, cli.__doc__.partition("\n")[2].strip()]
    for name, parser in verbs.choices.items():
        parts += [f"## {name}", parser.description, f"```\n{_usage(parser)}\n```"]
        parts += [table] if (table := _arguments(parser)) else []
    return "\n\n".join(parts) + "\n"


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=100)
    formatter.add_usage(None, parser._actions, parser._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip()


def _arguments(parser: argparse.ArgumentParser) -> str:
    shown = [action for action in parser._actions if action.help and action.dest not in ("help", "json")]
    rows = [f"| `{', '.join(action.option_strings) or action.dest}` | {action.help} |" for action in shown]
    return "| | |\n|---|---|\n" + "\n".join(rows) if rows else ""


PAGES = {"settings.md": settings_page, "command-line.md": command_page}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
