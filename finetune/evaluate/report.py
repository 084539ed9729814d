"""What an evaluation found, summed up: per arm, against each other, and in one sentence."""

import contextlib
import json
import math
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune import train
from finetune.evaluate.arms import REFERENCES, Asking
from finetune.evaluate.measure import Answered, answered, cost, general
from finetune.evaluate.scores import METRICS, Scored, confusion, macro_f1, scored, summed
from finetune.evaluate.stats import difference, mean_interval, share_interval
from finetune.evaluate.task import Task, adapter_hash
from finetune.evaluate.verdict import verdict
from finetune.store import DatasetRecord, Run

REPORT = "report.json"
NEAREST_KNOWS = 0.9
"""Share of rows from which, when the nearest training row's answer is right on them, no model was needed."""

PICKED = (
    " Its checkpoint was picked by the loss on these very rows, which flatters it; rows of another file "
    "(evaluate --data) would not."
)
UNCHANGED = 0.05
"""Nats by which the general loss may move either way and still count as unchanged: 5 % of a token's likelihood."""


def report(task: Task, answers: Sequence[Answered]) -> dict[str, Any]:
    """Everything that can be said of the answers there are; only arms with every row answered count.

    ``{"run", "data", "n", "excluded", "metric", "kind", "arms", "difference", "forgetting", "verdict"}``; see README.
    """
    said = _texts(task, answers)
    by_arm: dict[str, list[Answered]] = defaultdict(list)
    for one in sorted(answers, key=lambda one: one.row):
        by_arm[one.arm].append(one)
    arms = {arm: _arm(task, arm, said[arm], by_arm.get(arm, [])) for arm in task.arms if arm in said}
    found: dict[str, Any] = {
        "run": task.run.id if task.run else None,
        "model": task.model,
        "n": len(task.rows),
        "excluded": task.excluded,
        "left_out": task.left_out,
        "kind": task.kind,
        "metric": METRICS[task.kind],
        "arms": arms,
        "difference": None,
        "forgetting": _forgetting(by_arm),
        "verdict": None,
    }
    if {"tuned", "base"} <= arms.keys():
        values = {arm: _values(task, arm, said[arm], by_arm.get(arm, [])) for arm in arms}
        compared = {arm: list_ for arm, list_ in values.items() if list_}
        judged = verdict(compared, *(("nats", False) if task.kind == "free" else ("right", True)))
        gap = judged.difference
        assert gap
        scale = 1 if task.kind == "free" else 100
        found["difference"] = {
            "vs": judged.against,
            "points": round(scale * gap.mean, 4),
            "ci": [round(scale * gap.low, 4), round(scale * gap.high, 4)] if gap.n > 1 else None,
            "p": gap.p,
        }
        found["verdict"] = {
            "code": judged.code,
            "sentence": f"{judged.sentence}{_more(found)}{PICKED if task.picked else ''}",
        }
    return found


def conclude(task: Task, source: str) -> dict[str, Any]:
    """The report of what was answered, as `report`, with `source` (a name) as its ``data``.

    It is kept when every arm there can be was asked, and answers are judged as the data tells: a look at
    fewer arms, or at answers as another kind, changes nothing that guide and card say. ``from`` is "bundle" when
    some of the answers came with an imported run: nobody saw this adapter give them.
    """
    found = {"data": source, **report(task, answered(task))} | ({"from": "bundle"} if task.brought else {})
    if task.usual and set(found["arms"]) == set(task.arms):
        kept = found | {"adapter": task.adapter, "at": time.time()}
        aside = task.folder / f".{secrets.token_hex(4)}.report"
        task.make_folder()
        aside.write_text(json.dumps(kept), encoding="utf-8")
        os.replace(aside, task.folder / REPORT)
    return found


def known(run: Run) -> dict[str, Any] | None:
    """The report of a run as its adapter is now: of most rows, the latest; None when there is none. Nothing is asked.

    Example:
        >>> known(run)["verdict"]["sentence"]
        'No clear difference. Tuned is right on 20 of 40, …'
    """
    adapter = adapter_hash(run)
    reports = _kept(train.run_folder(run.id))
    return next((found for found in reports if found["adapter"] == adapter and found["verdict"]), None)


def known_before(record: DatasetRecord, model: str) -> dict[str, Any] | None:
    """The report on what a base model does with a kept dataset before any training; None when there is none."""
    return next((found for found in _kept(Path(record.folder)) if found["model"] == model), None)


def _kept(place: Path) -> list[dict[str, Any]]:
    reports = []
    for file in (place / "evaluations").glob(f"*/{REPORT}"):
        with contextlib.suppress(OSError, ValueError):  # deleted meanwhile, or damaged: as good as not there
            reports.append(json.loads(file.read_text(encoding="utf-8")))
    return sorted(reports, key=lambda found: (found["n"], found["at"]), reverse=True)


def judged(task: Task, answers: Sequence[Answered]) -> list[dict[str, Any]]:
    """Every row with its prompt, the expected answer, and each arm's text, loss, and whether it is right."""
    said = _texts(task, answers)
    losses = {(one.arm, one.row): one.loss / max(1, one.loss_tokens) for one in answers}
    rows = []
    for place, row in enumerate(task.rows):
        arms = {
            arm: {
                "text": texts[place],
                "loss": losses.get((arm, place)),
                "right": scored(texts[place], row.answer, task.kind).right if task.kind != "free" else None,
            }
            for arm, texts in said.items()
        }
        rows.append({"prompt": row.asked, "expected": row.answer, "arms": arms})
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


def _arm(task: Task, arm: str, texts: Sequence[str], answers: Sequence[Answered]) -> dict[str, Any]:
    scores = _scored(task, texts)
    parts = summed(scores)
    found: dict[str, Any] = {}
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
    return found | (cost(answers) if answers else {"prompt_tokens": 0, "seconds": 0.0})


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _forgetting(by_arm: dict[str, list[Answered]]) -> dict[str, Any] | None:
    base, tuned = by_arm.get("general_base", []), by_arm.get("general_tuned", [])
    if not base or len(base) != len(tuned):
        return None
    before, after = ([one.loss / one.loss_tokens for one in arm] for arm in (base, tuned))
    gap = difference(after, before)
    if gap.low >= -UNCHANGED and gap.high <= UNCHANGED:
        said = "unchanged"
    else:
        said = "worse" if gap.low > 0 else "better" if gap.high < 0 else "no clear change"
    answers = [
        {"prompt": row.asked, "base": one.text, "tuned": other.text}
        for row, one, other in zip(general(), base, tuned, strict=True)
        if one.tokens
    ]
    return {
        "base_loss": _mean(before),
        "tuned_loss": _mean(after),
        "ci": [gap.low, gap.high],
        "n": gap.n,
        "said": said,
        "answers": answers,
    }


def _more(found: dict[str, Any]) -> str:
    """What the nearest training row already knows, cost and general ability, in words."""
    arms, words = found["arms"], ""
    if found["kind"] != "free" and "nearest" in arms and arms["nearest"]["score"] >= NEAREST_KNOWS:
        words += " The nearest training row's answer alone is right on 90 % or more: these rows do not show that a "
        words += "model is needed."
    if found["kind"] == "free":
        words += " This says how likely the expected answers became, not that its own are right: read some."
    against = next((arm for arm in ("few_shot", "retrieval") if arm in arms), None)
    if against:
        few = arms[against]["prompt_tokens"]
        words += f" It answers with {arms['tuned']['prompt_tokens']:.0f} prompt tokens instead of {few:.0f}."
    if found["forgetting"]:
        lost = found["forgetting"]
        words += f" General ability: {lost['said']}"
        words += "." if lost["said"] == "unchanged" else f" (loss {lost['base_loss']:.2f} → {lost['tuned_loss']:.2f})."
    return words
