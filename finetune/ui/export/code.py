"""Use it from code: where the API is, and on a shared server the visitor's own key."""

import gradio as gr

from finetune import settings
from finetune.ledger import Ledger
from finetune.services import Browser, Services, owner
from finetune.ui.events import QUIET

HERE = (
    "OpenAI's Python client works with this server: set its `base_url` to the address of this page followed by `/v1`. "
    "`/v1/docs` lists every call."
)
HOME = "No key is needed here: any text will do as `api_key`."
SHARED = "Every request needs your key. It is shown only once, and a new one replaces it."


class Code:
    """Draws the fold, and makes keys.

    Example:
        >>> Code(services, browser)
    """

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services = services
        with gr.Accordion("Use it from code", open=False, elem_id="from-code"):
            gr.Markdown(HERE)
            shared = settings.read().shared
            gr.Markdown(SHARED if shared else HOME)
            with gr.Row(visible=shared, elem_classes="ba-controls"):
                self.make = gr.Button("Make a new key", scale=0, min_width=160, elem_id="make-key")
                self.key = gr.Textbox(
                    label="API key", interactive=False, max_lines=1, scale=1, buttons=["copy"], elem_id="api-key"
                )
        self.make.click(self._new, browser, self.key, **QUIET)

    def _new(self, state: Browser) -> str:
        return Ledger(self.services.store).new_key(owner(state)) if settings.read().shared else ""
