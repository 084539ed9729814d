"""The fixes on offer: each with what it would do to a row, to be made alone or together."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from finetune import data
from finetune.data.choices import OTHERWISE
from finetune.data.fixes import TITLES
from finetune.ui.data import report


@dataclass(frozen=True)
class Remedy:
    """The components of one fix."""

    box: gr.Column
    tick: gr.Checkbox
    button: gr.Button
    change: gr.HTML


class Remedies:
    """One hidden box for every fix there is; `offer` shows those that would change something."""

    def __init__(self) -> None:
        with gr.Column(visible=False, elem_id="fixes", elem_classes="ba-card ba-fixes") as self.place:
            gr.HTML("<h4 class='ba-head'>Fixes</h4>")
            self.each = {code: self._remedy(code) for code in TITLES}
            with gr.Row():
                self.together = gr.Button("Apply the ticked fixes", size="sm", min_width=180, elem_id="fix-ticked")
                self.undo = gr.Button("Undo all fixes", size="sm", min_width=140, visible=False, elem_id="fix-undo")

    def draw_system(self) -> None:
        """The form for a system prompt of one's own, wherever it should stand."""
        with gr.Accordion(
            "Add a system prompt to every row", open=False, visible=False, elem_id="fix-system"
        ) as self.more:
            self.system = gr.Textbox(
                "",
                label="System prompt",
                info="Added to rows without one; chat uses it too.",
                lines=2,
                elem_id="fix-system-text",
            )
            self.system_change = gr.HTML()
            self.fill = gr.Button("Fill it in", size="sm", elem_id="fix-system-apply")

    def _remedy(self, code: str) -> Remedy:
        name = code.replace("_", "-")
        with gr.Column(visible=False, elem_id=f"fix-{name}", elem_classes="ba-fix") as box:
            with gr.Row(equal_height=True):
                tick = gr.Checkbox(False, label=TITLES[code], container=False, scale=5, min_width=200)
                button = gr.Button("Apply", size="sm", scale=0, min_width=80, elem_id=f"apply-{name}")
            change = gr.HTML()
        return Remedy(box, tick, button, change)

    @property
    def outputs(self) -> list[Any]:
        """What `offer` sets."""
        parts = [part for remedy in self.each.values() for part in (remedy.box, remedy.tick, remedy.change)]
        return [self.place, self.together, self.undo, self.more, *parts]

    def offer(self, fixes: list[data.Fix], dataset: data.Dataset | None) -> dict[Any, Any]:
        """Updates that show these fixes, and nothing where there is no dataset."""
        found = {fix.code: fix for fix in fixes}
        applied = bool(dataset and dataset.applied and not dataset.edits)  # edits would go with the fixes
        updates: dict[Any, Any] = {
            self.place: gr.update(visible=bool(found) or applied),
            self.together: gr.update(visible=len(found) > 1),
            self.undo: gr.update(visible=applied),
            self.more: gr.update(visible=bool(dataset and dataset.examples)),
        }
        for code, remedy in self.each.items():
            updates |= self._update(remedy, found.get(code))
        return updates

    def one(self, code: str) -> list[Any]:
        """The outputs of one remedy, for `offer_one`; the frame first."""
        remedy = self.each[code]
        return [self.place, remedy.box, remedy.tick, remedy.change]

    def offer_one(self, code: str, fix: data.Fix | None) -> dict[Any, Any]:
        """Updates that add one fix to those in view, or take it away."""
        return ({self.place: gr.update(visible=True)} if fix else {}) | self._update(self.each[code], fix)

    @staticmethod
    def _update(remedy: Remedy, fix: data.Fix | None) -> dict[Any, Any]:
        if fix is None:
            return {remedy.box: gr.update(visible=False), remedy.tick: False, remedy.change: ""}
        rows = "1 row" if fix.rows_changed == 1 else f"{fix.rows_changed:,} rows"
        return {
            remedy.box: gr.update(visible=True),
            remedy.tick: gr.update(value=fix.code not in OTHERWISE, label=f"{fix.title} ({rows})"),
            remedy.change: report.fix(fix),
        }
