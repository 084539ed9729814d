"""The verbs `check` and `preview`: a look at a dataset before training on it.

They take the parsed options, as the other verbs in `finetune.cli.verbs` do, but are apart from them: a check should be
quick, and importing what trains, chats and exports takes longer than checking a small file.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from finetune import data, models
from finetune.cli.source import Asked, quickly_asked
from finetune.errors import DataError, FinetuneError
from finetune.records import Json

MARKS = "\u27e6{}\u27e7"
"""Around what is trained, where there are no colours: brackets that neither JSON nor code has."""

MOST_LABELS, LABELS_SHOWN = 12, 60
"""Labels that are listed with their counts, and how much of each name is shown."""

Answer = tuple[int, Json]
"""An exit code, and the object that ``--json`` prints."""


def log(text: str) -> None:
    """Progress, for people: it never mixes with the JSON on stdout."""
    print(text, file=sys.stderr)


def check(options: argparse.Namespace) -> Answer:
    """`check FILE`: exit 0 if the data can be trained on, 1 if not, 2 if it cannot be read."""
    wanted = quickly_asked(options)
    dataset = wanted.dataset()
    stats = _tokens(dataset, wanted)
    will_train = stats.will_train if stats else None
    trainable = will_train.rows > 0 if will_train else bool(dataset.examples)
    if dataset.mapping and not wanted.mapping:
        wanted = replace(wanted, mapping=dataset.mapping)  # clear from the data: said, and asked for the next time
    command = wanted.command() if dataset.examples else _mapped(dataset, wanted)
    answer = data.report(dataset) | {"trainable": trainable, "tokens": {}, "command": command}
    if stats:
        fold = data.fixes(replace(dataset, problems=[]), fold=True) if stats.folds else []
        answer["fixes"] += [fix.as_dict() for fix in fold]
        answer["tokens"] = stats.as_dict() | {"answers": data.different_answers(dataset)}
        answer["problems"] += answer["tokens"].pop("problems")
    _print(" ".join(options.data), wanted, dataset, answer)
    if will_train:
        print(f"  {will_train.sentence}")
    return (0 if trainable else 1), answer


def _print(name: str, wanted: Asked, dataset: data.Dataset, answer: Json) -> None:
    print(*data.summary(name, dataset, answer["problems"]), sep="\n")
    if held := dataset.validation:
        print(*data.summary(str(wanted.validation or held.path), held), sep="\n")
    if tokens := answer["tokens"]:
        _print_tokens(tokens)
    if answer["fixes"]:
        offered = ", ".join(f"--fix {fix['code']} ({_rows(fix['rows_changed'])})" for fix in answer["fixes"])
        print(f"  Fixes on offer: {offered}")
    if answer["trainable"]:
        print(f"  To train: {answer['command']}")
    elif answer["command"]:
        print(f"  Try: {answer['command']}")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _print_tokens(tokens: Json) -> None:
    """How long the rows are, as a small table, and which answers there are."""
    print(f"  {tokens['sentence']} Tokens per row, {tokens['share_trained']:.0%} of them trained:")
    if tokens["tokens"]:
        print("  " + f"{'':<8}" + "".join(f"{name:>8}" for name in ("min", "5 %", "median", "95 %", "max")))
        for name, key in (("all", "tokens"), ("trained", "trained")):
            print("  " + f"{name:<8}" + "".join(f"{count:>8,}" for count in tokens[key].values()))
    if labels := tokens["labels"]:
        common = sorted(labels.items(), key=lambda one: (-one[1], one[0]))
        shown = ", ".join(f"{label[:LABELS_SHOWN]} {rows:,}" for label, rows in common[:MOST_LABELS])
        print(f"  {len(labels):,} labels: {shown}{', …' if len(labels) > MOST_LABELS else ''}")
    else:
        print(f"  {tokens['answers']:,} different answers")


def _mapped(dataset: data.Dataset, wanted: Asked) -> str | None:
    """The command that checks a file of unknown columns again, with the likely ones named."""
    if wanted.mapping or wanted.parts or {row.code for row in dataset.rejected} != {"unknown_columns"}:
        return None
    guess = data.guess_mapping(dataset.columns, [row for _, row in data.raw_rows(dataset)])
    return replace(wanted, mapping=guess).command("check") if guess else None


def _tokens(dataset: data.Dataset, wanted: Asked) -> data.TokenStats | None:
    if not models.here(wanted.model):  # a check should be quick; models are downloaded for training
        print(
            f"  Tokens were not counted: {wanted.model} is not downloaded yet (train, preview and serve download it)."
        )
        return None
    try:
        tokenizer = models.counting_tokenizer(models.find(wanted.model, log))
    except FinetuneError as error:
        print(f"  Tokens were not counted: {error}")
        return None
    held = data.held_places(dataset, wanted.held_out, wanted.seed)
    return data.token_stats(dataset, tokenizer, wanted.max_length, held=held, every_answer=wanted.every_answer)


def preview(options: argparse.Namespace) -> Answer:
    """`preview FILE --row N`: the rendered text, with trained tokens marked."""
    wanted = quickly_asked(options)
    dataset = wanted.dataset()
    if not 1 <= options.row <= len(dataset.examples):
        count = len(dataset.examples)
        raise DataError(f"There are only {count} accepted examples.", where="--row", fix="Choose one of them.")
    tokenizer = models.load_tokenizer(models.find(wanted.model, log))
    example = dataset.examples[options.row - 1]
    length = wanted.max_length or models.LONGEST
    sides = [_previewed(data.preview(one, tokenizer, length)) for one in example.sides]
    told = {"row": options.row, **sides[0]}
    if example.good is not None:
        print(f"marked as {'good' if example.good else 'bad'}")
        told["good"] = example.good
    return 0, told | ({"worse": sides[1]} if example.worse else {})


def _previewed(segments: Sequence[data.Segment]) -> Json:
    """Print one conversation; of a pair, the one with the worse answer comes after that with the better one."""
    colour = sys.stdout.isatty()
    trained = tokens = cut = 0
    shown = []
    for segment in segments:
        learned = segment.trained and segment.kind != "cut"
        mark = ("\x1b[30;43m{}\x1b[0m" if colour else MARKS) if learned else "{}"
        print(mark.format(segment.shown), end="")
        tokens += len(segment.ids)
        trained += len(segment.ids) if learned else 0
        cut += len(segment.ids) if segment.kind == "cut" else 0
        shown.append({"text": segment.text, "kind": segment.kind, "trained": learned})
    print(f"\n{tokens:,} tokens, {trained:,} trained" + (f"; the last {cut:,} are cut" if cut else ""))
    return {"tokens": tokens, "trained": trained, "segments": shown}
