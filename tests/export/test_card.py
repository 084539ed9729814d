"""The card says what was measured, and nothing that people typed is more than text in it."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from finetune import models, train
from finetune.data import rows_hash
from finetune.export import facts
from finetune.export.bundle import read_bundle
from finetune.export.card import card as card_of
from finetune.export.formats import PUSHABLE, format_of
from finetune.export.markdown import fenced, inline, plain
from finetune.export.parity import Parity
from finetune.export.subject import gather
from finetune.store import Result, Run, Store
from tests.conftest import run_to_end, train_tiny
from tests.export.trained import OTHER, SYSTEM, sums, world

HOSTILE = [
    "x\n---\nlicense: mit\n---\n# Owned",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "[click](https://evil.example) ![i](https://evil.example/x.png)",
    "https://evil.example www.evil.example <https://evil.example> [a]: https://evil.example",
    "`code` **bold** _em_ ~~gone~~ | a | b |\n|---|---|",
    '"quoted": {a: [1]} &anchor *alias !!python/object:os.system # comment',
    "{{ 7 * 7 }} {% for x in y %} \u202e\x00\x1b[31m",
    "a](javascript:alert(1)) &lt;b&gt; \\",
]


def card(store: Store, run: Run, *, format: str, files: Sequence[str] = (), parity: Parity | None = None) -> str:
    return card_of(gather(store, run), format_of(format), files, parity)


def rendered(text: str) -> tuple[set[str], str]:
    """The kinds of tokens in a card's body, and its HTML."""
    parser = (
        MarkdownIt("gfm-like", {"linkify": False, "html": True}) if False else MarkdownIt("commonmark").enable("table")
    )
    parser.enable("strikethrough")
    body = text.split("\n---\n", 1)[1]
    tokens = [child for token in parser.parse(body) for child in (token, *(token.children or []))]
    return {token.type for token in tokens}, parser.render(body)


def test_it_says_what_was_measured(tiny: Path) -> None:
    made = world(tiny)
    with made.there() as store:
        text = card(store, made.run, format="adapter")
    data = ModelCard(text).data
    assert data.eval_results
    result = data.eval_results[0]
    assert result.metric_value == round(made.report.arms["tuned"].score, 6)
    assert (result.metric_type, result.metric_name, result.dataset_name) == ("exact_match", "right number", "sums")
    assert (result.task_type, result.dataset_type, result.dataset_split) == ("text-generation", "sums", "held-out")
    assert (data.library_name, data.pipeline_tag, data.license, data.language) == (
        "peft",
        "text-generation",
        None,
        None,
    )
    assert data.base_model is None
    assert made.report.verdict.sentence.split(",")[0] in text
    for title in ("Base (zero-shot)", "Few-shot", "Retrieval", "Tuned", "Most common answer"):
        assert f"| {title} |" in text
    assert "General ability: " in text
    assert "licence is unknown" in text
    assert "Rows trained on: 51" in text
    assert "Rows held out: 9" in text
    with made.there() as store:
        rows, _ = train.rows_of_run(store, made.run)
        events = store.events_of(made.run.id, "log")
    assert rows_hash(rows) in text
    assert "What is 1 plus 7" not in text
    for secret in (str(made.home), str(tiny), "/tmp", OTHER, os.uname().nodename + "\n"):
        assert secret not in text
    length = next(e.data["text"] for e in events if e.data["text"].startswith("Max length")).split()[2]
    for said in ("learning&#95;rate = 0.01", f"| max length | {length} |", "| steps | 4 |", "peft 0.21"):
        assert said in text, said
    assert fenced(SYSTEM, "text") in text


def test_what_it_continues_is_named_and_not_called_the_base(store: Store, tiny: Path, tmp_path: Path) -> None:
    parent = train_tiny(store, tiny, sums(tmp_path / "sums.jsonl"), learning_rate=0.01)
    train.rename(store, parent.id, "| evil | <b>name")
    config, record = train.TrainConfig(**parent.config), store.dataset(parent.dataset)
    run = run_to_end(store, train.start(store, config, record, parent=store.run(parent.id)))
    text = card(store, run, format="adapter")
    start, now = run.result.start_eval_loss, run.result.eval_loss
    assert f"Held-out loss per token: with the adapter it continues {start:.3f}, tuned {now:.3f}." in text
    _, html = rendered(text)
    assert "<td>continues</td>" in html
    assert f"({parent.id}), trained on sums" in html
    assert "<b>name" not in html


def test_a_run_that_was_not_evaluated_says_so(store: Store, tiny: Path, tmp_path: Path) -> None:
    run = train_tiny(store, tiny, sums(tmp_path / "sums.jsonl"), max_steps=2)
    text = card(store, run, format="merged")
    assert "It was not evaluated: whether it answers better than its base is unknown." in text
    assert ModelCard(text).data.eval_results is None
    assert "not loaded again" in text


@pytest.mark.parametrize("format", PUSHABLE)
def test_every_format_is_used_its_own_way(tiny: Path, format: str) -> None:
    made = world(tiny)
    parity = Parity(40, 39, 0.5, 0.475, (0.35, 0.65), 0.9, "amber")
    with made.there() as store:
        text = card(store, made.run, format=format, files=["model f16.gguf", "Modelfile"], parity=parity)
    assert ModelCard(text).data.library_name == format_of(format).card.library
    assert "39 of 40 answers are identical" in text
    assert ("PeftModel" in text) == (format == "adapter")
    assert ("llama-cli -m 'model f16.gguf'" in text) == (format == "gguf")
    assert ("--lora 'model f16.gguf'" in text) == (format == "gguf-lora")
    assert ("ollama create" in text) == ("gguf" in format)
    for code in text.split("```python\n")[1:]:
        compile(code.split("```")[0], "card", "exec")


@pytest.mark.parametrize("format", PUSHABLE)
def test_what_goes_on_a_base_says_which_weights_it_was_checked_on(tiny: Path, format: str) -> None:
    """Trained and checked on the packaged copy; the code beside it loads the Hub's own weights."""
    made = world(tiny)
    parity = Parity(40, 40, 0.5, 0.5, (0.35, 0.65), 1, "green")
    packaged = replace(made.run, result=made.run.result.model_copy(update={"source": "packaged"}))
    said = "Checked on the packaged copy of the base, not on the Hub's own weights."
    with made.there() as store:
        for run, found, there in ((packaged, parity, True), (made.run, parity, False), (packaged, None, False)):
            expected = there and format in ("adapter", "gguf-lora")
            assert (said in card(store, run, format=format, parity=found)) == expected


@pytest.mark.parametrize("evil", HOSTILE)
def test_names_are_never_more_than_text(tiny: Path, evil: str) -> None:
    made = world(tiny)
    with made.there() as store:
        plain = rendered(card(store, made.run, format="gguf", files=["a.gguf", "b.gguf"]))[0]
        real = store.dataset(made.run.dataset)
        bad = replace(real, name=evil, facts=real.facts.model_copy(update={"applied": [evil]}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "dataset", lambda _: bad)
            text = card(store, replace(made.run, name=evil), format="gguf", files=[f"{evil}.gguf", "b.gguf"])
    kinds, html = rendered(text)
    assert kinds <= plain | {"html_entity", "text_special"}
    assert html.count("<a ") == html.count("<h1>") - 1 == 0
    for tag in ("<script", "<img", "<b>"):
        assert tag not in html.split("<pre>")[0]
    data = ModelCard(text).data
    assert data.license is None
    assert data.tags == ["lora", "sft", "before-and-after", "gguf"]
    front = yaml.safe_load(text.split("\n---\n", 1)[0])
    assert set(front) == {"library_name", "pipeline_tag", "tags", "model-index"}
    assert ("\u202e" not in text, "\x00" not in text) == (True, True)


@pytest.mark.parametrize("evil", [*HOSTILE, "```\n</pre><script>\n````\n~~~~~\n# Owned", "`" * 40, "a\r```\rb"])
def test_a_system_prompt_stays_in_its_block(evil: str) -> None:
    tokens = MarkdownIt().parse(f"before\n\n{fenced(evil, 'text')}\n\nafter")
    assert [token.type for token in tokens] == [
        "paragraph_open",
        "inline",
        "paragraph_close",
        "fence",
        "paragraph_open",
        "inline",
        "paragraph_close",
    ]
    assert tokens[3].content.replace("\ufffd", "\0") == evil.replace("\r", "\n") + "\n"


@pytest.mark.parametrize("evil", HOSTILE)
def test_inline_text_reads_as_it_was_typed(evil: str) -> None:
    html = MarkdownIt().render(f"a {inline(evil)} z")
    import html as entities

    assert html.count("<") == 2  # one paragraph
    assert entities.unescape(html).split() == ["<p>a", *plain(evil).split(), "z</p>"]


def test_the_licence_is_the_bases_own_or_unknown(store: Store, tiny: Path, tmp_path: Path) -> None:
    run = train_tiny(store, tiny, sums(tmp_path / "sums.jsonl"), max_steps=1)
    for entry in models.CATALOGUE:
        known = replace(run, config=run.config | {"model": entry.name}, result=Result(source="hub"))
        assert facts.licence(gather(store, known)) == entry.licence
    gemma = replace(run, config=run.config | {"model": "google/gemma-3-270m-it"}, result=Result())
    data = ModelCard(card(store, gemma, format="merged")).data
    assert (data.license, data.base_model, data.base_model_relation) == ("gemma", "google/gemma-3-270m-it", "finetune")
    lfm = ModelCard(card(store, replace(gemma, config=run.config | {"model": "LiquidAI/LFM2-350M"}), format="adapter"))
    assert (lfm.data.license, lfm.data.license_name) == ("other", "LFM Open License 1.0")
    unknown = replace(gemma, config=run.config | {"model": "nobody/nothing"})
    assert ModelCard(card(store, unknown, format="adapter")).data.license is None
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    own = replace(run, config=run.config | {"model": str(base)})
    (base / "README.md").write_text("---\nlicense: cc-by-4.0\nlanguage: [en, de]\n---\n# Base", encoding="utf-8")
    data = ModelCard(card(store, own, format="adapter")).data
    assert (data.license, data.language, data.base_model) == ("cc-by-4.0", ["en", "de"], None)
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: My *Own*\n---\n", encoding="utf-8")
    text = card(store, own, format="adapter")
    assert (ModelCard(text).data.license, ModelCard(text).data.license_name) == ("other", "My *Own*")
    assert "My &#42;Own&#42;" in text
    for broken in ("---\n[\n---\n", "---\nlicense: [a]\n---\n", "\xff"):
        (base / "README.md").write_text(broken, encoding="latin-1")
        assert facts.licence(gather(store, own)) is None
    assert json.dumps(facts.environment())


def test_an_imported_runs_machine_is_the_one_it_was_recorded_on(store: Store, tiny: Path) -> None:
    run = read_bundle(store, world(tiny).bare, model=str(tiny))
    text = card(store, run, format="adapter")
    assert "Machine and versions: recorded when the run's bundle was made." in text
    assert "those of this export" not in text


@pytest.mark.parametrize(
    ("code", "who"), [("timed_out", "by the time limit of the server"), ("cancelled_by_owner", "by its owner")]
)
def test_it_says_that_a_run_was_stopped_early(store: Store, tiny: Path, tmp_path: Path, code: str, who: str) -> None:
    run = train_tiny(store, tiny, sums(tmp_path / "sums.jsonl"), max_steps=4)
    assert "stopped early" not in card(store, run, format="adapter")
    result = run.result.model_copy(update={"adapter_step": 2})
    stopped = replace(run, state="cancelled", code=code, step=3, result=result)
    assert f"| stopped early | at step 2 of 4, {who} |" in card(store, stopped, format="adapter")
