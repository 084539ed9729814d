"""The versions of the dataset in view: what each changed, compared row by row, opened again; and its rows as a file."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from finetune import data
from finetune.data.fixes import TITLES
from finetune.data.write import Kind
from finetune.errors import DataError, FinetuneError
from finetune.records import Json
from finetune.services import Browser, known
from finetune.store import DatasetRecord, Run
from finetune.ui.data.edit import TEMPLATES
from finetune.ui.data.opened import FEW_AT_ONCE, Opened
from finetune.ui.download import Download
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET
from finetune.ui.html import cut, failed, masked

AT_ONCE = 10
"""Differences in view."""

LONGEST = 4_000
"""Characters of a row in a comparison."""

PRESS = """element.addEventListener('click', (event) => {
  const one = event.target.closest('button[data-do]');
  if (one) trigger('select', {do: one.dataset.do, id: one.dataset.id ?? null});
});"""
FOCUS = PRESS + "watch('value', () => element.querySelector('.ba-card')?.focus({preventScroll: true}));"


def history(versions: Sequence[DatasetRecord], here: str, runs: Sequence[Run]) -> Markup:
    """The versions as a list: what each changed, when, by whom, its rows and its runs."""
    records = {record.id: record for record in versions}
    lines = [
        {
            "record": record,
            "counts": data.Counts.model_validate(record.facts.edited, strict=False) if record.facts.edited else None,
            "what": what(record, records.get(record.parent or "")),
            "rows": record.facts.accepted or 0,
            "when": time.strftime("%-d %b, %H:%M", time.localtime(record.created)),
            "runs": sum(run.dataset == record.id for run in runs),
        }
        for record in versions
    ]
    return TEMPLATES.versions(lines, here)


def what(record: DatasetRecord, parent: DatasetRecord | None) -> str:
    """What a version that is no round of edits has changed.

    Example:
        >>> what(record, parent)
        'Drop rows that repeat an earlier row'
    """
    before = parent.facts if parent else None
    fresh = record.facts.applied[len(before.applied) if before else 0 :]
    titles = [TITLES[code] for code in fresh if code in TITLES]
    if titles:
        return titles[0] if len(titles) == 1 else f"{len(titles)} fixes"
    if record.facts.mapping != (before.mapping if before else None):
        return "columns mapped"
    return "as it was loaded"


class Versions:
    """Draws the fold. `listen` ties it to the data in view."""

    def __init__(self, opened: Opened, browser: gr.BrowserState, dataset: gr.State):
        self.opened, self.services, self.browser, self.dataset = opened, opened.services, browser, dataset
        self.pair = gr.State(None)
        with gr.Accordion("Versions and download", open=False, visible=False, elem_id="versions") as self.fold:
            self.list = gr.HTML(js_on_load=PRESS, elem_id="versions-list")
            self.compared = gr.HTML(js_on_load=FOCUS, elem_id="versions-compared")
            with gr.Row(elem_classes="ba-controls"):
                kinds = [(name, kind) for kind, name in data.KINDS.items()]
                self.kind = gr.Dropdown(
                    kinds,
                    value=kinds[0][1],
                    label="Download the saved rows as",
                    min_width=260,
                    scale=0,
                    elem_id="rows-kind",
                )
                self.download = Download("Download", "rows-download")

    def listen(self) -> None:
        """Attach the listeners."""
        here = [self.dataset, self.browser]
        self.dataset.change(self._begin, [self.pair, *here], [self.fold, self.list, self.compared, self.pair], **QUIET)
        chosen = [self.compared, self.pair, self.dataset, self.browser]
        self.list.select(self._act, here, chosen, **FEW_AT_ONCE)
        self.compared.select(self._turn, [self.pair, *here], [self.compared, self.pair], **FEW_AT_ONCE)
        self.download.listen(self._file, [self.kind, *here])

    def _begin(self, pair: list | None, dataset_id: str | None, state: Browser) -> tuple:
        """The fold for the data in view. A comparison with it stays: a State's change can come more than once."""
        try:
            versions = self.services.versions(dataset_id, state)
            shown = history(versions, str(dataset_id), self.services.runs(state))
        except FinetuneError:
            return gr.update(visible=False), "", "", None
        if pair and dataset_id in pair[:2]:
            return gr.update(visible=True), shown, gr.skip(), gr.skip()
        return gr.update(visible=True), shown, "", None

    def _act(self, dataset_id: str | None, state: Browser, event: gr.EventData) -> dict[Any, Any]:
        asked = event._data or {}
        try:
            other = self.services.dataset(asked.get("id"), state)
            if asked.get("do") == "open":
                return {self.dataset: other.id, self.browser: known(state) | {"dataset": other.id}}
            here = self.services.dataset(dataset_id, state)
            before, after = sorted((other, here), key=lambda record: record.version)
            pair = [before.id, after.id, 0]
            return {self.compared: self._page(pair, state), self.pair: pair}
        except FinetuneError as error:
            return {self.compared: failed(str(error))}

    def _turn(self, pair: list | None, dataset_id: str | None, state: Browser, event: gr.EventData) -> dict[Any, Any]:
        if not pair:
            return {self.compared: ""}
        step = {"earlier": -AT_ONCE, "later": AT_ONCE}.get(str((event._data or {}).get("do")), 0)
        pair = [*pair[:2], max(0, pair[2] + step)]
        try:
            return {self.compared: self._page(pair, state), self.pair: pair}
        except FinetuneError as error:
            return {self.compared: failed(str(error))}

    def _page(self, pair: list, state: Browser) -> Markup:
        found = self.opened.compared(pair[0], pair[1], state)
        if not len(found):
            return masked("The rows of both are the same.")
        before, after = (self.services.dataset(one, state).version for one in pair[:2])
        part = found.page(pair[2], AT_ONCE)
        first, last = pair[2] + 1, pair[2] + len(part)
        return TEMPLATES.comparison(before, after, found.counts, list(map(_line, part)), first, last, len(found))

    def _file(self, kind: Kind, dataset_id: str | None, state: Browser) -> tuple[str, Callable[[Path], None]]:
        record = self.services.dataset(dataset_id, state)
        rows = self.opened.get(dataset_id, state).examples
        name = re.sub(r"[^\w.-]+", "-", record.title).strip("-.") or "rows"
        return f"{name[:80]}.{kind}", lambda path: _write(rows, path, kind)


def _write(rows: Any, path: Path, kind: Kind) -> None:
    with noticed():
        try:
            data.write_rows(rows, path, kind)
        except OSError as error:
            full = "The data cannot be stored: the disk is full or not writable."
            raise DataError(full, fix="Free some space.", code="disk_full") from error


def _line(one: data.Difference) -> tuple[str, int, str, str]:
    """Kind, line, and the turns before and after that are not the same."""
    row = one.after or one.before
    assert row
    before, after = (list(part.told) if part else [] for part in (one.before, one.after))
    if one.kind == "changed" and len(before) == len(after):
        places = [i for i in range(len(before)) if before[i] != after[i]]
        before, after = [before[i] for i in places], [after[i] for i in places]
    return one.kind, row.line, _said(before), _said(after)


def _said(messages: list[Json]) -> str:
    return cut("\n".join(f"{message['role']}: {message['content']}" for message in messages), LONGEST)
