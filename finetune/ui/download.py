"""A button that makes a file when it is pressed, and hands it over.

Gradio's DownloadButton hands over the file it already has, so the press comes to a button of ours,
which fills a hidden one and presses that. Hidden by a class: Gradio forgets that a part is hidden when it shows the
column around it.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from finetune.ui.errors import noticed

PRESS = "() => setTimeout(() => document.querySelector('#{0}, #{0} a, #{0} button').click(), 150)"


def made_for(owner: str) -> Path:
    """Where exports of an owner are laid for the browser to fetch, in folders that nobody can guess.

    Example:
        >>> made_for("local").name
        '25bf8e1a2393f1108d37029b3df55932'
    """
    named = hashlib.sha256(owner.encode()).hexdigest()[:32]
    return Path(gr.utils.get_upload_folder()) / "before-and-after" / named


class Download:
    """Draws the button; `listen` says how the file is made.

    Example:
        >>> button = Download("Save transcript", "transcript")
        >>> button.listen(lambda talk: ("talk.html", transcript(talk)), [talk])
    """

    def __init__(self, label: str, name: str, width: int = 140, *, visible: bool = True):
        self._file = f"{name}-file"
        self.button = gr.Button(label, size="sm", scale=0, min_width=width, elem_id=name, visible=visible)
        self.hidden = gr.DownloadButton(elem_id=self._file, elem_classes="ba-gone")

    def listen(self, make: Callable[..., tuple[str, str | Callable[[Path], None]]], inputs: Sequence[Any]) -> None:
        """`make` gets the inputs and gives a file's name and its text, or what writes it; its errors are shown."""

        def made(*values: Any) -> str:
            with noticed():
                name, content = make(*values)
            folder = Path(gr.utils.get_upload_folder()) / secrets.token_hex(16)  # Gradio clears it away in time
            folder.mkdir(parents=True)
            if isinstance(content, str):
                (folder / name).write_text(content, encoding="utf-8")
            else:
                content(folder / name)
            return str(folder / name)

        filled = self.button.click(made, list(inputs), self.hidden, api_visibility="private", show_progress="hidden")
        filled.success(None, None, None, js=PRESS.format(self._file))
