"""The place on the Train tab that asks for a sweep; what it finds is seen where runs are."""

import gradio as gr

from finetune import train

HINT = (
    "<p class='ba-stats'>Tries a few learning rates, ranks and numbers of epochs around the settings above, each for a "
    "short while, and compares them on rows set apart from the training rows. The rows held out for the verdict stay "
    "unseen. You can leave the page.</p>"
)


class Find:
    """Draws the minutes and a button. `answer` says why nothing was begun."""

    def __init__(self) -> None:
        with gr.Group():
            with gr.Row(elem_classes="ba-controls"):
                self.minutes = gr.Textbox(
                    f"{train.MINUTES:g}",
                    label="Look for at most",
                    info="In minutes.",
                    max_lines=1,
                    min_width=150,
                    elem_id="sweep-minutes",
                )
                self.ask = gr.Button("Find good settings", min_width=220, scale=0, elem_id="sweep")
            gr.HTML(HINT)
            self.answer = gr.HTML(elem_id="sweep-answer")
