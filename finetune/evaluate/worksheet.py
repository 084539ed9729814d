"""Whether to fine-tune at all: the lesson's worksheet, filled in from what was measured so far.

Use case, alternatives, costs (tunability, effort, compute, data), benefits (quality, cost per call,
extensibility), and a recommendation with its reasons. What was not measured is said to be missing,
with what would fill it in; nothing is estimated from elsewhere.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import models, train
from finetune.chat.engine import AT_ONCE
from finetune.durations import roughly
from finetune.evaluate.advice import ENOUGH, Advice, advise, best_alternative
from finetune.evaluate.arms import MODELS, TITLES
from finetune.evaluate.findings import Arm, Report
from finetune.evaluate.report import known, known_before
from finetune.evaluate.stats import FEWEST
from finetune.records import Json
from finetune.store import DatasetRecord, Run

FEW = 50
"""Rows below which fine-tuning seldom shows: OpenAI's guide sees improvements from 50 to 100 examples on."""


PAYS = ("helped", "alternative_as_good")
"""Verdicts after which it is worth asking when the time of training is pays for itself."""


@dataclass(frozen=True)
class Facts:
    """What is known so far; None where nothing was measured yet. `price` is that of an hour of this machine.

    `before` is the report on the alternatives before any training, `found` that of the `run`; `rows` the
    data's report; `siblings` counts other runs on the same base that have an adapter.
    """

    model: str
    use_case: str = ""
    improve: str = ""
    price: float | None = None
    rows: Json | None = None
    plan: train.Plan | None = None
    before: Report | None = None
    run: Run | None = None
    found: Report | None = None
    siblings: int = 0

    @property
    def arms(self) -> dict[str, Arm]:
        """Every arm that was measured, by name."""
        best = self.found or self.before
        return best.arms if best else {}


@dataclass(frozen=True)
class Item:
    """One line of the worksheet. `said` is None while nothing is known; then `todo` says what fills it in.

    `mark` is ``good``, ``bad`` or ``unsure`` (None: a fact, no judgement); `words` are terms to explain.
    """

    group: str
    title: str
    said: str | None
    todo: str = ""
    mark: str | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """The worksheet: its lines in order, and what follows from them."""

    items: tuple[Item, ...]
    advice: Advice


def gather(
    record: DatasetRecord | None, model: str, runs: Sequence[Run], plan: train.Plan | None = None, **typed: Any
) -> Facts:
    """What is known of a dataset and a model; `runs` are the owner's, newest first, `typed` what a person filled in.

    Example:
        >>> gather(record, models.DEFAULT, store.runs(owner="local")).rows["accepted"]
        225
    """
    if record is None:
        return Facts(model, **typed)
    kept = [run for run in runs if train.adapter_folder(run.id).is_dir()]
    same = [run for run in kept if run.config["model"] == model]
    run = next((run for run in same if run.dataset == record.id), None)
    report = Path(record.folder) / "report.json"
    return Facts(
        model,
        rows=json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None,
        plan=plan,
        before=known_before(record, model),
        run=run,
        found=known(run) if run else None,
        siblings=len([one for one in same if one is not run]),
        **typed,
    )


def sheet(facts: Facts) -> Sheet:
    """Fill in the worksheet.

    Example:
        >>> sheet(Facts(models.DEFAULT)).advice.code
        'bring_data'
    """
    lines: tuple[Callable[[Facts], Item], ...] = (
        _use_case,
        _alternatives,
        _tunability,
        _effort,
        _compute,
        _data,
        _quality,
        _cost,
        _extensibility,
    )
    return Sheet(tuple(line(facts) for line in lines), advise(facts.rows, facts.before, facts.run, facts.found, FEW))


def break_even(training: float, tuned: Arm, other: Arm) -> int | None:
    """Calls after which the seconds that training took are pays for itself; None: answers are not clearly quicker.

    Example:
        >>> tuned.seconds, base.seconds
        (0.5, 1.0)
        >>> break_even(437.0, tuned, base)
        874
    """
    quick, slow = tuned.seconds_ci, other.seconds_ci
    if not quick or not slow or quick[1] >= slow[0]:
        return None
    return math.ceil(training / (other.seconds - tuned.seconds))


def _use_case(facts: Facts) -> Item:
    typed = [facts.use_case.strip(), f"To improve: {facts.improve.strip()}" if facts.improve.strip() else ""]
    said = " ".join(f"{one.rstrip('.')}." for one in typed if one) or None
    return Item("Use case", "What for", said, "Write down what the model should do, and what should get better.")


def _alternatives(facts: Facts) -> Item:
    words = ("few-shot", "retrieval", "held-out")
    todo = "Press “Measure the alternatives”: they need no training."
    report = facts.found or facts.before
    if not report:
        return Item("Alternatives", "Prompting and retrieval", None, todo, words=words)
    shown = [name for name in ("base", "few_shot", "retrieval", "nearest", "majority") if name in report.arms]
    if report.kind == "free":
        arms = {name: report.arms[name].score for name in shown}
        scores = [f"{TITLES[name].lower()} {score:.3f}" for name, score in arms.items() if score is not None]
        said = f"Loss of the expected answer on {report.n} held-out rows: {', '.join(scores)} (lower is better)."
        return Item("Alternatives", "Prompting and retrieval", said, mark=None, words=words)
    scores = [f"{TITLES[name].lower()} on {report.arms[name].correct}" for name in shown]
    said = f"Right on {report.n} held-out rows: {', '.join(scores)}."
    best = best_alternative(report.kind, report.arms)
    enough = (report.arms[best].score or 0) >= ENOUGH and report.n >= FEWEST
    said += f" {TITLES[best]} may be all that is needed." if enough else ""
    return Item("Alternatives", "Prompting and retrieval", said, mark="bad" if enough else "good", words=words)


def _tunability(facts: Facts) -> Item:
    entry, name = models.entry(facts.model), facts.model.rstrip("/").rsplit("/", 1)[-1]
    said = (
        f"{name}: {entry.parameters} million parameters, {entry.licence} licence, open weights."
        if entry
        else (f"{name}: not in our catalogue; read its licence before you share what you make with it.")
    )
    if facts.plan:
        fits = facts.plan.memory < facts.plan.machine
        said += f" Training needs {facts.plan.memory / 1e9:.1f} GB of this machine's {facts.plan.machine / 1e9:.0f} GB."
    else:
        fits = True
        said += f" Trained here with {facts.run.memory / 1e9:.1f} GB." if facts.run and facts.run.memory else ""
    return Item("Costs", "Tunability", said, mark="good" if entry and fits else "unsure", words=("LoRA",))


def _effort(facts: Facts) -> Item:
    if not facts.rows:
        return Item("Costs", "Effort", None, "Load data on the Data tab; its report shows what needs fixing.")
    worth = [one for one in facts.rows["problems"] if one["severity"] != "note"]
    done = len(facts.rows["applied"])
    before = f"{done} {'fix was' if done == 1 else 'fixes were'} made. " if done else ""
    if not worth:
        return Item("Costs", "Effort", f"{before}The data report found nothing to fix.", mark="good")
    kinds = "; ".join(f"{one['code'].replace('_', ' ')} ({one['count']:,})" for one in worth[:4])
    more = f" and {len(worth) - 4} more kinds" if len(worth) > 4 else ""
    return Item("Costs", "Effort", f"{before}Still to check: {kinds}{more}.", mark="unsure")


def _compute(facts: Facts) -> Item:
    words = ("epoch",)
    if facts.run:
        seconds = train.duration(facts.run)
        where = "where it was trained" if train.imported(facts.run) or facts.run.job else "on this machine"
        said = f"The run took {roughly(seconds)} for {facts.run.step:,} steps {where}."
    elif facts.plan:
        seconds, said = facts.plan.seconds, f"{facts.plan.sentence} Measured with a few batches on this machine."
    else:
        return Item("Costs", "Compute", None, "“How long will it take?” on the Train tab measures it.", words=words)
    if facts.price is not None:
        said += f" At {facts.price:g} an hour: {facts.price * seconds / 3600:.2f}."
    return Item("Costs", "Compute", said, words=words)


def _data(facts: Facts) -> Item:
    if not facts.rows:
        return Item("Costs", "Data", None, "Choose a sample or upload a file on the Data tab.", words=("held-out",))
    accepted, held = facts.rows["accepted"], facts.rows["validation"]
    said = f"{accepted:,} examples from {facts.rows['rows']:,} rows"
    said += f", and {held['accepted']:,} held out in a file of their own." if held else ", some of them to be held out."
    if accepted < FEW:
        rows = "1 row is" if accepted == 1 else f"{accepted} rows are"
        said += f" {rows} unlikely to have a noticeable effect; "
        said += f"OpenAI's guide reports improvements from about {FEW} to 100 examples upwards."
    return Item("Costs", "Data", said, mark="good" if accepted >= FEW else "bad")


def _quality(facts: Facts) -> Item:
    words = ("interval", "overfitting")
    if not facts.found or not facts.found.verdict:
        todo = "Evaluate the run on the Results tab." if facts.run else "Train a run, then evaluate it."
        return Item("Benefits", "Quality", None, todo, words=words)
    code = facts.found.verdict.code
    said, mark = facts.found.verdict.sentence, {"helped": "good", "hurt": "bad"}.get(code, "unsure")
    if _brought(facts):
        said, mark = f"According to the run's bundle: {said}", "unsure"
    return Item("Benefits", "Quality", said, mark=mark, words=words)


def _brought(facts: Facts) -> bool:
    """Whether answers were given nobody knows where."""
    return bool(facts.found and facts.found.origin == "bundle")


def _cost(facts: Facts) -> Item:
    if not facts.found or not facts.run:
        return Item(
            "Benefits", "Cost per call", None, "Measured by the evaluation on the Results tab.", words=("token",)
        )
    arms = {name: facts.found.arms[name] for name in MODELS if name in facts.arms}
    each = "; ".join(
        f"{TITLES[name].lower()} {arm.prompt_tokens:.0f} prompt and {arm.answer_tokens:.0f} answer tokens, "
        f"{arm.seconds:.2f} s"
        for name, arm in arms.items()
    )
    source = "According to the run's bundle" if _brought(facts) else "Measured"
    said, calls = f"{source}, per answer, {AT_ONCE} at a time: {each}.", None
    if not _brought(facts) and facts.found.verdict and facts.found.verdict.code in PAYS:
        best = best_alternative(facts.found.kind, arms)
        calls = break_even(train.duration(facts.run), arms["tuned"], arms[best])
        said += (
            f" Against {TITLES[best].lower()}, training pays for itself after {calls:,} calls."
            if calls is not None
            else f" The tuned model is not clearly faster than {TITLES[best].lower()}: training does not pay off."
        )
    if facts.price is not None:
        costs = [f"{TITLES[name].lower()} {facts.price * arm.seconds / 3.6:.3f}" for name, arm in arms.items()]
        said += f" A thousand calls at {facts.price:g} an hour: {', '.join(costs)}."
    mark = "good" if calls is not None else "unsure"
    return Item("Benefits", "Cost per call", said, mark=mark, words=("token",))


def _extensibility(facts: Facts) -> Item:
    if not facts.run:
        return Item("Benefits", "Extensibility", None, "Known once a run has an adapter.", words=("adapter",))
    size = sum(file.stat().st_size for file in train.adapter_folder(facts.run.id).glob("*.safetensors"))
    said = f"The adapter adds {size / 1e6:.1f} MB to the base, and can be removed again."
    others = f"{facts.siblings} other run{'s' if facts.siblings > 1 else ''} of yours" if facts.siblings else ""
    said += f" {others} can share the same base in memory." if others else ""
    lost = facts.found.forgetting if facts.found else None
    said += f" General ability: {lost.said}." if lost else ""
    mark = {"worse": "bad", "no clear change": "unsure"}.get(lost.said, "good") if lost else None
    return Item("Benefits", "Extensibility", said, mark=mark, words=("adapter",))
