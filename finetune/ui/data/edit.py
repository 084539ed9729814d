"""A row, edited in place: the form, what is not saved yet, and saving it as a version.

The form is one piece of HTML, however many turns a row has: what is typed stays in the browser until it is kept. What
is kept is a step of the draft on disk (`finetune.data.drafts`), so neither a refusal nor a closed page loses any.
"""

import json
from collections.abc import Callable
from typing import Any

import gradio as gr
from markupsafe import Markup, escape

from finetune import data
from finetune.errors import DataError, FinetuneError
from finetune.records import Json
from finetune.services import Browser, known
from finetune.ui.data.opened import FEW_AT_ONCE, QUIETLY, Opened
from finetune.ui.data.rows import RowView, anew, place_of
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET, STATUS
from finetune.ui.html import failed, macros, text

TEMPLATES = macros("data/edit.html")
ROLES = ("system", "user", "assistant", "tool")

FORM = """
const turns = () => [...element.querySelectorAll('.ba-turn-form')];
const typed = () => turns().map((one) => ({
  from: one.dataset.from === undefined ? null : Number(one.dataset.from),
  role: one.querySelector('select').value, text: one.querySelector('textarea').value}));
const act = {
  more: () => {
    const last = turns().at(-1), fresh = last.cloneNode(true);
    delete fresh.dataset.from;
    fresh.querySelector('code')?.remove();
    fresh.querySelector('select').value = last.querySelector('select').value === 'user' ? 'assistant' : 'user';
    fresh.querySelector('textarea').value = '';
    last.after(fresh);
    fresh.querySelector('textarea').focus();
  },
  drop: (button) => {
    if (turns().length > 1) button.closest('.ba-turn-form').remove();
    turns()[0].querySelector('textarea').focus();
  },
};
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-do]'), form = element.querySelector('.ba-form');
  if (!button) return;
  const what = button.dataset.do;
  if (act[what]) return act[what](button);
  trigger('select', {do: what, row: Number(form.dataset.row), dataset: form.dataset.dataset, turns: typed()});
});
const focus = () => element.querySelector('textarea')?.focus();
focus();
watch('value', () => {
  for (const box of element.querySelectorAll('textarea')) box.value = box.defaultValue;
  for (const role of element.querySelectorAll('option')) role.selected = role.defaultSelected;
  focus();
});"""
"""What is typed is sent when a button is pressed; turns come and go in the browser.

Gradio changes the text nodes and attributes of the form that is there into those of the next row: a box that was typed
in, and a role that was chosen, would show what they were, and send it as the next row's.
"""

BACK = "() => { document.querySelector('#row-edit')?.focus({preventScroll: true}); }"
"""The form is gone: who works by keyboard is where they were before."""


class Editor:
    """The button and the form, and the bar that appears once something is not saved.

    `stay` is the dataset that was drawn last, or a version just saved and the row to show of it: drawn once more, as
    Gradio may ask for when it is busy, the row in view stays. `of` is the dataset that somebody has begun to edit: what
    is drawn for it a little later, because the server is busy, takes nothing away that was typed meanwhile.
    """

    def __init__(self, opened: Opened, browser: gr.BrowserState, rows: RowView, dataset: gr.State):
        self.opened, self.services, self.browser = opened, opened.services, browser
        self.rows, self.dataset = rows, dataset
        self.moved, self.code, self.of = rows.moved, gr.State(""), gr.State("")
        self.stay = gr.State(None)
        with rows.bar:
            self._draw_bar()
        with rows.place:
            self.said = gr.HTML(visible=False, js_on_load=STATUS, elem_id="edit-said")
            self.form = gr.HTML(visible=False, js_on_load=FORM, elem_id="row-form")

    def _draw_bar(self) -> None:
        small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 100}
        with gr.Column(visible=False, elem_id="draft", elem_classes="ba-card ba-draft") as self.bar:
            self.what = gr.HTML(js_on_load=STATUS, elem_id="draft-said")
            with gr.Row(elem_classes="ba-controls"):
                self.save = gr.Button(
                    "Save as a new version", variant="primary", elem_id="draft-save", **small | {"min_width": 190}
                )
                self.undo = gr.Button("Undo", elem_id="draft-undo", **small)
                self.discard = gr.Button("Discard…", elem_id="draft-discard", **small)
                self.sure = gr.Button("Discard all of it", variant="stop", visible=False, elem_id="draft-sure", **small)
                self.not_sure = gr.Button("Keep", visible=False, elem_id="draft-keep", **small)
            self.refused = gr.HTML(visible=False, js_on_load=STATUS, elem_id="draft-refused")

    def listen(self) -> None:
        """Attach the listeners; what follows a change of the rows comes from `RowView.moved`."""
        here = [self.dataset, self.browser]
        form = [self.form, self.said]
        self.rows.edit.click(self._open, [self.rows.row, self.code, *here], [*form, self.of], **QUIETLY)
        self.form.select(self._act, [self.code, *here], [*form, self.rows.row, self.moved], **QUIETLY).then(
            None, None, None, js=f"() => {{ if (!document.querySelector('#row-form .ba-form')) ({BACK})(); }}"
        )
        bar = [self.bar, self.what, self.sure, self.not_sure, self.refused]
        self.moved.change(self.look, here, bar, **QUIETLY)
        self.dataset.change(_closed, [self.of, self.dataset], form, **QUIET)
        self.undo.click(self._undo, here, self.moved, **QUIET)
        asked = [self.sure, self.not_sure]
        self.discard.click(lambda: (_shown(), _shown()), None, asked, **QUIET)
        self.not_sure.click(lambda: (_hidden(), _hidden()), None, asked, **QUIET)
        self.sure.click(self._discard, here, self.moved, **QUIET)
        saved = [self.what, self.refused, self.browser, self.dataset, self.moved, self.stay]
        self.save.click(self._save, [self.rows.row, *here], saved, **FEW_AT_ONCE)

    # The form

    def _open(self, row: float | None, code: str, dataset_id: str | None, state: Browser) -> tuple:
        try:
            edited = self.opened.edited(dataset_id, state)
            return _form(str(dataset_id), edited, place_of(row, len(edited)), code), _hidden(), dataset_id
        except FinetuneError as error:
            return _hidden(), _said(error), ""

    def _act(self, code: str, dataset_id: str | None, state: Browser, event: gr.EventData) -> dict[Any, Any]:
        """What a button of the form says. The form stays, with all that was typed, until it was done."""
        asked = event._data or {}
        if asked.get("do") == "cancel":
            return {self.form: _hidden(), self.said: _hidden()}
        try:
            if asked.get("dataset") != dataset_id:
                raise DataError("Another dataset is in view now.", fix="Open the row's dataset and edit it there.")
            row = self._do(str(asked.get("do")), asked, dataset_id, state)
            done = {self.form: _hidden(), self.said: _hidden(), self.rows.row: row + 1, self.moved: anew()}
            return done | (self._follow(row, code, dataset_id, state) if asked.get("do") == "next" else {})
        except FinetuneError as error:
            return {self.said: _said(error)}

    def _do(self, what: str, asked: Json, dataset_id: str | None, state: Browser) -> int:
        """Put a step into the draft; returns the place of the row to look at."""
        record, edited = self.services.dataset(dataset_id, state), self.opened.edited(dataset_id, state)
        place = place_of(asked.get("row"), len(edited))
        row = edited.shown(place)
        was = data.mark(edited.rows[place] if place < len(edited.rows) else row)
        if what in ("delete", "restore"):
            data.add_step(record, data.Delete(place=place, was=was, gone=what == "delete"))
            return place
        if what == "add" and row.kind != "answers":
            raise data.one_answer(record.name)
        messages = list(data.checked(typed(row, asked.get("turns")), row.tools).messages)
        if what == "add":
            data.add_step(record, data.Add(messages=messages, tools=list(row.tools)))
            return len(edited)
        if tuple(messages) != row.messages:
            data.add_step(record, data.Edit(place=place, was=was, messages=messages))
        return place

    def _follow(self, row: int, code: str, dataset_id: str | None, state: Browser) -> dict[Any, Any]:
        """The next row with the problem that is gone through, in the form."""
        edited = self.opened.edited(dataset_id, state)
        place = data.next_with(self.opened.get(dataset_id, state), code, row, edited) if code else None
        if place is None:
            gr.Info("No row is left with this problem.")
            return {}
        return {self.form: _form(str(dataset_id), edited, place, code), self.rows.row: place + 1}

    # What is not saved

    def look(self, dataset_id: str | None, state: Browser) -> tuple:
        """The bar, as it should be now."""
        hidden = [_hidden(), _hidden(), _hidden()]
        try:
            counts = self.opened.edited(dataset_id, state).counts() if dataset_id else data.Counts()
        except FinetuneError as error:
            damaged = error.code == "draft_damaged"
            return (gr.update(visible=damaged), text(str(error)) if damaged else "", *hidden)
        return (gr.update(visible=counts != data.Counts()), TEMPLATES.draft(counts), *hidden)

    def _undo(self, dataset_id: str | None, state: Browser) -> str:
        with noticed():
            data.undo_step(self.services.dataset(dataset_id, state))
        return anew()

    def _discard(self, dataset_id: str | None, state: Browser) -> str:
        with noticed():
            data.discard_draft(self.services.dataset(dataset_id, state))
        return anew()

    def _save(
        self, row: float | None, dataset_id: str | None, state: Browser, profile: gr.OAuthProfile | None = None
    ) -> dict[Any, Any]:
        """All steps so far, as one version, with the same row in view; a refusal leaves them where they are."""
        try:
            record, dataset = self.services.dataset(dataset_id, state), self.opened.get(dataset_id, state)
            edited = data.Edited(dataset.examples, data.draft(record), dataset.rejected)
            fixed = data.apply_edits(dataset, edited.steps)
            author = profile.username if profile else ""
            version = self.opened.keep(fixed, state, data.fixed_with(record), record, author)
            data.settle(record, edited.steps)
        except FinetuneError as error:
            return {self.refused: _said(error)}
        gr.Info(text(f"Saved as {version.title}."))
        return {
            self.refused: _hidden(),
            self.browser: known(state) | {"dataset": version.id},
            self.dataset: version.id,
            self.moved: anew(),
            self.stay: [version.id, edited.saved(place_of(row, len(edited))) + 1],
        }

    def settled(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """An event that makes another dataset of this one: refused while edits are not saved, which it would leave out.

        The last two values are the id of the dataset and the browser's state.
        """

        def guarded(*values: Any) -> Any:
            with noticed():
                if data.draft(self.services.dataset(*values[-2:])):
                    fix = "Save them as a new version, or discard them, first."
                    raise DataError("There are unsaved edits.", fix=fix, code="draft_open")
            return act(*values)

        return guarded


def _closed(of: str, dataset_id: str | None) -> Any:
    """The form of another dataset goes with it."""
    return gr.skip() if of == dataset_id else (_hidden(), _hidden())


def typed(row: data.Example, turns: Any) -> list[Json]:
    """The turns of a form as messages. A turn that was not touched is what it was, to the last invisible character.

    Raises:
        DataError: what came is no form's, or a turn that calls a tool was given another role.
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError("The form sent no turns.", fix="Load the page again.")
    messages: list[Json] = []
    for turn in turns:
        role, said, place = str(turn.get("role")), str(turn.get("text")), turn.get("from")
        old = row.messages[place] if isinstance(place, int) and 0 <= place < len(row.messages) else {}
        if old and old["role"] != role:
            if "tool_calls" in old or "tool_call_id" in old:
                fix = f"Leave it {old['role']}, or remove the turn."
                raise DataError("A turn that calls a tool, or answers a call, has its role from that.", fix=fix)
            old = {}
        same = old and said == _in_box(old["content"])
        messages.append({**old, "role": role, "content": old["content"] if same else said})
    return messages


def _in_box(said: str) -> str:
    """What a browser makes of a text that is put into a box."""
    return said.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _form(dataset_id: str, edited: data.Edited, place: int, code: str) -> Json:
    row = edited.shown(place)
    turns = [(i, m["role"], _raw(m["content"]), _calls(m)) for i, m in enumerate(row.messages)]
    deleted = edited.now(place) is None
    form = TEMPLATES.form(dataset_id, place + 1, row.line, turns, ROLES, deleted, bool(code))
    return gr.update(value=form, visible=True)


def _raw(said: str) -> Markup:
    """A text as it is; a browser takes away the line break that a box begins with."""
    return Markup("\n") + escape(said)


def _calls(message: Json) -> str:
    calls = message.get("tool_calls")
    return json.dumps(calls, ensure_ascii=False) if calls else ""


def _hidden() -> Json:
    return gr.update(visible=False)


def _shown() -> Json:
    return gr.update(visible=True)


def _said(error: FinetuneError) -> Json:
    return gr.update(value=failed(str(error), "Not kept."), visible=True)
