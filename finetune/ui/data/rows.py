"""Any row of the dataset, by number or search: as a conversation, and as it is trained."""

import json
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import gradio as gr
from markupsafe import Markup

from finetune import data, models, train
from finetune.errors import FinetuneError
from finetune.records import Json
from finetune.services import Browser
from finetune.ui.data.opened import FEW_AT_ONCE, Opened
from finetune.ui.html import cut, macros, masked, render

TEMPLATES = macros("data/rows.html")
PAIR_TITLES = ("As trained: the better answer", "As trained: the worse answer")
LINE = re.compile(r"\s*line\s+(\d{1,12})\s*", re.IGNORECASE)


def as_chat(example: data.Example, state: str = "") -> Markup:
    """One example as chat bubbles: what is read is slate, what is learned orange; `state` says how it was edited."""
    tools = ", ".join(str(tool.get("function", tool).get("name", "?")) for tool in example.tools)
    messages = [_message(example, message) for message in example.messages]
    if example.worse:
        messages.append(_message(example, example.worse))
    return TEMPLATES.as_chat(example.line, tools, messages, state)


def _message(example: data.Example, message: Json) -> tuple[str, bool, str, str, str]:
    """Role, whether it is learned, what is said of an answer, text, tool calls."""
    calls = message.get("tool_calls")
    text, called = message["content"], json.dumps(calls, ensure_ascii=False) if calls else ""
    if message["role"] != "assistant":
        return message["role"], False, "", text, called
    note = ""
    if message is example.worse:
        note = "the worse answer"
    elif message.get("weight") == 0:
        note = "read, not learned"
    elif example.worse:
        note = "the better answer"
    elif example.good is not None:
        note = "marked as good" if example.good else "marked as bad"
    learned = note not in ("the worse answer", "read, not learned", "marked as bad")
    return message["role"], learned, note, text, called


def as_trained(example: data.Example, model: str, max_length: int | None = None) -> Markup:
    """One example as the trainer will get it: every token in place, coloured by what becomes of it.

    Of a pair, both conversations: what is coloured in them is compared.

    Raises:
        ModelError: the model cannot be had, or its template refuses the example.
    """
    tokenizer = models.load_tokenizer(models.find(model))
    titles = PAIR_TITLES if example.worse else ("As trained",)
    sides = zip(example.sides, titles, strict=True)
    return Markup("").join(_side(data.preview(one, tokenizer, max_length), title) for one, title in sides)


def _side(segments: Sequence[data.Segment], title: str) -> Markup:
    counts = Counter[str]()
    for segment in segments:
        counts["cut" if segment.kind == "cut" else "trained" if segment.trained else "read"] += len(segment.ids)
    return TEMPLATES.as_trained(segments, counts["trained"], counts["read"], counts["cut"], title)


def found(examples: Sequence[data.Example] | data.Edited, query: str, after: int) -> int | None:
    """The place (from 0) of the next row after `after` that holds a text, whatever its case; it begins anew at the end.

    ``line 12`` finds the row that stands in line 12 of the file.

    Example:
        >>> found(load("sample_data/recipes").examples, "line 3", after=0)
        2
    """
    if line := LINE.fullmatch(query):
        return next((place for place, example in enumerate(examples) if example.line == int(line[1])), None)
    wanted = query.casefold()
    places = chain(range(after + 1, len(examples)), range(min(after + 1, len(examples))))
    return next((place for place in places if _holds(examples[place], wanted)), None)


def _holds(example: data.Example, wanted: str) -> bool:
    return any(wanted in message["content"].casefold() for message in example.told)


class RowView:
    """The controls and the two views of one row. `dataset` holds the id of the dataset in view.

    Rows are shown with the edits that are not saved yet; `edit`, `bar` and `place` are for `finetune.ui.data.edit`.
    Whatever changes the rows gives `moved` a value it never had (`anew`).
    """

    def __init__(self, opened: Opened, browser: gr.BrowserState, model: gr.Dropdown, dataset: gr.State):
        self.opened, self.browser, self.model, self.dataset = opened, browser, model, dataset
        self.moved = gr.State("")
        with gr.Column(visible=False, elem_id="row-view") as self.box:
            with gr.Row(equal_height=True, elem_classes="ba-controls"):
                self.row = gr.Number(
                    1, label="Row", precision=0, minimum=1, min_width=90, scale=1, elem_id="preview-row"
                )
                self.back = gr.Button("Previous", min_width=90, scale=1, elem_id="row-back")
                self.ahead = gr.Button("Next", min_width=90, scale=1, elem_id="row-next")
                self.edit = gr.Button("Edit", min_width=90, scale=1, elem_id="row-edit")
                self.query = gr.Textbox(
                    "",
                    label="Search",
                    placeholder="A text, or: line 12",
                    max_lines=1,
                    min_width=200,
                    scale=3,
                    elem_id="row-search",
                )
                self.length = gr.Textbox(
                    "",
                    label="Max length",
                    placeholder="automatic",
                    max_lines=1,
                    min_width=130,
                    scale=1,
                    elem_id="row-length",
                )
            self.said = gr.HTML(visible=False, elem_id="row-said")
            self.bar = gr.Column(elem_classes="ba-place")
            with gr.Row(equal_height=False):
                with gr.Column(min_width=320):
                    self.place = gr.Column(elem_classes="ba-place")
                    self.chat = gr.HTML(elem_id="as-chat")
                with gr.Column(min_width=320):
                    self.trained = gr.HTML(elem_id="as-trained")
        self._listen()

    def _listen(self) -> None:
        here = [self.row, self.dataset, self.browser]
        for button, step in ((self.back, -1), (self.ahead, 1)):
            button.click(
                lambda row, dataset, state, step=step: self._step(row, dataset, state, step),
                here,
                self.row,
                show_progress="hidden",
                **FEW_AT_ONCE,
            )
        self.query.submit(self._search, [self.query, *here], [self.row, self.said], **FEW_AT_ONCE)
        drawn_anew = [self.row.change, self.moved.change, self.model.change, self.length.submit, self.length.blur]
        gr.on(
            drawn_anew,
            self._look,
            [self.row, self.length, self.model, self.dataset, self.browser],
            [self.chat, self.trained],
            trigger_mode="always_last",  # the row that was asked for last stays in view, whichever takes longest
            show_progress="hidden",
            **FEW_AT_ONCE,
        )

    def _look(self, row: float | None, length: str, model: str, dataset_id: str | None, state: Browser) -> tuple:
        if not dataset_id:
            return "", ""
        try:
            edited = self.opened.edited(dataset_id, state)
            if not len(edited):
                return "", ""
            place = place_of(row, len(edited))
            example = edited.shown(place)
        except FinetuneError as error:
            return "", masked(f"No preview: {error}")
        try:
            trained = as_trained(example, model, max_length(length))
        except FinetuneError as error:
            trained = masked(f"No preview: {error}")
        return as_chat(example, _state(edited, place)), trained

    def _step(self, row: float | None, dataset_id: str | None, state: Browser, step: int) -> float:
        count = len(self._examples(dataset_id, state))
        return min(max(1, int(row or 1) + step), max(1, count))

    def _examples(self, dataset_id: str | None, state: Browser) -> data.Edited:
        """The rows in view; none when the dataset is gone, which `_look` says."""
        try:
            return self.opened.edited(dataset_id, state)
        except FinetuneError:
            return data.Edited((), ())

    def _search(self, query: str, row: float | None, dataset_id: str | None, state: Browser) -> tuple:
        examples = self._examples(dataset_id, state)
        if not query.strip() or not len(examples):
            return gr.skip(), gr.update(visible=False)
        place = found(examples, query, place_of(row, len(examples)))
        if place is None:
            return gr.skip(), _said(_not_found(self.opened.get(dataset_id, state), query))
        line = examples[place].line
        return place + 1, _said(f"Found in row {place + 1}, line {line}. Enter finds the next.")


def _state(edited: data.Edited, place: int) -> str:
    """What became of a row since the dataset was saved."""
    if not edited.touched(place):
        return ""
    if edited.now(place) is None:
        return "deleted, not saved yet"
    return "added, not saved yet" if place >= len(edited.rows) else "edited, not saved yet"


def _said(sentence: str) -> dict:
    return gr.update(value=render("<p class='ba-stats'>{{ sentence }}</p>", sentence=sentence), visible=True)


def _not_found(dataset: data.Dataset, query: str) -> str:
    line = LINE.fullmatch(query)
    rejected = next((row for row in dataset.rejected if line and row.line == int(line[1])), None)
    if rejected:
        return f"Line {rejected.line} was rejected: {rejected.message}"
    return f"No accepted row has “{cut(query, 60)}”."


def max_length(text: str) -> int:
    """The length at which the trainer will cut, from the form's text. Raises `ConfigError`."""
    return train.TrainConfig.parse({"max_length": text.strip()}).max_length or train.LONGEST


def anew() -> str:
    """A value for `RowView.moved`."""
    return secrets.token_hex(8)


def place_of(row: float | None, count: int) -> int:
    """The place, from 0, of a row by its number; the nearest one where there is none of this number."""
    return min(max(1, int(row or 1)), count) - 1
