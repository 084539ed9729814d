"""A conversation as a single HTML file to share: prompts, answers and settings.

All typed or generated text is escaped by jinja2; the page runs no scripts and loads nothing.
"""

import time
from collections.abc import Sequence

from finetune.chat.reply import Sampling
from finetune.chat.talk import Talk
from finetune.chat.votes import Vote, score
from finetune.models import split_thought
from finetune.records import Json

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Before &amp; After · {{ talk.run.name }}</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1e293b; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dt { color: #64748b; } dd { margin: 0; }
section { border-top: 1px solid #cbd5e1; margin-top: 1.5rem; } 
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 1rem; }
.columns > div { border-top: 4px solid #64748b; } .columns > div.tuned { border-color: #ea580c; }
small { color: #64748b; }</style></head><body>
<h1>Before &amp; After</h1>
<dl>{% for name, value in facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% for turn in talk.turns %}<section><h2>Prompt</h2><pre>{{ turn.prompt }}</pre>
<p><small>{{ summary(turn.sampling) }}</small></p>
<div class="columns">{% for reply in turn.replies %}{% set column = talk.columns[loop.index0] %}
<div{% if column.run %} class="tuned"{% endif %}><h3>{{ column.title }}</h3>
{% set thought, answer = split(reply.text) %}
{% if thought %}<details><summary>Thought</summary><pre>{{ thought }}</pre></details>{% endif %}
<pre>{{ answer }}</pre>
<small>{{ reply.prompt_tokens }} prompt tokens, {{ reply.tokens }} tokens in {{ "%.1f"|format(reply.seconds) }} s,
{{ (reply.stop or "")|replace("_", " ") }}</small></div>
{% endfor %}</div>
{% if turn.expected %}<h3>Expected</h3><pre>{{ turn.expected }}</pre>{% endif %}</section>
{% endfor %}</body></html>
"""


def transcript(talk: Talk, votes: Sequence[Json] = (), verdict: str | None = None) -> str:
    """The page. `votes` are this person's, from blind tests of this run; `verdict` is the sentence of its evaluation.

    Example:
        >>> Path("talk.html").write_text(transcript(talk), encoding="utf-8")
        4711
    """
    from jinja2 import Environment

    result = talk.run.result
    losses = [result.start_eval_loss if talk.run.lineage else result.base_eval_loss, result.eval_loss]
    model = str(talk.run.config["model"])
    against_base = [vote for vote in (Vote(**kept) for kept in votes) if vote.against is None]
    facts = [
        ("run", f"{talk.run.name} ({talk.run.id}), {talk.run.state}, {talk.run.step} steps"),
        ("base model", model.rstrip("/").rsplit("/", 1)[-1] if model.startswith("/") else model),
        ("system prompt", talk.system or "none"),
        ("held-out loss", f"{losses[0]:.3f} → {losses[1]:.3f}" if None not in losses else "not measured"),
        ("verdict", verdict or "not evaluated"),
        ("blind test", score(against_base).sentence if against_base else "not voted on"),
        ("saved", time.strftime("%Y-%m-%d %H:%M")),
    ]
    return (
        Environment(autoescape=True)
        .from_string(PAGE)
        .render(talk=talk, facts=facts, summary=_summary, split=split_thought)
    )


def _summary(sampling: Sampling) -> str:
    most = f"at most {sampling.max_tokens} tokens"
    penalty = f", repetition penalty {sampling.repetition_penalty:g}" if sampling.repetition_penalty != 1 else ""
    if sampling.temperature <= 0:
        return f"greedy, {most}{penalty}"
    return f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, seed {sampling.seed}, {most}{penalty}"
