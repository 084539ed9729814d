"""The Guide's worksheet as HTML: pure functions, without a component or an event."""

from finetune.evaluate.glossary import WORDS
from finetune.evaluate.guide import Facts, Item, Sheet
from finetune.evaluate.worksheet import SIGNS, groups
from finetune.ui.report import card, folded, shown

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


def draw(sheet: Sheet) -> str:
    """The recommendation, large, and the lines it rests on."""
    reasons = "".join(f"<p>{shown(reason)}</p>" for reason in sheet.advice.reasons)
    kind = KINDS.get(sheet.advice.code, "ba-next")
    head = f"<div class='ba-card ba-verdict {kind}'><b>{shown(sheet.advice.title)}</b>{reasons}</div>"
    explained: set[str] = set()
    parts = "".join(card("".join(_item(item, explained) for item in items), name) for name, items in groups(sheet))
    return f"<div class='ba-worksheet'>{head}{parts}</div>"


def refused(sentence: str) -> str:
    """What was typed cannot be used."""
    return card(f"<div class='ba-problem error'><i>✕</i><div>{shown(sentence)}</div></div>")


def about(facts: Facts) -> str:
    """What the page is about, for the page that is taken away."""
    data = facts.rows["name"] if facts.rows else "no data yet"
    return f"Data: {data}. Model: {facts.model}." + (f" Run: {facts.run.name}." if facts.run else "")


def _item(item: Item, explained: set[str]) -> str:
    said = shown(item.todo) if item.said is None else shown(item.said)
    kind = "ba-open" if item.said is None else f"ba-{item.mark or 'fact'}"
    new = [word for word in item.words if word not in explained]
    explained.update(new)
    words = "".join(folded(f"{word}?", f"<p>{WORDS[word]}</p>") for word in new)
    return (
        f"<div class='ba-line-item {kind}'><i>{SIGNS[item.mark] if item.said is not None else '○'}</i>"
        f"<b>{item.title}</b><div dir='auto'>{said}<div class='ba-words'>{words}</div></div></div>"
    )
