"""A conversation in columns, as HTML: pure functions, without a component or an event."""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from markupsafe import Markup

from finetune.chat.reply import Reply
from finetune.chat.talk import Column, Talk, Turn
from finetune.evaluate import look
from finetune.models import split_thought
from finetune.ui.html import macros, render

TEMPLATES = macros("chat/compare.html")
EMPTY = "<p class='ba-masked'>Every column gets the same prompt. Ask something, or pick a held-out example.</p>"
NOT_COMPARED = "<span class='ba-masked'>{{ why }}</span>"
VERIFIED = (
    "<p class='ba-stats ba-verified' title='Checked on three fixed prompts after each adapter was loaded. Largest "
    "difference of a logit from those of the original model: {{ difference }}.'>✓ base verified: with the adapter off, "
    "it is the original model</p>"
)
THINKING = "Thinking …"
WHY = {"end_of_turn": "ended by itself", "length": "cut at max tokens", "stopped": "stopped"}
LONGEST = 4000
"""Characters of an answer that are still compared word by word."""

MOST_ALIKE = 40_000
"""Pairs of equal words that are: difflib took 0.4 s for so many, and 14 s for nine times as many."""

COPY = """element.addEventListener('click', event => {
  const button = event.target.closest('.ba-copy');
  if (!button) return;
  const text = button.closest('.ba-answer').querySelector('.ba-said').dataset.text;
  if (navigator.clipboard) navigator.clipboard.writeText(text);
  else {  // a browser gives pages that came without TLS from another machine none
    const box = document.createElement('textarea');
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand('copy');
    box.remove();
  }
  const { textContent, dataset } = button;
  if (textContent === dataset.label) return;
  button.textContent = dataset.label;
  setTimeout(() => button.textContent = textContent, 1200);
});"""
FOLLOW = """let low = true;
const box = element.closest('#talk');
const look = () => setTimeout(() => { low = box.scrollHeight - box.scrollTop - box.clientHeight < 60; }, 100);
for (const how of ['wheel', 'touchmove', 'keyup', 'mouseup']) box.addEventListener(how, look, {passive: true});
new MutationObserver(() => { if (low) box.scrollTop = box.scrollHeight; })
  .observe(box, {childList: true, subtree: true, characterData: true});"""
"""Keeps the newest words in view, unless the reader has scrolled up."""


def talk(held: Talk | None, kind: str) -> str:
    """All finished turns."""
    if held is None or not held.turns:
        return EMPTY
    return Markup().join(turn(one, held.columns, kind) for one in held.turns)


def thinking(prompt: str, columns: Sequence[Column]) -> Markup:
    """A turn before anything is known of its answers, so that what was sent shows at once."""
    return turn(Turn(prompt, tuple(Reply() for _ in columns)), columns, "free")


def turn(one: Turn, columns: Sequence[Column], kind: str) -> Markup:
    """A prompt, and the answers beside each other; under each what was measured, on demand what differs."""
    over = all(reply.stop for reply in one.replies)
    pairs = enumerate(zip(columns, one.replies, strict=True))
    answers = [_answer(column, reply, one, kind, over and place > 0) for place, (column, reply) in pairs]
    return TEMPLATES.turn(one, answers, over)


def _answer(column: Column, reply: Reply, one: Turn, kind: str, compared: bool) -> dict[str, Any]:
    """What the template's `answer` takes."""
    found = look(reply.text, kind, one.expected) if reply.stop else None
    extras = Markup()
    thought, answer = split_thought(reply.text) if reply.stop else ("", reply.text)
    if found:
        extras += TEMPLATES.thought(thought) if thought else Markup()
        extras += _difference(split_thought(one.replies[0].text)[1], answer) if compared else Markup()
        extras += details(reply, one.replies[0])
    good = (found.valid if found.right is None else found.right) if found else None
    return {
        "title": column.title,
        "tuned": column.run is not None,
        "badge": found.said if found else "",
        "mark": {None: "", True: "ba-yes", False: "ba-no"}[good],
        "text": found.text if found else reply.text,
        "waiting": _waiting(reply),
        "busy": not reply.stop,
        "copied": answer.encode("utf-8", "replace").decode(),
        "stats": stats(reply),
        "extras": extras,
    }


def _waiting(reply: Reply) -> str:
    if reply.ahead:
        return f"{reply.ahead} answer{'s' * (reply.ahead > 1)} ahead of yours …"
    return "(nothing)" if reply.stop else THINKING


def stats(reply: Reply) -> str:
    """One line about an answer: measured, never guessed."""
    if not reply.prompt:
        return ""
    speed = f" · {reply.tokens / reply.seconds:.1f} tokens/s" if reply.seconds else ""
    dropped = f" · {reply.dropped} oldest messages left out: the context is full" if reply.dropped else ""
    by = f" · {reply.by}" if reply.by else ""
    return f"{reply.prompt_tokens} → {reply.tokens} tokens{speed} · {WHY.get(reply.stop or '', '…')}{dropped}{by}"


def details(reply: Reply, base: Reply) -> Markup:
    """The same prompt ids on both sides, or not; and the times."""
    same = "the same ids as the first column's" if reply.prompt == base.prompt else "not the first column's prompt"
    digest = hashlib.sha256(repr(reply.prompt).encode()).hexdigest()[:12]
    rows = [
        ("prompt", f"{reply.prompt_tokens} tokens, {same} (sha256 {digest})"),
        ("answer", f"{reply.tokens} tokens, {WHY.get(reply.stop or '', '…')}"),
        ("first token", f"after {reply.first:.2f} s" if reply.first is not None else "–"),
        ("all", f"{reply.seconds:.2f} s"),
    ]
    return TEMPLATES.details(rows)


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", text)


def _alike(base: str, text: str) -> int:
    """Pairs of equal words: an answer that goes round in circles has so many that comparing takes minutes."""
    before, after = (Counter(word for word in _pieces(one) if not word.isspace()) for one in (base, text))
    return sum(count * after[word] for word, count in before.items())


def _difference(base: str, text: str) -> Markup:
    if max(len(base), len(text)) > LONGEST or _alike(base, text) > MOST_ALIKE:
        return render(NOT_COMPARED, why="Too long or too repetitive to compare word by word.")
    if base == text:
        return render(NOT_COMPARED, why="Same text as the first column.")
    return TEMPLATES.differences(difference(base, text))


@lru_cache(256)
def difference(base: str, text: str) -> Markup:
    """Word by word what is gone from `base` and what is new in `text`.

    Example:
        >>> difference("a red egg", "a blue egg")
        Markup('a <del>red</del><ins>blue</ins> egg')
    """
    before, after = _pieces(base), _pieces(text)
    changes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return TEMPLATES.changed(
        (what == "equal", "".join(before[i:j]), "".join(after[k:m])) for what, i, j, k, m in changes
    )


def verified(reply: Reply) -> str:
    """The proof that this answer's base was the base; nothing where it was not measured."""
    if reply.difference is None:
        return ""
    return render(VERIFIED, difference=f"{reply.difference:.0e}" if reply.difference else "0")
