"""How the page looks. Only fonts of the system: the page must work without a network."""

from pathlib import Path

import gradio as gr

SANS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]

BASE_COLOUR, TUNED_COLOUR = "#64748b", "#ea580c"
"""The two sides of every comparison, on every tab: before is slate, after is orange."""

THEME = gr.themes.Base(
    primary_hue="orange", secondary_hue="slate", neutral_hue="slate", radius_size="lg", font=SANS, font_mono=MONO
).set(
    body_background_fill="*neutral_50",
    block_border_width="1px",
    block_shadow="none",
    block_label_background_fill="*block_background_fill",
    block_label_border_width="0px",
    button_primary_background_fill=TUNED_COLOUR,
    button_primary_background_fill_hover="#c2410c",
    button_primary_text_color="white",
)

CSS = Path(__file__).with_name("page.css")
