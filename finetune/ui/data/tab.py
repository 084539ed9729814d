"""The Data tab: bring data, see what is wrong with it, mend it, see what will be trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from finetune import data, models, train
from finetune.errors import DataError, FinetuneError
from finetune.services import Browser, Services
from finetune.ui.data import mapping, report
from finetune.ui.data.edit import Editor
from finetune.ui.data.fixes import Remedies
from finetune.ui.data.library import LOADING, NO_DATA, Kept
from finetune.ui.data.many import Many
from finetune.ui.data.opened import FEW_AT_ONCE, Opened
from finetune.ui.data.rows import RowView, anew, max_length
from finetune.ui.data.sources import FIND, Sources, take
from finetune.ui.data.versions import Versions
from finetune.ui.download import Download
from finetune.ui.errors import noticed
from finetune.ui.events import STATUS
from finetune.ui.html import cut, masked

TOO_LONG = "drop_too_long"
FOLD = "fold_system_prompt"
"""The fixes that depend on the model: they are offered once its tokens are counted."""

EVERY_ROW = "<p class='ba-stats'>Every row has one already.</p>"


class DataTab:
    """Draws the tab and answers its events. `go` leads on to training, `length` is the max length looked at.

    Everything that makes a dataset (a source, a fix, a mapping) puts its id into `dataset`, and so
    does a reload of the page; whatever changes that id has the rest of the tab drawn anew.
    """

    def __init__(self, services: Services, browser: gr.BrowserState, model: gr.Dropdown):
        self.services, self.browser, self.model = services, browser, model
        self.opened = Opened(services)
        self.dataset = gr.State("")  # not known yet; None, once it is known that there is no data
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.sources = Sources(self.opened, browser)
                self.kept = Kept(self.opened, browser)
            with gr.Column(scale=3, min_width=320):
                self._draw()
        self.table = gr.HTML(elem_id="first-rows")
        self.rows = RowView(self.opened, browser, model, self.dataset)
        self.editor = Editor(self.opened, browser, self.rows, self.dataset)
        self.many = Many(self.editor)
        self.versions = Versions(self.opened, browser, self.dataset)
        self.rejected = gr.HTML(elem_id="rejected-rows")
        self.download = Download("Download the rejected rows", "rejected-download", 220, visible=False)
        self.length = self.rows.length
        self._listen_to_changes()
        self._listen_to_dataset()
        self.editor.listen()
        self.many.listen()
        self.versions.listen()
        self.kept.listen(self.dataset, self.facts, self.refusal)
        self.download.listen(self._rejected, [self.dataset, browser])

    def _draw(self) -> None:
        self.refusal = gr.HTML(js_on_load=STATUS, elem_id="data-refusal")
        self.facts = gr.HTML(LOADING, elem_id="data-facts")
        self.remedies = Remedies()
        self.go = gr.Button("Next: train on this data", variant="primary", visible=False, elem_id="to-train")
        self.numbers = gr.HTML(elem_id="data-numbers")
        self.mapping = mapping.MappingForm()
        self.remedies.draw_system()

    def _listen_to_changes(self) -> None:
        """What makes a new dataset."""
        taken: dict[str, Any] = {"outputs": [self.browser, self.dataset, self.refusal], **FEW_AT_ONCE}
        taken["show_progress_on"] = self.facts
        self.sources.listen(taken)
        remedies, here, settled = self.remedies, [self.dataset, self.browser], self.editor.settled
        settings = [self.model, self.length, remedies.system, *here]
        for code, remedy in remedies.each.items():
            remedy.button.click(settled(lambda *values, code=code: self._fix([code], *values)), settings, **taken)
        ticks = [remedy.tick for remedy in remedies.each.values()]
        remedies.together.click(settled(self._fix_ticked), [*ticks, *settings], **taken)
        remedies.fill.click(settled(lambda *values: self._fix(["fill_system_prompt"], *values)), settings, **taken)
        remedies.undo.click(settled(self._undo), here, **taken)
        self.mapping.remove.click(settled(self._unmap), here, **taken)
        taken["outputs"] = [self.browser, self.dataset, self.refusal, self.mapping.example]
        self.mapping.apply.click(settled(self._map), [*self.mapping.fields, *here], **taken)

    def _listen_to_dataset(self) -> None:
        """What is drawn of it."""
        here = [self.dataset, self.browser]
        parts = [
            self.dataset,
            self.facts,
            self.go,
            self.numbers,
            self.table,
            self.rejected,
            self.download.button,
            self.rows.box,
            self.rows.row,
            self.rows.moved,
            self.editor.stay,
        ]
        quiet: dict[str, Any] = {"show_progress": "hidden", **FEW_AT_ONCE}
        count: dict[str, Any] = {
            "fn": self._count,
            "inputs": [self.model, self.length, *here],
            "outputs": [self.numbers, *dict.fromkeys(self.remedies.one(TOO_LONG) + self.remedies.one(FOLD))],
            **quiet,
        }
        changed = self.dataset.change(
            self._show,
            [*here, self.editor.stay],
            [*parts, *self.remedies.outputs, *self.mapping.outputs],
            **quiet,
        )
        changed.then(None, None, None, js=FIND)
        changed.then(**count)
        gr.on([self.model.change, self.length.submit, self.length.blur], **count)
        fields = self.mapping.fields
        example: dict[str, Any] = {
            "fn": self._try_mapping,
            "inputs": [*fields, *here],
            "outputs": self.mapping.example,
            **quiet,
        }
        changed.then(**example)
        gr.on([field.change for field in fields], **example)
        system = self.remedies.system
        system.change(self._try_system, [system, *here], self.remedies.system_change, **quiet)

    # Drawing

    def _show(self, dataset_id: str | None, state: Browser, stay: list | None = None) -> dict[Any, Any]:
        try:
            if dataset_id:
                drawn = self._drawn(dataset_id, self.opened.get(dataset_id, state))
                row = stay[1] if stay and stay[0] == dataset_id else 1
                return drawn | {self.rows.row: row or gr.skip(), self.editor.stay: [dataset_id, None]}
            return self._nothing() | ({self.facts: NO_DATA} if dataset_id is None else {})
        except FinetuneError as error:  # its files may go while it is open; bringing it again must be a change
            if error.code == "dataset_unknown":
                return self._nothing() | {self.dataset: None, self.facts: NO_DATA}
            return self._nothing() | {self.dataset: "", self.facts: report.refused(str(error))}

    def _nothing(self) -> dict[Any, Any]:
        hidden = dict.fromkeys((self.go, self.download.button, self.rows.box), gr.update(visible=False))
        cleared = {self.numbers: "", self.table: "", self.rejected: "", self.rows.row: 1, self.rows.moved: anew()}
        return {**hidden, **cleared, **self.remedies.offer([], None), **self.mapping.fill(None)}

    def _drawn(self, dataset_id: str, dataset: data.Dataset) -> dict[Any, Any]:
        split = data.held_out(dataset, train.TrainConfig().held_out, train.TrainConfig().seed).split
        ready = gr.update(visible=bool(dataset.examples))
        go = f"Next: train on {cut(dataset.name, 40)} ({len(dataset.examples):,} examples)"
        return {
            self.facts: report.summary(dataset, split),
            self.go: gr.update(visible=bool(dataset.examples), value=go),
            self.numbers: LOADING if dataset.examples else "",
            self.table: report.first_rows(dataset),
            self.rejected: report.rejected(dataset),
            self.download.button: gr.update(visible=bool(dataset.rejected) and not report.unmapped(dataset)),
            self.rows.box: ready,
            self.rows.moved: anew(),
            **self.remedies.offer(data.fixes(dataset), dataset),
            **self.mapping.fill(dataset),
        }

    def _rejected(self, dataset_id: str | None, state: Browser) -> tuple[str, Callable[[Path], None]]:
        """The rejected rows, to take away: nothing of them is written before somebody asks for it."""
        dataset = self.opened.get(dataset_id, state)

        def write(place: Path) -> None:
            data.write_rejected(dataset, place)

        return f"rejected-{dataset_id}.jsonl", write

    def _count(self, model: str, length: str, dataset_id: str | None, state: Browser) -> dict[Any, Any]:
        nothing = self.remedies.offer_one(TOO_LONG, None) | self.remedies.offer_one(FOLD, None)
        if not dataset_id:
            return {self.numbers: "", **nothing}
        try:
            dataset = self.opened.get(dataset_id, state)
            if not dataset.examples:
                return {self.numbers: "", **nothing}
            most, tokenizer = max_length(length), models.load_tokenizer(models.find(model))
        except FinetuneError as error:
            return {self.numbers: masked(f"Not counted: {error}"), **nothing}
        stats = data.token_stats(dataset, tokenizer, most, held=data.held_places(dataset))
        html = report.numbers(stats, model, self._estimate(dataset, stats, model, most, state))
        too_long = any(problem.code == "truncated" for problem in stats.problems)
        length_of = data.Length(tokenizer, most) if too_long else None
        offered = {fix.code: fix for fix in data.fixes(replace(dataset, problems=[]), length_of, fold=stats.folds)}
        updates = {self.numbers: html}
        for code in (TOO_LONG, FOLD):
            updates |= self.remedies.offer_one(code, offered.get(code))
        return updates

    def _estimate(self, dataset: data.Dataset, stats: data.TokenStats, model: str, most: int, state: Browser) -> str:
        config = train.TrainConfig()
        split = data.held_out(dataset, config.held_out, config.seed).split
        rows = split.train if split else len(dataset.examples)
        tokens = rows * config.epochs * min(stats.mean, most)
        seconds = train.seconds_for(tokens, self.services.runs(state), model)
        return report.estimate(config.steps_for(rows), config.epochs, seconds)

    def _try_mapping(self, *values: Any) -> str:
        *fields, dataset_id, state = values
        if not dataset_id:
            return ""
        try:
            return mapping.tried(self.opened.get(dataset_id, state), mapping.described(*fields))
        except FinetuneError as error:
            return report.refused(str(error))

    def _try_system(self, system: str, dataset_id: str | None, state: Browser) -> str:
        if not dataset_id or not system.strip():
            return ""
        try:
            fixes = data.fixes(self.opened.get(dataset_id, state), system=system.strip())
        except FinetuneError as error:
            return report.refused(str(error))
        filled = [fix for fix in fixes if fix.code == "fill_system_prompt"]
        return report.fix(filled[0]) if filled else EVERY_ROW

    # Changing

    def _fix(self, codes: list[str], model: str, length: str, system: str, dataset_id: str, state: Browser) -> tuple:
        with noticed():
            record = self.services.dataset(dataset_id, state)
            settings = data.fixed_with(record)
            if TOO_LONG in codes:
                settings = replace(settings, model=model, most=max_length(length))
            if "fill_system_prompt" in codes:
                settings = replace(settings, system=system.strip() or settings.system)
            fixed = data.apply(self.opened.get(dataset_id, state), codes, settings.length(), settings.system)
        return take(self.opened, lambda: fixed, state, settings, record)

    def _fix_ticked(self, *values: Any) -> Any:
        codes = [code for code, ticked in zip(self.remedies.each, values, strict=False) if ticked]
        return self._fix(codes, *values[len(self.remedies.each) :]) if codes else gr.skip()

    def _undo(self, dataset_id: str, state: Browser) -> tuple:
        return take(self.opened, lambda: self._unfixed(dataset_id, state), state)

    def _unmap(self, dataset_id: str, state: Browser) -> tuple:
        return take(self.opened, lambda: data.reload(self.services.dataset(dataset_id, state)), state)

    def _unfixed(self, dataset_id: str, state: Browser) -> data.Dataset:
        return data.reload(self.services.dataset(dataset_id, state), self.opened.get(dataset_id, state).mapping)

    def _map(self, *values: Any) -> dict[Any, Any]:
        *fields, dataset_id, state = values
        try:
            record = self.services.dataset(dataset_id, state)
            mapped = data.reopen(record, mapping.described(*fields))
            if not mapped.examples:
                raise DataError(f"The mapping fits none of the {mapped.rows:,} rows.", fix="Try another one.")
        except FinetuneError as error:
            return {self.mapping.example: report.refused(str(error))}
        taken = take(self.opened, lambda: mapped, state, data.fixed_with(record), record)
        return dict(zip((self.browser, self.dataset, self.refusal), taken, strict=True))
