"""The look: every pair of colours that carries words or a mark has the contrast of WCAG AA, in light and in dark."""

import re

import pytest

from finetune.ui import theme
from finetune.ui.train import runs

CSS = theme.CSS.read_text(encoding="utf-8")
PLACES = ("body_background_fill", "block_background_fill", "input_background_fill")
WORDS = ("soft", "before-text", "after-text", "good", "warn", "bad", "special")
"""Colours of text that may stand on the page, on a card and in a field."""

TINTED = {
    "before-tint": ("body_text_color", "soft", "before-text", "special"),
    "after-tint": ("body_text_color", "soft", "after-text", "special"),
    "good-tint": ("body_text_color", "good"),
    "warn-tint": ("body_text_color", "warn"),
    "bad-tint": ("body_text_color", "bad"),
    "hover": ("body_text_color", "soft"),
    "plain-fill": ("on-fill",),
    "good-fill": ("on-fill",),
    "warn-fill": ("on-fill",),
    "bad-fill": ("on-fill",),
    "ink": ("on-ink",),
    "ink-hover": ("on-ink",),
}
"""A background, and what is written on it."""

MARKS = ("before", "after", "ink", "focus", "good", "warn", "bad", "mark")
"""Bars, borders and dots, of which 3:1 is asked."""

BUTTONS = ("button_primary", "button_secondary")


def declared(selector: str) -> dict[str, str]:
    """The custom properties of a rule."""
    return dict(
        re.findall(r"--([\w-]+): ([^;]+);", re.search(rf"^{re.escape(selector)} {{(.*?)^}}", CSS, re.M | re.S)[1])  # type: ignore[index]
    )


LIGHT = declared(":root")
COLOURS = {"light": LIGHT, "dark": LIGHT | declared(".dark")}


def resolved(name: str, which: str) -> str:
    """A colour of ours, or of the theme, as ``#rrggbb``."""
    value = COLOURS[which].get(name) or (getattr(theme.THEME, f"{name}_dark", None) if which == "dark" else None)
    value = value or getattr(theme.THEME, name)
    if found := re.fullmatch(r"var\(--([\w-]+)\)|\*(\w+)", value):
        return resolved(found[1] or found[2], which)
    return {"white": "#ffffff", "black": "#000000"}.get(value, value)


def light(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """
    >>> contrast("#ffffff", "#000000")
    21.0
    """
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def pairs() -> list[tuple[str, str, float]]:
    """(foreground, background, least contrast)."""
    words = [*WORDS, "body_text_color", "body_text_color_subdued", "block_title_text_color", "block_label_text_color"]
    found = [(word, place, 4.5) for place in PLACES for word in (*words, "input_placeholder_color", "link_text_color")]
    found += [(word, tint, 4.5) for tint, on_it in TINTED.items() for word in on_it]
    found += [
        (f"{one}_text_color{how}", f"{one}_background_fill{how}", 4.5) for one in BUTTONS for how in ("", "_hover")
    ]
    return found + [(mark, place, 3.0) for place in PLACES[:2] for mark in MARKS]


@pytest.mark.parametrize("which", COLOURS)
def test_every_pair_of_colours_can_be_read(which: str) -> None:
    weak = []
    for front, back, least in pairs():
        ratio = contrast(resolved(front, which), resolved(back, which))
        if ratio < least:
            weak.append(f"{front} on {back}: {ratio:.2f} < {least}")
    assert weak == []


@pytest.mark.parametrize("which", COLOURS)
def test_each_run_has_a_colour_that_shows_and_is_neither_before_nor_after(which: str) -> None:
    card = resolved("block_background_fill", which)
    assert [colour for colour in runs.COLOURS if contrast(colour, card) < 3] == []
    assert not set(runs.COLOURS) & {resolved("before", which), resolved("after", which)}


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the lightest grey that passes on white


def test_no_rule_brings_a_colour_of_its_own() -> None:
    """One fact, one place: what is not in the two lists is not measured either."""
    rules = re.sub(r"^(:root|\.dark) {.*?^}", "", CSS, flags=re.M | re.S)
    assert re.findall(r"#[0-9a-f]{3,6}\b(?=[;\s}])|rgba?\([^)]*\)|opacity: 0\.[1-6]", rules) == []
    assert re.findall(r"color: (?:white|black|grey|gray)", rules) == []
    used = set(re.findall(r"var\(--([\w-]+)\)", rules))
    known = set(COLOURS["dark"]) | {name.replace("_", "-") for name in vars(theme.THEME)} | {"columns", "font-mono"}
    assert used <= known, used - known


def test_no_border_is_lost_on_its_way_to_the_page() -> None:
    """Gradio reads the rules back from the browser, which drops a border of a variable if one of its sides differs."""
    for rule in re.findall(r"{([^{}]*)}", CSS):
        if re.search(r"(?<![\w-])border: [^;]*var\(", rule):
            assert not re.search(r"border-(top|right|bottom|left|inline|block)[\w-]*:", rule), rule


def test_orange_means_tuned_and_the_primary_button_is_ink() -> None:
    for which in COLOURS:
        assert resolved("button_primary_background_fill", which) == resolved("ink", which)
        assert resolved("after", which) not in {
            resolved(name, which) for name in ("button_primary_background_fill", "color_accent", "slider_color")
        }
