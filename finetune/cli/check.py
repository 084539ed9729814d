"""The verbs `check` and `preview`: a look at a dataset before training on it.

They take the parsed options, as the other verbs in `finetune.cli.verbs` do, but are apart from them: a check should be
quick, and importing what trains, chats and exports takes longer than checking a small file.
"""

import argparse
import sys

from finetune import data, models
from finetune.errors import DataError, FinetuneError
from finetune.records import Json

Answer = tuple[int, Json]
"""An exit code, and the object that ``--json`` prints."""


def log(text: str) -> None:
    """Progress, for people: it never mixes with the JSON on stdout."""
    print(text, file=sys.stderr)


def check(options: argparse.Namespace) -> Answer:
    """`check FILE`: exit 0 if the data can be trained on, 1 if not, 2 if it cannot be read."""
    try:
        dataset = data.load(options.data)
    except DataError as error:
        problem = {"code": error.code, "severity": "error", "count": 1, "lines": []}
        problem |= {"message": error.what, "hint": error.fix}
        print(error)
        counts = {"format": None, "rows": 0, "accepted": 0, "rejected": 0, "trainable": False}
        return 2, {**counts, "problems": [problem], "tokens": {}, "columns": [], "fixes": [], "split": None}
    tokens, more = _tokens(dataset, options)
    answer = data.report(dataset) | {"trainable": bool(dataset.examples), "tokens": tokens}
    answer["problems"] += more
    print(
        f"{options.data}: {dataset.format or 'unknown format'}, {dataset.rows} rows, {len(dataset.rejected)} rejected"
    )
    for found in answer["problems"]:
        lines = ", ".join(map(str, found["lines"]))
        print(f"  {found['severity']}: {found['message']} ({found['count']}x, line {lines}) {found['hint']}")
    if tokens:
        print(f"  {tokens['sentence']} Tokens per row: {tokens['tokens']}; {tokens['share_trained']:.0%} trained.")
    return (0 if dataset.examples else 1), answer


def _tokens(dataset: data.Dataset, options: argparse.Namespace) -> tuple[Json, list[dict]]:
    if not models.here(options.model):  # a check should be quick; models are downloaded for training
        print(
            f"  Tokens were not counted: {options.model} is not downloaded yet (train, preview and serve download it)."
        )
        return {}, []
    try:
        tokenizer = models.counting_tokenizer(models.find(options.model, log))
    except FinetuneError as error:
        print(f"  Tokens were not counted: {error}")
        return {}, []
    numbers = data.token_stats(dataset, tokenizer, options.max_length).as_dict()
    return numbers, numbers.pop("problems")


def preview(options: argparse.Namespace) -> Answer:
    """`preview FILE --row N`: the rendered text, with trained tokens marked."""
    dataset = data.load(options.data)
    if not 1 <= options.row <= len(dataset.examples):
        count = len(dataset.examples)
        raise DataError(f"There are only {count} accepted examples.", where="--row", fix="Choose one of them.")
    tokenizer = models.load_tokenizer(models.find(options.model, log))
    segments = data.preview(dataset.examples[options.row - 1], tokenizer, options.max_length)
    colour = sys.stdout.isatty()
    for segment in segments:
        mark = ("\x1b[30;43m{}\x1b[0m" if colour else "[[{}]]") if segment.trained else "{}"
        print(mark.format(segment.shown), end="")
    trained = sum(len(segment.ids) for segment in segments if segment.trained and segment.kind != "cut")
    tokens = sum(len(segment.ids) for segment in segments)
    print(f"\n{tokens} tokens, {trained} trained")
    shown = [{"text": s.text, "kind": s.kind, "trained": s.trained} for s in segments]
    return 0, {"row": options.row, "tokens": tokens, "trained": trained, "segments": shown}
