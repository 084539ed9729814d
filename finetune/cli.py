"""The command line: the same functions as the page, for scripts and terminals.

With ``--json`` stdout is exactly one JSON object; everything else goes to stderr. Exit codes: 0 fine,
1 the answer is no (data not trainable, run failed), 2 wrong usage or unreadable input.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from finetune import commands, control, evaluate, models, train
from finetune.errors import ConfigError, FinetuneError
from finetune.export.formats import FORMATS, PUSHABLE
from finetune.export.parity import ROWS


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}.", fix=f"See: {self.prog} --help", code="usage")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code.

    Example:
        >>> main(["check", "sample_data/recipes"])
        0
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in arguments
    try:
        options = _parser().parse_args(arguments)
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            code, answer = options.verb(options)
    except FinetuneError as error:
        code, answer = 2, {"error": {"code": error.code, "message": str(error)}}
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        code, answer = 130, {"error": {"code": "interrupted", "message": "Interrupted."}}
    if as_json:
        print(json.dumps(answer))
    return code


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m finetune",
        allow_abbrev=False,
        description="Fine-tune a small language model, and see if it helped.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        sub.set_defaults(verb=function)
        if function is not commands.serve:
            sub.add_argument("--json", action="store_true", help="print one JSON object on stdout, nothing else")
        return sub

    for name, function, text in (
        ("check", commands.check, "Read a dataset and report every problem."),
        ("preview", commands.preview, "Show one example as it will be trained."),
    ):
        sub = verb(name, function, text)
        sub.add_argument("data", help="a file, a folder with train.* in it, or hub:owner/name[:config[:split]]")
        sub.add_argument("--model", default=models.DEFAULT, help="whose tokens to count")
        sub.add_argument("--max-length", type=_positive, help="tokens of an example that are used; default: all")
    sub.add_argument("--row", type=int, default=1, help="which accepted example, from 1")
    sub = verb("train", commands.train_verb, "Fine-tune a model and wait for the run to end.")
    _run_arguments(sub)
    sub = verb("plan", commands.plan, "Try a few batches: how long would a run take here, and how much memory?")
    _run_arguments(sub)
    sub.add_argument("--minutes", type=float, help="how many steps fit in so many minutes")
    _runs_arguments(verb("runs", control.runs, "List the runs; stop, pause, resume or delete one."))
    _datasets_arguments(verb("datasets", control.datasets, "List the kept datasets, or delete one."))
    sub = verb("chat", commands.chat_verb, "Ask the base and the tuned model the same question.")
    sub.add_argument("run", help="a run's id")
    sub.add_argument("--prompt", help="what to ask; without it, what is typed or piped in, line by line")
    sub.add_argument("--system", help="a system prompt; default: the one the run was trained with")
    sub.add_argument("--max-tokens", type=_positive, default=256, help="longest answer")
    sub.add_argument("--strength", type=float, default=1.0, help="how strongly the adapter acts: 0 not, 1 as trained")
    sub.add_argument("--checkpoint", type=_positive, metavar="STEP", help="the run's checkpoint of this step instead")
    sub = verb("evaluate", commands.evaluate_verb, "Did it help? Every arm on the same held-out rows, and a verdict.")
    sub.add_argument("run", nargs="?", help="a run's id; without one: --model and --data")
    sub.add_argument("--model", help="with --data and no run: is there need to fine-tune?")
    sub.add_argument("--data", help="rows to ask instead of the run's held-out ones; with --model the dataset")
    sub.add_argument("--arms", help="of " + ",".join(evaluate.ARMS) + "; default: all that there can be")
    sub.add_argument("--limit", type=_positive, default=evaluate.MOST_ROWS, help="rows at most, drawn by seed")
    sub.add_argument("--metric", choices=evaluate.KINDS, help="the kind of answer; default: told from the data")
    sub.add_argument("--schema", metavar="FILE", help="a JSON Schema; how many answers keep to it")
    _export_arguments(verb("export", commands.export_verb, "Take a run away; it is loaded again and asked first."))
    sub = verb("import", commands.import_verb, "Read a run bundle that was exported elsewhere.")
    sub.add_argument("bundle", help="the zip")
    sub.add_argument("--model", help="where the base is, for a run that was trained from a local folder")
    sub = verb("serve", commands.serve, "Serve the page and the OpenAI-compatible API.")
    sub.add_argument("--host", help="address to listen on; default 127.0.0.1")
    sub.add_argument("--port", type=int, help="port; default GRADIO_SERVER_PORT or 7860")
    return parser


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="a dataset, or a YAML file of settings with a line data: PATH")
    parser.add_argument("--validation", help="a file of held-out examples")
    parser.add_argument("--preset", help="start from: " + ", ".join(one.name for one in train.PRESETS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="change settings")


def _runs_arguments(parser: argparse.ArgumentParser) -> None:
    can = "stop RUN (or --all), pause RUN, resume RUN, delete RUN; none: list them"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=_Parser, help=can)
    for name, function, text in (
        ("stop", control.stop, "Stop a run; what it learned is kept."),
        ("pause", control.pause, "Pause a run after its next step."),
        ("resume", control.resume, "Queue a run again that is paused, failed or was stopped."),
        ("delete", control.delete, "Delete a run that is over, with its files."),
    ):
        sub = _action(actions, name, function, text)
        sub.add_argument("run", help="a run's id", nargs="?" if name == "stop" else None)
        if name == "stop":
            sub.add_argument("--all", action="store_true", help="every run that has not ended")


def _datasets_arguments(parser: argparse.ArgumentParser) -> None:
    can = "delete DATASET (--with-runs), list; none: list them"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=_Parser, help=can)
    _action(actions, "list", control.datasets, "List the kept datasets.")
    sub = _action(actions, "delete", control.delete_dataset, "Delete a dataset with its files.")
    sub.add_argument("dataset", help="a dataset's id")
    sub.add_argument("--with-runs", action="store_true", help="also the runs that use it; all must have ended")


def _action(actions: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    """One more word behind a verb. Its --json says nothing when it is not given: the verb's may have been."""
    sub: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
    sub.set_defaults(verb=function)
    sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as for the verb")
    return sub


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run's id")
    parser.add_argument("--to", required=True, choices=[*(one.key for one in FORMATS), "hub"], help="the format")
    parser.add_argument("--out", default=".", metavar="DIR", help="where to; default: this folder")
    parser.add_argument("--dtype", default="float32", help="of merged weights: float32, float16, bfloat16")
    parser.add_argument("--quant", default="f16", help="of a GGUF: f16, q8_0")
    parser.add_argument("--rows", type=_positive, default=ROWS, help="held-out prompts that are asked again")
    parser.add_argument("--no-check", action="store_true", help="do not load it again")
    parser.add_argument("--with-data", action="store_true", help="a bundle with the rows")
    parser.add_argument("--repo", help="for the Hub: owner/name, or a name of your own")
    parser.add_argument("--format", default="adapter", choices=PUSHABLE, help="for the Hub: what is pushed")
    parser.add_argument("--public", action="store_true", help="for the Hub: everyone may see it")
    parser.add_argument(
        "--replace", action="store_true", help="for the Hub: also into other work; files of the same name are replaced"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
