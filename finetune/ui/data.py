"""The Data tab: pick a sample or bring a file, see what is wrong, see what will be trained."""

from html import escape

import gradio as gr

from finetune import data, models, train
from finetune.errors import FinetuneError
from finetune.ui.session import Browser, Services, known, owner

FIRST_ROWS = 4
CUT = 160
"""Characters of a cell shown in the table of first rows."""


def summary(dataset: data.Dataset) -> str:
    """The dataset in numbers, and its problems, as HTML."""
    held = dataset.validation
    facts = [(f"{dataset.rows:,}", "rows seen"), (f"{len(dataset.examples):,}", "accepted")]
    facts.append((f"{len(dataset.rejected):,}", "rejected"))
    facts.append((f"{len(held.examples):,}" if held else "15 %", "held out" if held else "will be held out"))
    cells = "".join(f"<div><b>{value}</b><small>{label}</small></div>" for value, label in facts)
    kind = escape((dataset.format or "unknown format").replace("_", " "))
    problems = [*dataset.problems, *(held.problems if held else [])]
    lines = "".join(_problem(problem) for problem in problems)
    if not lines:
        lines = "<div class='ba-problem ba-good'><b>✓ No problems found.</b></div>"
    cells += f"<div><b>{kind}</b><small>format</small></div>"
    return f"<div class='ba-card'><div class='ba-facts'>{cells}</div>{lines}</div>"


def _problem(problem: data.Problem) -> str:
    lines = ", ".join(map(str, problem.lines[:6])) + ("…" if problem.count > 6 else "")
    rows = "row" if problem.count == 1 else "rows"
    return (
        f"<div class='ba-problem {problem.severity}'><b>{problem.count} {rows}</b> · {escape(problem.message)} "
        f"{escape(problem.hint)} <span class='ba-masked'>line {lines} · {problem.code}</span></div>"
    )


def first_rows(dataset: data.Dataset) -> str:
    """The first accepted rows as an HTML table: line, prompt, answer."""
    rows = "".join(
        f"<tr><td>{e.line}</td><td>{_cell(e.asked)}</td><td>{_cell(e.answer)}</td></tr>"
        for e in dataset.examples[:FIRST_ROWS]
    )
    head = "<tr><th>line</th><th>prompt</th><th>answer</th></tr>"
    return f"<div class='ba-card'><table class='ba-rows ba-first'>{head}{rows}</table></div>"


def _cell(text: str) -> str:
    return escape(text if len(text) <= CUT else f"{text[:CUT]}…")


def as_trained(example: data.Example, model: str, max_length: int | None = None) -> str:
    """One example as the trainer will get it: every token in place, coloured by what becomes of it."""
    segments = data.preview(example, models.load_tokenizer(models.find(model)), max_length)
    pieces = [
        f"<span class='ba-{segment.kind}{' ba-learned' if segment.trained else ''}'>{escape(segment.shown)}</span>"
        for segment in segments
    ]
    tokens = sum(len(segment.ids) for segment in segments)
    trained = sum(len(segment.ids) for segment in segments if segment.trained and segment.kind != "cut")
    count = f"{tokens} tokens, {trained} of them trained (coloured); the rest is only read."
    text = f"<div class='ba-rendered' dir='auto'>{''.join(pieces)}</div>"
    return f"<div class='ba-card'>{text}<p class='ba-stats'>{count}</p></div>"


class DataTab:
    """Draws the tab and answers its events. `go` leads on to training; the browser remembers the dataset's id."""

    def __init__(self, services: Services, browser: gr.BrowserState, model: gr.Dropdown):
        self.services, self.browser, self.model = services, browser, model
        self._draw()
        self._listen()

    def _draw(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                gr.Markdown("### Start with a sample")
                self.picks = {
                    sample: gr.Button(f"{sample.title}: {sample.teaches}", elem_id=f"sample-{sample.name}", size="sm")
                    for sample in data.samples()
                }
                gr.Markdown("### or bring your own")
                kinds = list(data.ENDINGS)
                label = "Examples: OpenAI chat JSONL, or prompt + completion (JSONL, CSV)"
                self.upload = gr.File(label=label, file_types=kinds, elem_id="upload", height=160)
                label = "Held-out examples (optional)"
                self.held = gr.File(label=label, file_types=kinds, elem_id="upload-held", height=160)
            with gr.Column(scale=3, min_width=320):
                self.facts = gr.HTML("<div class='ba-card ba-masked'>No data yet.</div>", elem_id="data-facts")
                self.go = gr.Button("Next: train on this data", variant="primary", visible=False, elem_id="to-train")
                self.table = gr.HTML(elem_id="first-rows")
                self.row = gr.Number(
                    1, label="As trained: row", precision=0, minimum=1, visible=False, elem_id="preview-row"
                )
                self.preview = gr.HTML(elem_id="as-trained")

    def _listen(self) -> None:
        shown = [self.browser, self.facts, self.table, self.row, self.preview, self.go]
        reads = [
            pick.click(
                lambda state, path=sample.path: self._show(data.load(path), state), self.browser, shown,
                api_visibility="private",
            )
            for sample, pick in self.picks.items()
        ]  # fmt: skip
        reads.append(
            gr.on(
                [self.upload.upload, self.held.upload], self._read, [self.upload, self.held, self.browser], shown,
                api_visibility="private",
            )
        )  # fmt: skip
        preview = {"fn": self._preview, "inputs": [self.row, self.browser, self.model], "outputs": self.preview}
        for read in reads:
            read.then(**preview, api_visibility="private")
        gr.on([self.row.change, self.model.change], **preview, api_visibility="private")

    def _show(self, dataset: data.Dataset, state: Browser) -> tuple:
        state = known(state)
        if not dataset.examples:
            return self._nothing(summary(dataset), state)
        record = train.save_dataset(self.services.store, dataset, owner(state))
        seen = gr.update(visible=True)
        row = gr.update(value=1, visible=True)
        return state | {"dataset": record.id}, summary(dataset), first_rows(dataset), row, "", seen

    def _nothing(self, facts: str, state: Browser) -> tuple:
        hidden = gr.update(visible=False)
        return known(state) | {"dataset": None}, facts, "", hidden, "", hidden

    def _read(self, path: str | None, held: str | None, state: Browser) -> tuple:
        if not path:
            return (gr.skip(),) * 6
        try:
            return self._show(data.load(path, held), state)
        except FinetuneError as error:
            text = f"<div class='ba-problem error'><b>Not read.</b> {escape(str(error))}</div>"
            return self._nothing(f"<div class='ba-card'>{text}</div>", state)

    def _preview(self, number: float | None, state: Browser, model: str) -> str:
        if not known(state)["dataset"]:
            return ""
        record = self.services.store.dataset(known(state)["dataset"])
        try:
            examples = train.open_dataset(record, train.TrainConfig())[0]
            return as_trained(examples[min(max(1, int(number or 1)), len(examples)) - 1], model)
        except FinetuneError as error:
            return f"<div class='ba-card ba-masked'>No preview: {escape(str(error))}</div>"
