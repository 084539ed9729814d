"""The arguments of every verb. Each function imports its station itself: all of them together take a second."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from finetune.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others; they name the verb whose help says more."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}.", fix=f"See: {self.prog} --help", code="usage")


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import check, source

    parser.set_defaults(verb=check.check)
    _rows_arguments(parser)
    source.add_settings(parser)


def _preview_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import check

    parser.set_defaults(verb=check.preview)
    _rows_arguments(parser)
    parser.set_defaults(set=[], preset=None)
    parser.add_argument("--row", type=int, default=1, help="number of the accepted example, from 1")


def _rows_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import source

    parser.add_argument(
        "data",
        nargs="+",
        help="a file (or several), a folder with a train.* file, hub:owner/name[:config[:split]], - for what is piped "
        "in, or a YAML file with data: PATH",
    )
    parser.add_argument("--model", help="model whose tokenizer counts the tokens; default: the default model")
    parser.add_argument(
        "--max-length", type=_positive, help="longest example, in tokens; longer ones are cut; default: as in training"
    )
    source.add_rows(parser)


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import jobs, verbs

    parser.set_defaults(verb=verbs.train_verb)
    _run_arguments(parser)
    parser.add_argument(
        "--from",
        dest="parent",
        metavar="RUN",
        help="continue from this run's adapter, with its model and adapter shape",
    )
    parser.add_argument(
        "--on",
        choices=jobs.ON,
        default=jobs.HERE,
        help="where to train: here (default); queue: leave it to a running server or to accelerate launch; hf-jobs: on "
        "your own Hugging Face account, which pays for it (see docs/jobs.md)",
    )
    parser.add_argument("--flavor", help="for a job: the machine, such as t4-small; default: cpu-upgrade")
    parser.add_argument("--timeout", help="for a job: the time after which it is ended, such as 2h; default: 30m")
    parser.add_argument("--yes", action="store_true", help="for a job: start it without asking")


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import verbs

    parser.set_defaults(verb=verbs.plan)
    _run_arguments(parser)
    parser.add_argument("--minutes", type=float, help="also find how many steps fit in this many minutes")


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune import train
    from finetune.cli import sweep

    parser.set_defaults(verb=sweep.sweep)
    _run_arguments(parser)
    parser.add_argument(
        "--minutes", type=float, default=train.MINUTES, help=f"how long it may take; default: {train.MINUTES:g}"
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune import train
    from finetune.cli import source, verbs

    parser.add_argument(
        "data",
        nargs="+",
        help="a dataset (or several files, or - for what is piped in), or a YAML file of settings with a line "
        "'data: PATH'",
    )
    source.add_rows(parser)
    source.add_settings(parser, ": " + ", ".join(one.name for one in train.PRESETS))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = verbs.settings_help()


def _runs_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import manage

    parser.set_defaults(verb=manage.runs)
    can = "stop RUN (or --all), pause RUN, resume RUN, rename RUN NAME, delete RUN; default: list them"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, help=can)
    for name, function, text in (
        ("stop", manage.stop, "Stop a run; its adapter is kept."),
        ("pause", manage.pause, "Pause a run after its next step."),
        ("resume", manage.resume, "Queue a paused, failed or stopped run again."),
        ("rename", manage.rename, "Give a run another name."),
        ("delete", manage.delete, "Delete a run that has ended, with its files."),
    ):
        sub = _action(actions, name, function, text)
        sub.add_argument("run", help="a run's id", nargs="?" if name == "stop" else None)
        if name == "stop":
            sub.add_argument("--all", action="store_true", help="every run that has not ended")
        if name == "rename":
            sub.add_argument("name", help="the new name")


def _datasets_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import manage

    parser.set_defaults(verb=manage.datasets)
    can = "delete DATASET (--with-runs), list; default: list them"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, help=can)
    _action(actions, "list", manage.datasets, "List the stored datasets.")
    sub = _action(actions, "delete", manage.delete_dataset, "Delete a dataset with its files.")
    sub.add_argument("dataset", help="a dataset's id")
    sub.add_argument("--with-runs", action="store_true", help="also delete the runs that use it; all must have ended")


def _action(actions: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    """A subcommand of a verb. Its --json has no default, which would overwrite a --json given before the action."""
    sub: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
    sub.set_defaults(verb=function)
    sub.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print exactly one JSON object to stdout"
    )
    return sub


def _chat_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import verbs

    parser.set_defaults(verb=verbs.chat_verb)
    parser.add_argument("run", help="a run's id")
    parser.add_argument("--prompt", help="the prompt; default: read prompts from the terminal or stdin, one per line")
    parser.add_argument("--system", help="system prompt; default: the one the run was trained with")
    parser.add_argument("--max-tokens", type=_positive, default=256, help="longest answer, in tokens")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest token; at most 2")
    parser.add_argument("--seed", type=int, help="repeats an answer above temperature 0; default: another each time")
    parser.add_argument("--strength", type=float, default=1.0, help="scale of the adapter: 0 off, 1 as trained")
    parser.add_argument(
        "--checkpoint",
        type=_positive,
        metavar="STEP",
        help="use the checkpoint of this step instead of the final adapter",
    )


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune import evaluate
    from finetune.cli import verbs

    parser.set_defaults(verb=verbs.evaluate_verb)
    parser.add_argument("run", nargs="?", help="a run's id; without one, give --model and --data")
    parser.add_argument("--model", help="a base model, with --data and no run: is fine-tuning needed at all?")
    parser.add_argument(
        "--data", help="evaluate on this file instead of the run's held-out rows; with --model: the dataset"
    )
    parser.add_argument("--arms", help="comma-separated, from " + ",".join(evaluate.ARMS) + "; default: all that apply")
    parser.add_argument(
        "--limit",
        type=_positive,
        default=evaluate.MOST_ROWS,
        help="maximum number of rows to evaluate, sampled with the run's seed",
    )
    parser.add_argument("--metric", choices=evaluate.KINDS, help="the kind of answer; default: inferred from the data")
    parser.add_argument("--schema", metavar="FILE", help="a JSON Schema; reports how many answers conform to it")


def _strength_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import verbs

    parser.set_defaults(verb=verbs.strength_verb)
    parser.add_argument("run", help="a run's id")
    parser.add_argument("--use", type=float, metavar="S", help="only choose strength S for exports (1: as trained)")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import verbs
    from finetune.export.formats import FORMATS, PUSHABLE
    from finetune.export.parity import ROWS

    parser.set_defaults(verb=verbs.export_verb)
    parser.add_argument("run", help="a run's id")
    parser.add_argument("--to", required=True, choices=[*(one.key for one in FORMATS), "hub"], help="export format")
    parser.add_argument("--out", default=".", metavar="DIR", help="output folder; default: the current one")
    parser.add_argument("--dtype", default="float32", help="precision of merged weights: float32, float16, bfloat16")
    parser.add_argument("--quant", default="f16", help="GGUF type: f16, q8_0")
    parser.add_argument(
        "--strength", type=float, help="strength of the adapter; default: as chosen for the run, else 1"
    )
    parser.add_argument("--rows", type=_positive, default=ROWS, help="number of held-out prompts in the check")
    parser.add_argument("--no-check", action="store_true", help="skip the check")
    parser.add_argument("--with-data", action="store_true", help="for a bundle: include the data")
    parser.add_argument("--repo", help="for the Hub: owner/name, or just a name in your own namespace")
    parser.add_argument("--format", default="adapter", choices=PUSHABLE, help="for the Hub: the format to push")
    parser.add_argument("--public", action="store_true", help="for the Hub: make the repository public")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="for the Hub: push even if the repository has other content, replacing files of the same name",
    )


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import verbs

    parser.set_defaults(verb=verbs.import_verb)
    parser.add_argument("bundle", help="the bundle's zip file")
    parser.add_argument("--model", help="the base model's folder, for a run that was trained on a local folder")


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import verbs

    parser.set_defaults(verb=verbs.serve)
    parser.add_argument("--host", help="address to listen on; default 127.0.0.1, in a workshop 0.0.0.0")
    parser.add_argument("--port", type=int, help="port; default GRADIO_SERVER_PORT or 7860")
    parser.add_argument("--share", action="store_true", help="also open a public link, through Gradio's tunnel")
    parser.add_argument(
        "--workshop", action="store_true", help="for a room full of people: see docs/workshop.md; shares the server"
    )
    parser.add_argument(
        "--sample", help="with --workshop: the data to begin with, a sample's name or a file; default: tickets"
    )
    parser.add_argument("--preset", help="with --workshop: the settings to begin with; default: quick")
    parser.add_argument("--people", type=int, help="with --workshop: how many are expected; default: 20")


def _queue_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import operator

    parser.set_defaults(verb=operator.queue)
    can = "pause, resume, list; default: list the queue, and what each visitor uses"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, help=can)
    _action(actions, "list", operator.queue, "List the queue, and what each visitor uses.")
    _action(actions, "pause", operator.pause, "Let no run start; running ones continue.")
    _action(actions, "resume", operator.resume, "Let runs begin again.")


def _clean_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import operator

    parser.set_defaults(verb=operator.clean)
    parser.add_argument("--yes", action="store_true", help="delete it; without this, it is only listed")
    parser.add_argument(
        "--runs-hours", type=_hours, help="runs that ended this many hours ago; default: FINETUNE_KEEP_RUNS_HOURS"
    )
    parser.add_argument(
        "--data-hours",
        type=_hours,
        help="data that no run uses and that is this many hours old; default: FINETUNE_KEEP_DATA_HOURS",
    )


def _deploy_arguments(parser: argparse.ArgumentParser) -> None:
    from finetune.cli import space

    parser.set_defaults(verb=space.deploy)
    parser.add_argument("repo", help="the Space: owner/name, or just a name in your own namespace")
    parser.add_argument(
        "--hardware",
        metavar="FLAVOR",
        help="cpu-basic, cpu-upgrade, zero-a10g, t4-small, …; default: cpu-basic for a new Space, else what it has",
    )
    parser.add_argument("--private", action="store_true", help="make a new Space private; default: public")
    parser.add_argument("--yes", action="store_true", help="do not ask before anything is changed")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="update the Space even if it has other work, replacing files of the same name",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not 0 <= hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours")
    return hours


VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "check": ("Check a dataset and report every problem.", _check_arguments),
    "preview": ("Show one example exactly as the model will be trained on it.", _preview_arguments),
    "train": ("Fine-tune a model and wait for the run to end.", _train_arguments),
    "plan": (
        "Measure a few batches, and estimate a run's time and memory on this machine.",
        _plan_arguments,
    ),
    "sweep": (
        "Try a few learning rates, ranks and numbers of epochs for some minutes, and print the best settings.",
        _sweep_arguments,
    ),
    "runs": ("List the runs; stop, pause, resume, rename or delete one.", _runs_arguments),
    "datasets": ("List the stored datasets, or delete one.", _datasets_arguments),
    "chat": ("Ask the base and the tuned model the same prompt.", _chat_arguments),
    "evaluate": (
        "Did it help? Evaluate every arm on the same held-out rows, and give a verdict.",
        _evaluate_arguments,
    ),
    "strength": ("How strong should the adapter be? Score and general loss at seven strengths.", _strength_arguments),
    "export": (
        "Export a run; the export is loaded again and checked on held-out prompts.",
        _export_arguments,
    ),
    "import": (
        "Import a run from a bundle that this app exported on another machine.",
        _import_arguments,
    ),
    "queue": ("List the queue and what each visitor uses; pause or resume the queue.", _queue_arguments),
    "clean": ("List runs and data past their keeping time; with --yes, delete them.", _clean_arguments),
    "serve": ("Start the web app and the OpenAI-compatible API.", _serve_arguments),
    "deploy": ("Make or update a Hugging Face Space of your own from this checkout.", _deploy_arguments),
}
"""Every verb, in the order of the journey: what it does, and the function that adds its arguments."""
