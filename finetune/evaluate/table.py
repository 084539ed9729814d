"""The report as a small table, as the command line and the library print it."""

from typing import TYPE_CHECKING

from finetune.evaluate.arms import MODELS
from finetune.evaluate.task import LEFT_OUT

if TYPE_CHECKING:
    from finetune.evaluate.findings import Arm, Report


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


def _line(name: str, arm: "Arm") -> str:
    interval = f"{arm.ci[0]:.3f} to {arm.ci[1]:.3f}" if arm.ci else "–"
    score = f"{arm.score:.3f}" if arm.score is not None else "–"
    loss = f"{arm.loss:.3f}" if arm.loss is not None else "–"
    cost = f"{arm.prompt_tokens:>15.0f}{arm.seconds:>10.2f}" if name in MODELS else f"{'–':>15}{'–':>10}"
    return f"{name:<12}{score:>8}  {interval:<16}{loss:>7}{cost}"
