"""A visitor's try as HTML: which phase, how far, and what was found."""

from markupsafe import Markup

from finetune import train
from finetune.evaluate.finished import headline
from finetune.trial import PRESET, ROWS, Status
from finetune.ui.html import macros
from finetune.ui.results.verdict import WORDS

TEMPLATES = macros("start/start.html")
CUT_SHORT = (
    f"Kept short: {ROWS} held-out rows are used, and the preset {train.preset(PRESET).title} makes one pass "
    "over the data, on the upper layers only. Results can use more rows; Train has longer presets."
)
LEAVE = "You can leave or close this page: your run goes on and stays here."


def draw(status: Status | None) -> Markup:
    """Every phase with its state; nothing when nothing was tried."""
    if status is None:
        return Markup("")
    kind, note = "", LEAVE if status.going else ""
    if status.report and status.report.verdict:
        head, kind = headline(status.report), WORDS[status.report.verdict.code][2]
    elif status.going:
        head = "Your own run"
    elif status.trial.error:
        head, kind, note = "It had to stop", "ba-hurt", status.trial.error
    else:
        head, note = "Your own run was interrupted", "What was measured is kept; resume from there."
    return TEMPLATES.journey(status.phases, head, kind, note, CUT_SHORT)
