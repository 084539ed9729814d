"""An honest model card: what was measured and what was not, whose licence holds, and how to use it.

Every number comes from the run's record. What nobody measured is said not to be known.

Example:
    >>> print(card(store, run, format="adapter")[:40])
    ---
    base_model: HuggingFaceTB/SmolLM2-13
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune import evaluate, train
from finetune.errors import RunError
from finetune.evaluate.arms import TITLES
from finetune.export import facts, privacy, usage
from finetune.export.markdown import fenced, inline, plain, table
from finetune.store import Run, Store

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

FORMATS = ("adapter", "merged", "gguf", "gguf-lora")
LIBRARIES = {"adapter": "peft", "merged": "transformers", "gguf": "gguf", "gguf-lora": "gguf"}
RELATIONS = {"adapter": "adapter", "merged": "finetune", "gguf": "finetune", "gguf-lora": "adapter"}
WHAT = {
    "adapter": "A LoRA adapter",
    "merged": "A fine-tuned model (LoRA merged into its base)",
    "gguf": "A fine-tuned model (LoRA merged into its base) as GGUF",
    "gguf-lora": "A LoRA adapter as GGUF",
}

LICENCE_IDS = {"Apache-2.0": "apache-2.0", "Gemma": "gemma", "Llama 3.2 Community": "llama3.2"}
"""The catalogue's licences as the Hub writes them; one that is missing here is ``other`` with its name."""

KNOWN_ID = re.compile(r"[a-z][a-z0-9.\-]{1,60}")
METRIC_TYPES = {"label": "accuracy", "free": "loss"}
"""By kind of answers; the others are ``exact_match``, after parsing."""

STATUSES = {
    "green": "The files were loaded again and answered the same.",
    "amber": "The files were loaded again; answers differ a little, the score stays within its interval.",
    "red": "**The files answer differently from what was tested. Do not use them.**",
}

PACKAGED = "Checked on the packaged copy of the base; on the Hub's own weights it was not tried."
"""Where the card's code loads the base by its name on the Hub, or somebody's `base.gguf` of it."""


def card(
    store: Store, run: Run, *, format: str, files: Sequence[str] = (), parity: Mapping[str, Any] | None = None
) -> str:
    """The README.md of an exported run. `files` are the names of what is beside it, `parity` how it answered again.

    Raises:
        RunError: no such format.

    Example:
        >>> "was not evaluated" in card(store, run, format="merged")
        True
    """
    from huggingface_hub import ModelCard, ModelCardData

    if format not in FORMATS:
        raise RunError("There is no such format.", where=format, fix=f"Known are: {', '.join(FORMATS)}.")
    base, told, report = facts.base(run), facts.data_facts(store, run), evaluate.known(run)
    private = privacy.of_run(run)  # its name and its prompt are what somebody typed: keys and folders stay here
    told = private.deep(told) | {"name": private.line(told["name"])}
    name, (licence, licence_name) = plain(private.line(run.name)) or run.id, _licence(run)
    measured = report if report and report.get("from") != "bundle" else None
    data = ModelCardData(
        base_model=None if base.local else base.name,
        base_model_relation=None if base.local else RELATIONS[format],
        license=licence,
        license_name=licence_name,
        language=_languages(run),
        library_name=LIBRARIES[format],
        pipeline_tag="text-generation",
        tags=["lora", "sft", "before-and-after", *(["gguf"] if "gguf" in format else [])],
        model_name=name,
        eval_results=[_result(measured, plain(told["name"]), format)] if measured else None,
    )
    if not measured:
        del data.model_name
    parts = [
        f"# {inline(name)}",
        _summary(run, base, format),
        "## Did it help?",
        _verdict(report, run),
        _parity(parity, run, format),
        "## How to use it",
        usage.usage(base, format, files, told["system"], facts.thinking(store, run)),
        "## System prompt",
        _system(told["system"]),
        "## Data",
        _data(told),
        "## Training",
        _training(store, run),
        "## Limits",
        _limits(report, told, format),
    ]
    text = "\n\n".join(part for part in parts if part)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))


def _licence(run: Run) -> tuple[str | None, str | None]:
    """The base's licence as the Hub writes it, and its name where the Hub has no word for it."""
    found = plain(facts.licence(run) or "")
    known = LICENCE_IDS.get(found) or (found if KNOWN_ID.fullmatch(found) and found != "other" else None)
    return (known, None) if known or not found else ("other", found)


def _languages(run: Run) -> list[str] | None:
    """Those that the base's own card names."""
    found = facts.base_card(run).get("language")
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return [str(one) for one in names if re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", str(one))] or None


def _result(report: dict[str, Any], dataset: str, format: str) -> "EvalResult":
    from huggingface_hub import EvalResult

    kind, score = report["kind"], report["arms"]["tuned"]["score"]
    where = "" if format == "adapter" else ", adapter on its base before the conversion"
    return EvalResult(
        task_type="text-generation",
        dataset_name=dataset or "data",
        dataset_type=re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-") or "data",
        dataset_split="held-out",
        metric_type=METRIC_TYPES.get(kind, "exact_match"),
        metric_name=f"{report['metric']}{where}",
        metric_value=round(score, 6),
    )


def _summary(run: Run, base: facts.Base, format: str) -> str:
    licence = facts.licence(run)
    named = (
        f"{inline(base.name)} (a local folder; where it came from is not recorded)"
        if base.local
        else (f"[{inline(base.name)}](https://huggingface.co/{base.name})")
    )
    copy = " Trained on a packaged copy whose weights were dequantised from 4 bits." if _packaged(run) else ""
    terms = (
        f"The base's licence is {inline(licence)}; it holds for what is made from the base too."
        if licence
        else "The base's licence is unknown: find it out before you pass this on."
    )
    return f"{WHAT[format]}, made from {named} by supervised fine-tuning.{copy}\n\n{terms}"


def _verdict(report: dict[str, Any] | None, run: Run) -> str:
    losses = [run.result.get("base_eval_loss"), run.result.get("eval_loss")]
    loss = f"Held-out loss per token: base {losses[0]:.3f}, tuned {losses[1]:.3f}." if None not in losses else ""
    if report is None:
        return f"It was not evaluated: whether it answers better than its base is not known. {loss}".strip()
    free = report["kind"] == "free"
    rows = [
        (
            TITLES[arm],
            _score(one["score"], free),
            _interval(one["ci"], free),
            _number(one.get("loss")),
            f"{one['prompt_tokens']:.0f}",
        )
        for arm, one in report["arms"].items()
    ]
    parts = [
        f"**{inline(report['verdict']['sentence'])}**",
        f"{report['n']} held-out rows, greedy answers; the score is: {inline(report['metric'])}"
        f"{' (lower is better)' if free else ''}. {report['excluded']} rows that training saw too were left out"
        f"{_others(report)}.",
        table(("asked", "score", "95 % interval", "loss", "prompt tokens"), rows),
        _forgotten(report["forgetting"]),
        loss,
    ]
    if report.get("from") == "bundle":
        parts.insert(0, "As reported by the bundle that this run came in; not measured again.")
    return "\n\n".join(part for part in parts if part)


def _others(report: dict[str, Any]) -> str:
    count = report.get("left_out")
    return f", and {count} that {evaluate.LEFT_OUT}" if count else ""


def _score(value: float | None, free: bool) -> str:
    return "–" if value is None else f"{value:.3f}" if free else f"{100 * value:.1f} %"


def _interval(ci: Sequence[float] | None, free: bool) -> str:
    return "–" if ci is None else f"{_score(ci[0], free)} to {_score(ci[1], free)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _forgotten(found: dict[str, Any] | None) -> str:
    if not found:
        return "What it forgot was not measured."
    low, high = found["ci"]
    return (
        f"General ability: {found['said']}. Loss on {found['n']} everyday prompts: base {found['base_loss']:.3f}, "
        f"tuned {found['tuned_loss']:.3f} (95 % interval of the difference {low:+.3f} to {high:+.3f})."
    )


def _parity(parity: Mapping[str, Any] | None, run: Run, format: str) -> str:
    if parity is None:
        return "These files were not loaded again and compared with what was tested."
    if parity.get("problem"):
        return f"**Do not use these files.** {inline(str(parity['problem']))}"
    said = STATUSES.get(str(parity.get("status")), "")
    before, after = parity.get("score_before"), parity.get("score_after")
    scores = f"; score {before:.3f} before, {after:.3f} after" if before is not None and after is not None else ""
    same = f"{said} {parity.get('same')} of {parity.get('n')} answers are identical to the tested adapter's{scores}."
    return f"{same} {PACKAGED}" if format in ("adapter", "gguf-lora") and _packaged(run) else same


def _packaged(run: Run) -> bool:
    return bool(run.result.get("source") == "packaged")


def _system(system: str | None) -> str:
    if not system:
        return "It was trained without a system prompt."
    return f"It was trained with this system prompt; without it, it was not tested.\n\n{fenced(system, 'text')}"


def _data(told: dict[str, Any]) -> str:
    def count(name: str) -> str:
        return "unknown" if told[name] is None else f"{told[name]:,}"

    lines = [
        f"- Name: {inline(told['name'])}",
        f"- Rows trained on: {count('train')}",
        f"- Rows held out: {count('held_out')}",
        f"- Rows rejected: {count('rejected')}",
    ]
    if told["applied"]:
        lines.append(f"- Mended before: {inline(', '.join(told['applied']))}")
    if told["sha256"]:
        lines.append(f"- SHA-256 of the training rows: `{told['sha256']}` (a JSON line each, keys sorted)")
    return "\n".join([*lines, "", "The rows themselves are not part of this."])


def _training(store: Store, run: Run) -> str:
    config, here = train.TrainConfig(**run.config), facts.environment(run)
    changed = {name: value for name, value in config.changed().items() if name != "model"}
    settings = [
        ("LoRA", f"rank {config.r}, alpha {config.alpha}, rsLoRA {'on' if config.rslora else 'off'}"),
        ("learning rate", f"{config.learning_rate:g}, {config.schedule}"),
        ("epochs, batch size, seed", f"{config.epochs:g}, {config.batch_size}, {config.seed}"),
    ]
    settings += [(name.replace("_", " "), str(value)) for name, value in facts.resolved(store, run).items() if value]
    settings.append(("changed from the defaults", ", ".join(f"{k} = {v}" for k, v in changed.items()) or "nothing"))
    settings += [
        ("time trained", f"{run.seconds:,.0f} s"),
        ("finished", time.strftime("%Y-%m-%d", time.gmtime(run.ended)) if run.ended else "unknown"),
        ("processor", f"{here['cpu']}, {here['cores']} cores, {(here['memory'] or 0) / 2**30:.0f} GB of memory"),
        ("GPU", here["gpu"] or "none"),
        (
            "versions",
            ", ".join(
                f"{name} {here['packages'][name]}"
                for name in ("torch", "transformers", "peft", "trl")
                if name in here["packages"]
            ),
        ),
    ]
    if run.state == "cancelled" and run.step < run.steps:
        who = "by the time limit of the server" if run.code == "timed_out" else "by its owner"
        step = run.result.get("adapter_step", run.step)
        settings.insert(0, ("stopped early", f"at step {step:,} of {run.steps:,}, {who}"))
    rows = [(inline(name), inline(value)) for name, value in settings]
    where = (
        "those recorded when the run's bundle was made" if train.imported(run) else "those on which this was exported"
    )
    return f"{table(('setting', 'value'), rows)}\n\nMachine and versions are {where}."


def _limits(report: dict[str, Any] | None, told: dict[str, Any], format: str) -> str:
    tested = (
        f"It was tested on {report['n']} held-out rows of the same data, with greedy decoding. "
        if report
        else "It was not tested. "
    )
    lines = [
        f"- {tested}Other kinds of input, other languages, longer inputs and sampling were not tested.",
        "- Safety, bias and truthfulness were not tested; those of the base apply, and tuning may have changed them.",
        "- It may repeat what stood in its training rows.",
    ]
    if format != "adapter" and report:
        lines.append("- The scores above are those of the adapter on its base, before it was converted.")
    if told["train"] is not None and told["train"] < 50:
        lines.append(f"- {told['train']} training rows are few.")
    return "\n".join(lines)
