"""Many rows at once: those with one problem, one after the other; a text found and replaced in all of them."""

from typing import Any

import gradio as gr

from finetune import data
from finetune.data.steps import LONGEST_FIND
from finetune.errors import DataError, FinetuneError
from finetune.records import Json
from finetune.services import Browser
from finetune.ui.data.edit import TEMPLATES, Editor
from finetune.ui.data.opened import FEW_AT_ONCE, QUIETLY
from finetune.ui.data.rows import anew, place_of
from finetune.ui.events import QUIET, STATUS
from finetune.ui.html import cut, failed

WALK = """element.addEventListener('click', (event) => {
  const one = event.target.closest('[data-code]');
  if (one) trigger('select', {code: one.dataset.code});
});"""

SHOWN = 2_000
"""Characters of a row in a preview."""

WHERE = [("Every turn", "everywhere"), ("Only answers", "answers"), ("All but answers", "prompts")]


class Many:
    """Draws the strip above the row and the fold below it. `editor` keeps what is done."""

    def __init__(self, editor: Editor):
        self.editor, self.rows, self.opened = editor, editor.rows, editor.opened
        self.dataset, self.browser, self.code = editor.dataset, editor.browser, editor.code
        with self.rows.bar:
            self._draw_strip()
        self.asked = gr.State(None)
        with gr.Accordion("Edit many rows", open=False, visible=False, elem_id="many") as self.fold:
            gr.HTML("<h5 class='ba-masked'>Go through the rows with one problem</h5>")
            self.problems = gr.HTML(js_on_load=WALK, elem_id="walk-problems")
            gr.HTML("<h5 class='ba-masked'>Find and replace in all rows</h5>")
            self._draw_replace()

    def _draw_strip(self) -> None:
        with gr.Column(visible=False, elem_id="walk", elem_classes="ba-card ba-draft") as self.strip:
            self.walked = gr.HTML(js_on_load=STATUS, elem_id="walk-said")
            with gr.Row(elem_classes="ba-controls"):
                small: dict[str, Any] = {"size": "sm", "scale": 0}
                self.next = gr.Button("Next row with this problem", min_width=230, elem_id="walk-next", **small)
                self.stop = gr.Button("All rows again", min_width=130, elem_id="walk-stop", **small)

    def _draw_replace(self) -> None:
        with gr.Row(elem_classes="ba-controls"):
            self.find = gr.Textbox(
                "", label="Find", lines=1, max_lines=6, min_width=200, scale=2, elem_id="replace-find"
            )
            self.put = gr.Textbox(
                "", label="Replace with", lines=1, max_lines=6, min_width=200, scale=2, elem_id="replace-put"
            )
            self.where = gr.Dropdown(WHERE, value=WHERE[0][1], label="Where", min_width=140, elem_id="replace-where")
        self.case = gr.Checkbox(True, label="Match capital letters", container=False, elem_id="replace-case")
        with gr.Row(elem_classes="ba-controls"):
            small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 110}
            self.try_it = gr.Button("Preview", elem_id="replace-preview", **small)
            self.apply = gr.Button("Replace", variant="primary", visible=False, elem_id="replace-apply", **small)
        self.previewed = gr.HTML(js_on_load=STATUS, elem_id="replace-said")

    def listen(self) -> None:
        """Attach the listeners; they come after those of the editor."""
        here = [self.dataset, self.browser]
        of = self.editor.of
        drawn = [self.fold, self.problems, self.code, self.strip, self.asked, self.apply, self.previewed]
        self.dataset.change(self._begin, [of, *here], drawn, **QUIETLY)
        walked = [self.code, self.problems, self.strip, self.walked, self.rows.row, of]
        self.problems.select(self._choose, [self.rows.row, *here], walked, **QUIETLY)
        self.next.click(self._next, [self.code, self.rows.row, *here], [self.walked, self.rows.row], **QUIETLY)
        self.stop.click(self._stop, here, walked[:3], **QUIETLY)
        fields = [self.find, self.put, self.where, self.case]
        previewed = [self.asked, self.apply, self.previewed, of]
        gr.on(
            [self.try_it.click, self.find.submit, self.put.submit],
            self._preview,
            [*fields, *here],
            previewed,
            **FEW_AT_ONCE,
        )
        typed = [field.input for field in (self.find, self.put, self.case)]
        gr.on([*typed, self.where.select], _stale, None, previewed[:2], **QUIET)
        self.apply.click(self._replace, [self.asked, *here], [*previewed[:3], self.rows.moved], **QUIET)

    # One problem

    def _begin(self, of: str, dataset_id: str | None, state: Browser) -> dict[Any, Any]:
        """The fold for the data in view; what was asked of other data is over, what is asked of this one goes on."""
        over: dict[Any, Any] = {self.fold: gr.skip()}
        if of != dataset_id:
            over = {self.code: "", self.strip: gr.update(visible=False), self.asked: None, self.previewed: ""}
            over[self.apply] = gr.update(visible=False)
        try:
            dataset = self.opened.get(dataset_id, state) if dataset_id else None
        except FinetuneError:
            dataset = None
        if dataset is None or not dataset.examples:
            return over | {self.fold: gr.update(visible=False), self.problems: ""}
        shown = over | {self.fold: gr.update(visible=True)}
        return shown if of == dataset_id else shown | {self.problems: TEMPLATES.problems(data.walkable(dataset), "")}

    def _choose(self, row: float | None, dataset_id: str | None, state: Browser, event: gr.EventData) -> Any:
        """Begin with the row in view, if it has the problem."""
        code = str((event._data or {}).get("code"))
        try:
            dataset = self.opened.get(dataset_id, state)
            if code not in {problem.code for problem in data.walkable(dataset)}:
                return gr.skip()
        except FinetuneError:
            return gr.skip()
        changes = self._walk(code, place_of(row, len(dataset.examples)) - 1, dataset_id, state)
        found = TEMPLATES.problems(data.walkable(dataset), code)
        strip = gr.update(visible=True)
        return changes | {self.code: code, self.problems: found, self.strip: strip, self.editor.of: dataset_id}

    def _next(self, code: str, row: float | None, dataset_id: str | None, state: Browser) -> Any:
        return self._walk(code, int(row or 1) - 1, dataset_id, state)

    def _walk(self, code: str, after: int, dataset_id: str | None, state: Browser) -> dict[Any, Any]:
        try:
            dataset, edited = self.opened.get(dataset_id, state), self.opened.edited(dataset_id, state)
            problem = next((problem for problem in dataset.problems if problem.code == code), None)
            if problem is None:
                raise DataError("No problem is chosen.", fix="Choose one under Edit many rows.")
            place = data.next_with(dataset, code, after, edited)
        except FinetuneError as error:
            return {self.walked: failed(str(error))}
        said = TEMPLATES.walking(problem, place + 1 if place is not None else None, data.all_known(code))
        return {self.walked: said} | ({self.rows.row: place + 1} if place is not None else {})

    def _stop(self, dataset_id: str | None, state: Browser) -> dict[Any, Any]:
        try:
            found = TEMPLATES.problems(data.walkable(self.opened.get(dataset_id, state)), "")
        except FinetuneError:
            found = ""
        return {self.code: "", self.problems: found, self.strip: gr.update(visible=False)}

    # Find and replace

    def _preview(self, *values: Any) -> tuple:
        *fields, dataset_id, state = values
        try:
            step, edited = _step(*fields), self.opened.edited(dataset_id, state)
            found = data.preview_replace(edited, step)
        except FinetuneError as error:
            return None, gr.update(visible=False), failed(str(error)), dataset_id
        shown = [(place + 1, _shown(before, step), _shown(after, step, True)) for place, before, after in found.first]
        html = TEMPLATES.preview({"rows": found.rows, "kept": found.kept, "first": shown})
        asked = [len(edited.steps), step.model_copy(update={"rows": found.rows}).model_dump()]
        label = f"Replace in {found.rows:,} rows" if found.rows != 1 else "Replace in 1 row"
        return asked, gr.update(visible=bool(found.rows), value=label), html, dataset_id

    def _replace(self, asked: list | None, dataset_id: str | None, state: Browser) -> dict[Any, Any]:
        """What was previewed, and nothing else: rows that were edited since are previewed again."""
        try:
            record = self.opened.services.dataset(dataset_id, state)
            if not asked or asked[0] != len(data.draft(record)):
                raise DataError("Rows were edited since the preview.", fix="Press Preview again.")
            data.add_step(record, data.Replace(**asked[1]))
        except FinetuneError as error:
            return {self.previewed: failed(str(error))}
        said = "<p class='ba-stats'><b>The text is replaced.</b> <span>Undo takes it back.</span></p>"
        return {
            self.asked: None,
            self.apply: gr.update(visible=False),
            self.previewed: said,
            self.rows.moved: anew(),
        }


def _stale() -> tuple:
    return None, gr.update(visible=False)


def _step(find: str, put: str, where: str, case: bool) -> data.Replace:
    """The fields as a step. Raises `DataError` for what cannot be looked for."""
    if any("\ud800" <= character <= "\udfff" for character in f"{find}{put}"):
        raise DataError("The text contains half a character (a lone surrogate), often part of an emoji.")
    if not find:
        raise DataError("There is nothing to find.", fix="Type the text that should be replaced.")
    if max(len(find), len(put or "")) > LONGEST_FIND:
        raise DataError("One of the texts has more than 10,000 characters.", fix="Shorten it.")
    return data.Replace(find=find, put=put or "", case=bool(case), where=where)  # type: ignore[arg-type]


def _shown(row: data.Example, step: data.Replace, after: bool = False) -> str:
    """The turns of a row in which something is replaced, as text."""
    said = step.put if after else step.find
    turns: list[Json] = [m for m in row.told if said and said.casefold() in m["content"].casefold()]
    lines = [f"{m['role']}: {_around(m['content'], said)}" for m in turns or row.messages[-1:]]
    return cut("\n".join(lines), SHOWN)


def _around(content: str, said: str) -> str:
    """A long text from a little before what is looked at."""
    first = content.casefold().find(said.casefold()) if said else 0
    return content if first < 200 else f"…{content[first - 100 :]}"
