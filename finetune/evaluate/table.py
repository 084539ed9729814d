"""The report, and what strengths of the adapter do, as small tables for the command line and the library."""

from typing import TYPE_CHECKING

from finetune.evaluate.arms import MODELS
from finetune.evaluate.task import LEFT_OUT

if TYPE_CHECKING:
    from finetune.evaluate.findings import Arm, Report
    from finetune.evaluate.tradeoff import Strengths


def table(report: "Report") -> str:
    """Every arm with its score, interval and cost, and the verdict under them.

    Example:
        >>> table(report).splitlines()[0]
        '8 held-out rows, 0 excluded because they were trained on; exact match'
    """
    lines = [f"{report.n} held-out rows, {report.excluded} excluded because they were trained on; {report.metric}"]
    lines += [f"{report.left_out} held-out rows were skipped: they {LEFT_OUT}."] if report.left_out else []
    lines += [f"{'':<12}{'score':>8}  {'95 % interval':<16}{'loss':>7}{'prompt tokens':>15}{'s/answer':>10}"]
    lines += [_line(name, arm) for name, arm in report.arms.items()]
    return "\n".join([*lines, *([report.verdict.sentence] if report.verdict else [])])


def strength_table(found: "Strengths") -> str:
    """Every strength with its score, loss and general loss, the best marked, and what follows under them.

    Example:
        >>> strength_table(found).splitlines()[0]
        '54 held-out rows, 64 general prompts; accuracy'
    """
    lines = [f"{found.n} held-out rows, {found.general} general prompts; {found.metric}"]
    lines += [f"{'strength':<10}{'score':>8}{'loss':>9}{'general loss':>14}"]
    for one in found.points:
        score = "–" if one.score is None else f"{one.score:.3f}"
        mark = "  best trade-off" if one == found.best else ""
        lines.append(f"{one.strength:<10g}{score:>8}{one.loss:>9.3f}{one.general_loss:>14.3f}{mark}")
    return "\n".join([*lines, *found.sentences])


def _line(name: str, arm: "Arm") -> str:
    interval = f"{arm.ci[0]:.3f} to {arm.ci[1]:.3f}" if arm.ci else "–"
    score = f"{arm.score:.3f}" if arm.score is not None else "–"
    loss = f"{arm.loss:.3f}" if arm.loss is not None else "–"
    cost = f"{arm.prompt_tokens:>15.0f}{arm.seconds:>10.2f}" if name in MODELS else f"{'–':>15}{'–':>10}"
    return f"{name:<12}{score:>8}  {interval:<16}{loss:>7}{cost}"
