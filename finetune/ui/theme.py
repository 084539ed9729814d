"""How the page looks. Its colours stand in ``page.css``, light and dark; here Gradio's own parts are told to use them.

Only fonts of the system: the page must work without a network.
"""

from pathlib import Path

import gradio as gr

SANS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]

INK, SOFT = "var(--ink)", "var(--soft)"
"""For the curves of a run. Slate is *before* and orange is *after*, on every tab, and neither is anything else."""

COLOURS = ("#3b82f6", "#16a34a", "#a855f7", "#db2777", "#0891b2", "#b7791f", "#5b9310", "#8b5cf6")
"""For curves that are compared, in their order. No orange, which is the tuned model, and no slate."""

BOTH_THEMES = {
    "body_text_color_subdued": "var(--soft)",
    "block_title_text_color": "*body_text_color",
    "block_label_text_color": "var(--soft)",
    "input_placeholder_color": "var(--soft)",
    "input_border_color_focus": "var(--focus)",
    "link_text_color": "*body_text_color",
    "link_text_color_hover": "var(--soft)",
    "link_text_color_active": "*body_text_color",
    "link_text_color_visited": "*body_text_color",
    "button_primary_background_fill": "var(--ink)",
    "button_primary_background_fill_hover": "var(--ink-hover)",
    "button_primary_border_color": "var(--ink)",
    "button_primary_border_color_hover": "var(--ink-hover)",
    "button_primary_text_color": "var(--on-ink)",
    "button_primary_text_color_hover": "var(--on-ink)",
    "checkbox_background_color_selected": "var(--plain-fill)",
    "checkbox_border_color_selected": "var(--before)",
    "checkbox_border_color": "var(--before)",
    "checkbox_border_color_focus": "var(--focus)",
}
"""Said twice, because a variable of Gradio's is resolved where it is declared: once for light, once for dark."""

THEME = gr.themes.Base(
    primary_hue="slate", secondary_hue="slate", neutral_hue="slate", radius_size="lg", font=SANS, font_mono=MONO
).set(
    body_background_fill="*neutral_50",
    block_border_width="1px",
    block_shadow="none",
    block_label_background_fill="*block_background_fill",
    block_label_border_width="0px",
    color_accent="var(--mark)",
    slider_color="var(--mark)",
    loader_color="var(--mark)",
    **BOTH_THEMES,
    **{f"{name}_dark": value for name, value in BOTH_THEMES.items()},
)

CSS = Path(__file__).with_name("page.css")
