"""The Models tab: which base to start from, and which copy of it is in use."""

from collections.abc import Callable, Iterator
from html import escape

import gradio as gr

from finetune import models
from finetune.errors import FinetuneError
from finetune.ui.progress import spoken
from finetune.ui.train import form

HEADERS = ["Model", "Parameters", "Licence", "Gated", "Good to know"]


def table() -> str:
    """The catalogue as an HTML table."""
    head = "".join(f"<th>{name}</th>" for name in HEADERS)
    rows = "".join(
        f"<tr><td><b>{entry.name}</b></td><td>{entry.parameters} M</td><td>{entry.licence}</td>"
        f"<td>{'yes' if entry.gated else 'no'}</td><td>{entry.note}</td></tr>"
        for entry in models.CATALOGUE
    )
    return f"<table class='ba-rows ba-wide'><tr>{head}</tr>{rows}</table>"


def locate(name: str) -> Iterator[str]:
    """Say which copy of a model is in use, fetching it when needed; each line as it comes."""
    notes = ""
    yield _card("Looking for it…")
    steps = spoken(lambda say: _whole(name, say))
    while True:
        try:
            notes += f"<br><span class='ba-masked'>{escape(next(steps))}</span>"
        except StopIteration as end:
            yield _card(f"<span class='ba-good'><b>✓ Ready:</b></span> {escape(end.value.sentence)}.{notes}")
            return
        except FinetuneError as error:
            yield _card(f"<span class='ba-problem error'><b>Not available.</b></span> {escape(str(error))}")
            return
        yield _card(f"Looking for it…{notes}")


def _whole(name: str, say: Callable[[str], None]) -> models.Found:
    """The model, seen to have a tokenizer that can be read."""
    found = models.find(name, say)
    models.load_tokenizer(found)
    return found


def _card(html: str) -> str:
    return f"<div class='ba-card'>{html}</div>"


def build() -> gr.Dropdown:
    """Draw the tab and attach its listeners; returns the input that holds the model's name."""
    model = form.model_input()
    with gr.Row():
        check = gr.Button("Check this model", elem_id="check-model", scale=0, min_width=200)
        status = gr.HTML(
            _card("<span class='ba-masked'>Press to see which copy will be used.</span>"), elem_id="model-status"
        )
    gr.HTML(f"<div class='ba-card'>{table()}</div>")
    gr.Markdown(
        "Any other Hub id or local folder works too. Only safetensors weights of built-in architectures are "
        "loaded; code that comes with a model is never run."
    )
    check.click(locate, model, status, api_visibility="private")
    return model
