"""The Models tab: which base to start from, and which copy of it is in use."""

from collections.abc import Callable, Iterator

import gradio as gr
from markupsafe import Markup

from finetune import models
from finetune.errors import FinetuneError
from finetune.ui.html import masked, render
from finetune.ui.progress import in_steps
from finetune.ui.train import form

CATALOGUE = """
{% from "parts.html" import card, table %}
{% call card() %}
{% call table("ba-wide", ("Model", "Parameters", "Licence", "Gated", "Good to know")) %}
{% for one in catalogue %}
<tr>
  <td><b>{{ one.name }}</b></td>
  <td>{{ one.parameters }} M</td>
  <td>{{ one.licence }}</td>
  <td>{{ "yes" if one.gated else "no" }}</td>
  <td>{{ one.note }}</td>
</tr>
{% endfor %}
{% endcall %}
{% endcall %}
"""
LOOKING = """<div class='ba-card'>
{% if found %}<span class='ba-good'><b>✓ Ready:</b></span> {{ found.sentence }}.{% else %}Looking for it…{% endif %}
{% for line in lines %}<br><span class='ba-masked'>{{ line }}</span>{% endfor %}
</div>"""
UNAVAILABLE = """
<div class='ba-card'><span class='ba-problem error'><b>Not available.</b></span> {{ why }}</div>
"""


def locate(name: str) -> Iterator[Markup]:
    """Say which copy of a model is in use, fetching it when needed; each line as it comes."""
    lines: list[str] = []
    yield render(LOOKING, lines=lines, found=None)
    steps = in_steps(lambda say: _whole(name, say))
    while True:
        try:
            lines.append(next(steps))
        except StopIteration as end:
            yield render(LOOKING, lines=lines, found=end.value)
            return
        except FinetuneError as error:
            yield render(UNAVAILABLE, why=str(error))
            return
        yield render(LOOKING, lines=lines, found=None)


def _whole(name: str, say: Callable[[str], None]) -> models.Found:
    """The model, seen to have a tokenizer that can be read."""
    found = models.find(name, say)
    models.load_tokenizer(found)
    return found


def build() -> gr.Dropdown:
    """Draw the tab and attach its listeners; returns the input that holds the model's name."""
    model = form.model_input()
    with gr.Row():
        check = gr.Button("Check this model", elem_id="check-model", scale=0, min_width=200)
        status = gr.HTML(masked("Press the button to see which copy will be used."), elem_id="model-status")
    gr.HTML(render(CATALOGUE, catalogue=models.CATALOGUE))
    gr.Markdown(
        "Any other Hub id or local folder works too. Only safetensors weights of built-in architectures are "
        "loaded; code that comes with a model is never run."
    )
    check.click(locate, model, status, api_visibility="private")
    return model
