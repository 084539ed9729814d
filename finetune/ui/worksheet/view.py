"""The Guide's worksheet as HTML: pure functions, without a component or an event."""

from markupsafe import Markup

from finetune.evaluate.glossary import WORDS
from finetune.evaluate.printout import SIGNS, groups
from finetune.evaluate.worksheet import Facts, Item, Sheet
from finetune.ui.html import macros

TEMPLATES = macros("worksheet/worksheet.html")
KINDS = {
    "worth_it": "ba-helped",
    "try_it": "ba-helped",
    "not_worth_it": "ba-hurt",
    "alternatives_suffice": "ba-unsure",
    "alternative": "ba-unsure",
    "too_few": "ba-unsure",
    "more_data": "ba-unsure",
}
PLANNING = "<div class='ba-card'>Trying a few training batches, about half a minute…</div>"


def draw(sheet: Sheet) -> Markup:
    """The recommendation, large, and the lines it rests on; each word is explained where it first comes up."""
    unexplained = dict(WORDS)

    def explained(item: Item) -> tuple[Item, list[tuple[str, str]]]:
        return item, [(word, unexplained.pop(word)) for word in item.words if word in unexplained]

    parts = [(name, list(map(explained, items))) for name, items in groups(sheet)]
    return TEMPLATES.sheet(sheet.advice, KINDS.get(sheet.advice.code, "ba-next"), parts, SIGNS)


def about(facts: Facts) -> str:
    """What the page is about, for the page that is taken away."""
    data = facts.rows["name"] if facts.rows else "no data yet"
    return f"Data: {data}. Model: {facts.model}." + (f" Run: {facts.run.name}." if facts.run else "")
