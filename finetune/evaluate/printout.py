"""The worksheet as one page to take away: Markdown, or HTML that prints well."""

import re

from finetune import data
from finetune.evaluate.glossary import WORDS
from finetune.evaluate.worksheet import Sheet

SIGNS = {"good": "✓", "bad": "✕", "unsure": "?", None: "·"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}</title><style>
@page { size: A4; margin: 16mm; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 800px; margin: 2rem auto; padding: 0 1rem; color: #1e293b; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.05rem; margin: 1.2rem 0 0.2rem; border-bottom: 1px solid #cbd5e1; }
.advice { border-left: 6px solid #0f172a; padding: 0.2rem 1rem; background: #f1f5f9; print-color-adjust: exact; }
.advice b { font-size: 1.2rem; }
dl { display: grid; grid-template-columns: 9rem 1fr; gap: 0.25rem 1rem; margin: 0.3rem 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; } .open { color: #64748b; font-style: italic; }
small, small dt { color: #64748b; font-weight: 450; }
@media print { body { margin: 0; } section { break-inside: avoid; } }
</style></head><body><h1>{{ title }}</h1>
<p><small>{{ about }}</small></p>
<div class="advice"><b>{{ sheet.advice.title }}</b>
{% for reason in sheet.advice.reasons %}<p>{{ reason }}</p>{% endfor %}</div>
{% for group, items in groups %}<section><h2>{{ group }}</h2><dl>{% for item in items %}
<dt>{{ signs[item.mark] }} {{ item.title }}</dt>
<dd{% if item.said is none %} class="open"{% endif %}>{{ item.todo if item.said is none else item.said }}</dd>
{% endfor %}</dl></section>{% endfor %}
<section><h2>Words</h2><small><dl>
{% for word, meaning in words %}<dt>{{ word }}</dt><dd>{{ meaning }}</dd>{% endfor %}</dl></small></section>
</body></html>
"""


def html(sheet: Sheet, title: str, about: str) -> str:
    """A page that loads nothing and runs nothing; every text is escaped.

    Example:
        >>> html(sheet(Facts(models.DEFAULT)), "Should I fine-tune?", "recipes").startswith("<!doctype html>")
        True
    """
    import jinja2

    page = jinja2.Environment(autoescape=True).from_string(PAGE)
    return page.render(
        sheet=sheet, title=title, about=about, groups=groups(sheet), signs=SIGNS, words=_explained(sheet)
    )


def markdown(sheet: Sheet, title: str, about: str) -> str:
    """The same as Markdown; what people typed cannot become anything but text."""
    lines = [f"# {plain(title)}", "", plain(about), "", f"**{plain(sheet.advice.title)}**", ""]
    lines += [f"- {plain(reason)}" for reason in sheet.advice.reasons]
    for group, items in groups(sheet):
        lines += ["", f"## {group}", ""]
        for item in items:
            said = f"*{plain(item.todo)}*" if item.said is None else plain(item.said)
            lines.append(f"- {SIGNS[item.mark]} **{item.title}** — {said}")
    lines += ["", "## Words", ""]
    lines += [f"- **{word}** — {plain(meaning)}" for word, meaning in _explained(sheet)]
    return "\n".join(lines) + "\n"


def groups(sheet: Sheet) -> list[tuple[str, list]]:
    """The lines under their headings, in order."""
    names = dict.fromkeys(item.group for item in sheet.items)
    return [(name, [item for item in sheet.items if item.group == name]) for name in names]


def plain(text: str) -> str:
    """A text on one line, with everything escaped that Markdown or HTML would read as more than text.

    Example:
        >>> plain("a*b <i>")
        'a\\*b &lt;i>'
    """
    shown = data.visible(" ".join(text.encode("utf-8", "replace").decode().split()))
    shown = re.sub(r"([\\`*_\[\]#|~])", r"\\\1", shown.replace("&", "&amp;").replace("<", "&lt;"))
    return shown.replace("://", "\\://").replace("www.", "www\\.")


def _explained(sheet: Sheet) -> list[tuple[str, str]]:
    words = dict.fromkeys(word for item in sheet.items for word in item.words)
    return [(word, WORDS[word]) for word in words]
