"""What an evaluation found, summed up: per arm, against each other, and in one sentence."""

import contextlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune import train
from finetune.evaluate.arms import REFERENCES, TITLES, Asking
from finetune.evaluate.findings import (
    Answered,
    Arm,
    ArmAnswer,
    Change,
    Conclusion,
    Forgetting,
    Gap,
    GeneralAnswer,
    Judged,
    Report,
)
from finetune.evaluate.measure import answered, cost, general
from finetune.evaluate.scores import METRICS, Scored, confusion, macro_f1, scored, summed
from finetune.evaluate.stats import difference, mean_interval, share_interval
from finetune.evaluate.task import Task, adapter_hash
from finetune.evaluate.verdict import Verdict, verdict
from finetune.files import aside
from finetune.records import Json
from finetune.store import DatasetRecord, Run

REPORT = "report.json"
NEAREST_KNOWS = 0.9
"""Share of rows from which, when the nearest training row's answer is right on them, no model was needed."""

PICKED = (
    " Its checkpoint was chosen by the loss on these same rows, which flatters it; rows from another file "
    "(evaluate --data) would not."
)
UNSURE = " It continues a run whose training rows are not here: it may have been trained on some of these rows."
UNCHANGED = 0.05
"""Nats by which the general loss may move either way and still count as unchanged: 5 % of a token's likelihood."""


def report(task: Task, answers: Sequence[Answered]) -> Report:
    """Everything that can be said of the answers there are; only arms with every row answered count."""
    said = _texts(task, answers)
    by_arm: dict[str, list[Answered]] = defaultdict(list)
    for one in sorted(answers, key=lambda one: one.row):
        by_arm[one.arm].append(one)
    costs = {arm: cost([one for one in answers if one.arm == arm]) for arm in by_arm}  # in the order they were given
    arms = {arm: _arm(task, arm, said[arm], by_arm.get(arm, []), costs) for arm in task.arms if arm in said}
    found = Report(
        run=task.run.id if task.run else None,
        model=task.model,
        n=len(task.rows),
        excluded=task.excluded,
        left_out=task.left_out,
        kind=task.kind,
        metric=METRICS[task.kind],
        arms=arms,
        difference=None,
        forgetting=_forgetting(by_arm),
        verdict=None,
    )
    if not {"tuned", "base"} <= arms.keys():
        return found
    values = {arm: _values(task, arm, said[arm], by_arm.get(arm, [])) for arm in arms}
    compared = {arm: list_ for arm, list_ in values.items() if list_}
    judged = verdict(compared, *(("nats", False) if task.kind == "free" else ("right", True)))
    doubts = f"{PICKED if task.picked else ''}{UNSURE if task.unsure else ''}"
    sentence = f"{judged.sentence}{_more(found)}{doubts}"
    conclusion = Conclusion(code=judged.code, sentence=sentence)
    return found.model_copy(update={"difference": _gap(judged, task.kind), "verdict": conclusion})


def _gap(judged: Verdict, kind: str) -> Gap:
    gap, scale = judged.difference, 1 if kind == "free" else 100
    assert gap
    return Gap(
        vs=judged.against,
        points=round(scale * gap.mean, 4),
        ci=[round(scale * gap.low, 4), round(scale * gap.high, 4)] if gap.n > 1 else None,
        p=gap.p,
    )


def conclude(task: Task, source: str, *, only_look: bool = False) -> Report:
    """The report of what was answered, as `report`, with `source` (a name) as its ``data``.

    It is kept when every arm there can be was asked, and answers are judged as the data tells: a look at
    fewer arms, or at answers as another kind, changes nothing that worksheet and card say. With `only_look` it is not.
    """
    origin = {"origin": "bundle"} if task.brought else {}
    found = report(task, answered(task)).model_copy(update={"data": source, **origin})
    if not only_look and task.usual and set(found.arms) == set(task.arms):
        keep(found, task.adapter, task.make_folder())
    return found


def keep(found: Report, adapter: str | None, folder: Path) -> None:
    """Keep a report in an evaluation's folder, with the hash of the adapter it is about."""
    kept = found.model_copy(update={"adapter": adapter, "at": time.time()})
    with aside(folder / REPORT) as place:
        place.write_text(json.dumps(kept.as_json()), encoding="utf-8")


def kept(task: Task) -> Report | None:
    """The report of just this task; None unless every arm was asked all of it. Nothing is asked.

    Example:
        >>> kept(of_run(run, store)).verdict.code
        'helped'
    """
    with contextlib.suppress(OSError, ValueError):  # none, or damaged: as good as not there
        return Report.model_validate_json((task.folder / REPORT).read_bytes())
    return None


def known(run: Run) -> Report | None:
    """The report of a run as its adapter is now: of most rows, the latest; None when there is none. Nothing is asked.

    Example:
        >>> known(run).verdict.sentence
        'No clear difference. Tuned is right on 20 of 40, …'
    """
    adapter = adapter_hash(run)
    reports = _kept(train.run_folder(run.id))
    return next((found for found in reports if found.adapter == adapter and found.verdict), None)


def known_before(record: DatasetRecord, model: str) -> Report | None:
    """The report on what a base model does with a kept dataset before any training; None when there is none."""
    return next((found for found in _kept(Path(record.folder)) if found.model == model), None)


def _kept(place: Path) -> list[Report]:
    reports = []
    for file in (place / "evaluations").glob(f"*/{REPORT}"):
        with contextlib.suppress(OSError, ValueError):  # deleted meanwhile, or damaged: as good as not there
            reports.append(Report.model_validate_json(file.read_bytes()))
    return sorted(reports, key=lambda found: (found.n, found.at or 0), reverse=True)


def judged(task: Task, answers: Sequence[Answered]) -> list[Judged]:
    """Every row with its prompt, the expected answer, and each arm's text, loss, and whether it is right."""
    said = _texts(task, answers)
    losses = {(one.arm, one.row): one.loss / max(1, one.loss_tokens) for one in answers}
    rows = []
    for place, row in enumerate(task.rows):
        arms = {
            arm: ArmAnswer(
                text=texts[place],
                loss=losses.get((arm, place)),
                right=scored(texts[place], row.answer, task.kind).right if task.kind != "free" else None,
            )
            for arm, texts in said.items()
        }
        rows.append(Judged(prompt=row.asked, expected=row.answer, arms=arms))
    return rows


def _texts(task: Task, answers: Sequence[Answered]) -> dict[str, list[str]]:
    """Each arm's answers in the order of the rows; arms that are not complete are left out."""
    texts: dict[str, dict[int, str]] = defaultdict(dict)
    for one in answers:
        texts[one.arm][one.row] = one.text
    whole = {
        arm: [texts[arm][row] for row in range(len(task.rows))]
        for arm in task.arms
        if len(texts[arm]) == len(task.rows)
    }
    if references := [arm for arm in REFERENCES if arm in task.arms and task.train]:
        asking = Asking(task.train, task.seed)
        whole |= {arm: [asking.answer(arm, row) for row in task.rows] for arm in references}
    return {arm: whole[arm] for arm in task.arms if arm in whole}


def _values(task: Task, arm: str, texts: Sequence[str], answers: Sequence[Answered]) -> list[float]:
    """Each row's value of what is compared; none for references where losses are."""
    if task.kind == "free":
        return [one.loss / max(1, one.loss_tokens) for one in answers]
    return [float(bool(one.right)) for one in _scored(task, texts)]


def _scored(task: Task, texts: Sequence[str]) -> list[Scored]:
    return [scored(text, row.answer, task.kind, task.schema) for text, row in zip(texts, task.rows, strict=True)]


def _arm(task: Task, arm: str, texts: Sequence[str], answers: Sequence[Answered], costs: Mapping[str, Json]) -> Arm:
    scores = _scored(task, texts)
    parts = summed(scores)
    found: Json = {}
    if task.kind == "free":
        losses = [one.loss / max(1, one.loss_tokens) for one in answers]
        found = {
            "score": _mean(losses),
            "ci": list(mean_interval(losses)) if len(losses) > 1 else None,
            "correct": None,
        }
    else:
        right = sum(bool(one.right) for one in scores)
        found = {"score": right / len(texts), "ci": list(share_interval(right, len(texts))), "correct": right}
    if task.kind == "label":
        expected = [row.answer for row in task.rows]
        parts["macro F1"] = macro_f1(texts, expected)
        found["confusion"] = confusion(texts, expected)
    found["parts"] = {name: round(value, 4) for name, value in parts.items() if name != "right"}
    total, tokens = sum(one.loss for one in answers), sum(one.loss_tokens for one in answers)
    found["loss"] = total / tokens if tokens else None
    found["perplexity"] = math.exp(min(50.0, total / tokens)) if tokens else None
    return Arm(**found, **costs.get(arm, {"prompt_tokens": 0, "seconds": 0.0}))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _forgetting(by_arm: dict[str, list[Answered]]) -> Forgetting | None:
    base, tuned = by_arm.get("general_base", []), by_arm.get("general_tuned", [])
    if min(len(base), len(tuned)) < len(general()):  # stopped before its end, perhaps with as many of both
        return None
    before, after = ([one.loss / one.loss_tokens for one in arm] for arm in (base, tuned))
    gap = difference(after, before)
    if gap.low >= -UNCHANGED and gap.high <= UNCHANGED:
        said: Change = "unchanged"
    else:
        said = "worse" if gap.low > 0 else "better" if gap.high < 0 else "no clear change"
    answers = [
        GeneralAnswer(prompt=row.asked, base=one.text, tuned=other.text)
        for row, one, other in zip(general(), base, tuned, strict=True)
        if one.tokens
    ]
    return Forgetting(
        base_loss=sum(before) / len(before),
        tuned_loss=sum(after) / len(after),
        ci=[gap.low, gap.high],
        n=gap.n,
        said=said,
        answers=answers,
    )


def _more(found: Report) -> str:
    """What the nearest training row already knows, cost and general ability, in words."""
    arms, words = found.arms, ""
    if found.kind != "free" and "nearest" in arms and (arms["nearest"].score or 0) >= NEAREST_KNOWS:
        words += " The nearest training row's answer alone is right on 90 % or more: these rows do not show that a "
        words += "model is needed."
    if found.kind == "free":
        words += (
            " This measures how likely the model finds the expected answers, not whether the answers it writes are "
            "right: read a few."
        )
    works = found.kind == "free" or bool(arms["tuned"].score)  # else nobody wants it, however short its prompt
    if works and (against := next((arm for arm in ("few_shot", "retrieval") if arm in arms), None)):
        few = arms[against].prompt_tokens
        words += f" The tuned model needs {arms['tuned'].prompt_tokens:.0f} prompt tokens, {TITLES[against].lower()} "
        words += f"{few:.0f}."
    if lost := found.forgetting:
        words += f" General ability: {lost.said}"
        words += "." if lost.said == "unchanged" else f" (loss {lost.base_loss:.2f} → {lost.tuned_loss:.2f})."
    return words
