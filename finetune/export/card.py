"""An honest model card: what was measured and what was not, which licence applies, and how to use the files.

Every number comes from the run's record; what was not measured is stated as unknown.

Example:
    >>> print(card(subject, format_of("adapter"))[:40])
    ---
    base_model: HuggingFaceTB/SmolLM2-13
"""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from finetune import evaluate, train
from finetune.evaluate import strengths
from finetune.evaluate.arms import TITLES
from finetune.evaluate.findings import Forgetting, Report
from finetune.export import facts
from finetune.export.formats import CardEntry, Format
from finetune.export.markdown import fenced, inline, plain, table
from finetune.export.parity import Parity
from finetune.export.strength import AS_TRAINED, word
from finetune.export.subject import Subject
from finetune.store import Run

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

LICENCE_IDS = {"Apache-2.0": "apache-2.0", "Gemma": "gemma", "Llama 3.2 Community": "llama3.2"}
"""The catalogue's licences as the Hub writes them; any other is ``other`` with its name."""

KNOWN_ID = re.compile(r"[a-z][a-z0-9.\-]{1,60}")
METHODS = {
    "answers": ("sft", "supervised fine-tuning"),
    "pairs": ("dpo", "preference tuning on pairs of answers (DPO)"),
    "ratings": ("kto", "preference tuning on rated answers (KTO)"),
}
"""How a run learns from rows of a kind: in a word for the Hub, and in words."""

METRIC_TYPES = {"label": "accuracy", "free": "loss"}
"""By kind of answer; all others are ``exact_match``, after parsing."""

STATUSES = {
    "green": "The files were loaded again and gave the same answers.",
    "amber": "The files were loaded again; some answers differ, and the score stays within its interval.",
    "red": "**The files answer differently from the tested model. Do not use them.**",
}

PACKAGED = "Checked on the packaged copy of the base, not on the Hub's own weights."
"""Said where the card's code loads the base from the Hub, or from a `base.gguf` made of it."""


def card(subject: Subject, format: Format, files: Sequence[str] = (), parity: Parity | None = None) -> str:
    """The README.md of an exported run. `files` are the names beside it, `parity` how they answered when asked again.

    Example:
        >>> "was not evaluated" in card(subject, format_of("merged"))
        True
    """
    from huggingface_hub import ModelCard

    assert format.card, format.key
    report, masks = evaluate.known(subject.run), subject.masks
    data = facts.data_facts(subject)  # its name and prompt were typed by people: keys and folders are masked
    data = replace(data, name=masks.line(data.name), system=subject.system, applied=masks.deep(data.applied))
    name = plain(masks.line(subject.run.name)) or subject.run.id
    parts = [
        f"# {inline(name)}",
        _summary(subject, format.card),
        "## Did it help?",
        _strength(subject),
        _verdict(report, subject.run, subject.record.facts.kind),
        _parity(parity, subject, format.card),
        "## How to use it",
        format.card.usage(subject.base, files, data.system, facts.thinking(subject)),
        "## System prompt",
        _system(data.system),
        "## Data",
        _data(data),
        "## Training",
        _training(subject),
        "## Limits",
        _limits(report, data, converted=format.key != "adapter"),
    ]
    text = "\n\n".join(part for part in parts if part)
    header = _header(subject, format, name, plain(data.name), report)
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n\n{text}\n"))


def _header(subject: Subject, format: Format, name: str, dataset: str, report: Report | None) -> "ModelCardData":
    """The front matter that the Hub reads. Figures that came in a bundle were not measured here, and those of another
    strength of the adapter not of these files, so they are not in it.
    """
    from huggingface_hub import ModelCardData

    assert format.card
    base, (licence, licence_name) = subject.base, _licence(subject)
    measured = report if report and report.origin != "bundle" and subject.strength == AS_TRAINED else None
    how = METHODS[subject.record.facts.kind][0]
    data = ModelCardData(
        base_model=None if base.local else base.name,
        base_model_relation=None if base.local else format.card.relation,
        license=licence,
        license_name=licence_name,
        language=_languages(subject),
        library_name=format.card.library,
        pipeline_tag="text-generation",
        tags=["lora", how, "before-and-after", *(["gguf"] if format.card.library == "gguf" else [])],
        model_name=name,
        eval_results=[_result(measured, dataset, converted=format.key != "adapter")] if measured else None,
    )
    if not measured:
        del data.model_name
    return data


def _licence(subject: Subject) -> tuple[str | None, str | None]:
    """The base's licence as the Hub writes it, and its name where the Hub has no word for it."""
    found = plain(facts.licence(subject) or "")
    known = LICENCE_IDS.get(found) or (found if KNOWN_ID.fullmatch(found) and found != "other" else None)
    return (known, None) if known or not found else ("other", found)


def _languages(subject: Subject) -> list[str] | None:
    """Those that the base's own card names."""
    found = facts.base_card(subject).get("language")
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return [str(one) for one in names if re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", str(one))] or None


def _result(report: Report, dataset: str, converted: bool) -> "EvalResult":
    from huggingface_hub import EvalResult

    kind, score = report.kind, report.arms["tuned"].score or 0.0
    where = ", adapter on its base before the conversion" if converted else ""
    return EvalResult(
        task_type="text-generation",
        dataset_name=dataset or "data",
        dataset_type=re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-") or "data",
        dataset_split="held-out",
        metric_type=METRIC_TYPES.get(kind, "exact_match"),
        metric_name=f"{report.metric}{where}",
        metric_value=round(score, 6),
    )


def _summary(subject: Subject, entry: CardEntry) -> str:
    base, licence = subject.base, facts.licence(subject)
    named = (
        f"{inline(base.name)} (a local folder; where it came from is not recorded)"
        if base.local
        else f"[{inline(base.name)}](https://huggingface.co/{base.name})"
    )
    how = METHODS[subject.record.facts.kind][1]
    copy = " Trained on a packaged copy whose weights were dequantised from 4 bits." if subject.packaged else ""
    terms = (
        f"The base's licence is {inline(licence)}; it also applies to models made from it."
        if licence
        else "The base's licence is unknown: find out what it is before you pass this on."
    )
    return f"{entry.noun}, made from {named} by {how}.{copy}\n\n{terms}"


def _verdict(report: Report | None, run: Run, kind: str) -> str:
    loss = _losses(run, kind)
    if report is None:
        return f"It was not evaluated: whether it answers better than its base is unknown. {loss}".strip()
    assert report.verdict  # only such reports are known of a run
    free = report.kind == "free"
    rows = [
        (
            TITLES[arm],
            _score(one.score, free),
            _interval(one.ci, free),
            _number(one.loss),
            f"{one.prompt_tokens:.0f}",
        )
        for arm, one in report.arms.items()
    ]
    parts = [
        f"**{inline(report.verdict.sentence)}**",
        f"{report.n} held-out rows, greedy decoding; score: {inline(report.metric)}"
        f"{' (lower is better)' if free else ''}. Left out: {report.excluded} rows that were also trained on"
        f"{_others(report)}.",
        table(("asked", "score", "95 % interval", "loss", "prompt tokens"), rows),
        _forgotten(report.forgetting),
        loss,
    ]
    if report.origin == "bundle":
        parts.insert(0, "As reported by the bundle this run was imported from; not measured again.")
    return "\n\n".join(part for part in parts if part)


def _strength(subject: Subject) -> str:
    """That these files hold more or less of the adapter than was judged, and what was measured of that."""
    at = subject.strength
    if at == AS_TRAINED:
        return ""
    said = f"**{word(at)}**"
    found = strengths.known(subject.run)
    point, tuned = (found.point(at), found.point(AS_TRAINED)) if found and not found.origin else (None, None)
    if not found or not point or not tuned:
        return f"{said} At this one, nothing was measured beyond how these files answer (below)."
    score = "" if point.score is None or tuned.score is None else f"score {point.score:.3f} ({tuned.score:.3f}), "
    return (
        f"{said} At strength {at:g}, on {found.n} held-out rows and {found.general} everyday prompts (in brackets: at "
        f"strength 1): {score}loss {point.loss:.3f} ({tuned.loss:.3f}), general loss {point.general_loss:.3f} "
        f"({tuned.general_loss:.3f})."
    )


def _losses(run: Run, kind: str) -> str:
    """The held-out loss before and after; a run that continues another began with that one's adapter."""
    start, now = run.result.start_eval_loss if run.lineage else run.result.base_eval_loss, run.result.eval_loss
    if start is None or now is None:
        return ""
    before = "with the adapter it continues" if run.lineage else "base"
    what = "Held-out loss per token" if kind == "answers" else f"Held-out {METHODS[kind][0].upper()} loss"
    return f"{what}: {before} {start:.3f}, tuned {now:.3f}."


def _others(report: Report) -> str:
    count = report.left_out
    return f", and {count} that {evaluate.LEFT_OUT}" if count else ""


def _score(value: float | None, free: bool) -> str:
    return "–" if value is None else f"{value:.3f}" if free else f"{100 * value:.1f} %"


def _interval(ci: Sequence[float] | None, free: bool) -> str:
    return "–" if ci is None else f"{_score(ci[0], free)} to {_score(ci[1], free)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _forgotten(found: Forgetting | None) -> str:
    if not found:
        return "Forgetting was not measured."
    low, high = found.ci
    return (
        f"General ability: {found.said}. Loss on {found.n} everyday prompts: base {found.base_loss:.3f}, "
        f"tuned {found.tuned_loss:.3f} (95 % interval of the difference {low:+.3f} to {high:+.3f})."
    )


def _parity(parity: Parity | None, subject: Subject, entry: CardEntry) -> str:
    if parity is None:
        return "These files were not loaded again and compared with the tested model."
    if parity.score_after is None:
        return f"**Do not use these files.** {inline(parity.problem)}"
    scores = f"score {parity.score_before:.3f} before, {parity.score_after:.3f} after"
    whose = "the tested adapter's" if subject.strength == AS_TRAINED else "the adapter's at this strength"
    same = f"{parity.same} of {parity.n} answers are identical to {whose}; {scores}."
    packaged = f" {PACKAGED}" if entry.relation == "adapter" and subject.packaged else ""
    return f"{STATUSES[parity.status]} {same}{packaged}"


def _system(system: str | None) -> str:
    if not system:
        return "It was trained without a system prompt."
    return f"It was trained with this system prompt, and not tested without it.\n\n{fenced(system, 'text')}"


def _data(data: facts.DataFacts) -> str:
    def count(figure: int | None) -> str:
        return "unknown" if figure is None else f"{figure:,}"

    lines = [
        f"- Name: {inline(data.name)}",
        f"- Rows trained on: {count(data.train)}",
        f"- Rows held out: {count(data.held_out)}",
        f"- Rows rejected: {count(data.rejected)}",
    ]
    if data.applied:
        lines.append(f"- Fixes applied: {inline(', '.join(data.applied))}")
    if data.sha256:
        lines.append(f"- SHA-256 of the training rows: `{data.sha256}` (one JSON line each, keys sorted)")
    return "\n".join([*lines, "", "The rows themselves are not included."])


def _training(subject: Subject) -> str:
    run, config, here = subject.run, subject.config, facts.environment(subject.run)
    resolved = asdict(facts.resolved(subject))
    changed = {name: value for name, value in config.changed().items() if name != "model"}
    packages = {name: here["packages"].get(name) for name in ("torch", "transformers", "peft", "trl")}
    upper = "" if config.top_layers == 1 else f", on the upper {100 * config.top_layers:.3g} % of the layers only"
    settings = [
        ("LoRA", f"rank {config.r}, alpha {config.alpha}, rsLoRA {'on' if config.rslora else 'off'}{upper}"),
        ("learning rate", f"{resolved.pop('learning_rate') or 0:g}, {config.schedule}"),
        *([("strength of the adapter in these files", f"{at:g}")] if (at := subject.strength) != AS_TRAINED else []),
        *([("gradients", "bf16")] if run.result.bf16 else []),
        ("epochs, batch size, seed", f"{config.epochs:g}, {config.batch_size}, {config.seed}"),
        *((name.replace("_", " "), str(value)) for name, value in resolved.items() if value),
        ("changed from the defaults", ", ".join(f"{k} = {v}" for k, v in changed.items()) or "nothing"),
        ("training time", f"{run.seconds:,.0f} s"),
        ("finished", time.strftime("%Y-%m-%d", time.gmtime(run.ended)) if run.ended else "unknown"),
        ("processor", f"{here['cpu']}, {here['cores']} cores, {(here['memory'] or 0) / 2**30:.0f} GB of memory"),
        ("GPU", here["gpu"] or "none"),
        ("versions", ", ".join(f"{name} {version}" for name, version in packages.items() if version)),
    ]
    for one in reversed(run.lineage):  # the nearest comes to stand first
        named = subject.masks.line(f"{one.name} ({one.run}), trained on {one.data}")
        settings.insert(0, ("continues", named))
    if run.state == "cancelled" and run.step < run.steps:
        who = "by the time limit of the server" if run.code == "timed_out" else "by its owner"
        step = run.result.adapter_step or run.step
        settings.insert(0, ("stopped early", f"at step {step:,} of {run.steps:,}, {who}"))
    rows = [(inline(name), inline(value)) for name, value in settings]
    where = "recorded when the run's bundle was made" if train.imported(run) else "those of this export"
    where = "those of the job that trained it" if train.trained_on(run) else where
    return f"{table(('setting', 'value'), rows)}\n\nMachine and versions: {where}."


def _limits(report: Report | None, data: facts.DataFacts, converted: bool) -> str:
    tested = (
        f"It was tested on {report.n} held-out rows of the same data, with greedy decoding. "
        if report
        else "It was not tested. "
    )
    lines = [
        f"- {tested}Other kinds of input, other languages, longer inputs and sampling were not tested.",
        "- Safety, bias and truthfulness were not tested; those of the base apply, and tuning may have changed them.",
        "- It may repeat text from its training rows.",
    ]
    if converted and report:
        lines.append("- The scores above are those of the adapter on its base, before the conversion.")
    if data.train is not None and data.train < 50:
        lines.append(f"- It was trained on few rows ({data.train}).")
    return "\n".join(lines)
