"""The languages of the page: that nothing is missing from a catalogue, and that a text finds its translation."""

import json
import re
from functools import cache
from types import SimpleNamespace
from typing import Any

import anyio
import gradio as gr
import pytest
from starlette.testclient import TestClient

from finetune.chat import Engine
from finetune.evaluate import glossary
from finetune.evaluate.arms import TITLES
from finetune.evaluate.findings import Forgetting
from finetune.schema import STATES
from finetune.services import Services
from finetune.store import Store
from finetune.ui import languages, page
from finetune.ui.languages import asked, door, said, said_html, spoken
from finetune.ui.languages.catalogue import PLACE, Catalogue
from tests import sentences

OTHERS = [code for code in languages.LANGUAGES if code != languages.ENGLISH]

UNSHOWN = {
    "cli": "the command line is in English",
    "api": "the API is",
    "ui/languages": "says the words of Gradio's, tested below",
    "versions.py": "SQL",
    "ui/address.py": "JavaScript",
    "ui/theme.py": "fonts",
    "ui/events.py": "JavaScript",
    "data/guess.py": "names of columns in other languages",
    "jobs/payload.py": "written into files",
    "jobs/there.py": "printed by a job",
    "jobs/lines.py": "read by programs",
    "checkout.py": "the command line",
    "deploy.py": "the command line",
    "server.py": "printed by whoever starts the server",
    "export/script/template.py": "written into files, which are in English",
    "export/script/recipe.py": "written into files",
    "export/card.py": "written into files",
    "export/usage.py": "written into files",
    "export/gguf/howto.py": "written into files",
    "chat/transcript.py": "written into files",
    "chat/terminal.py": "printed",
    "notebook.py": "in English, as the command line is",
    "ui/tools.py": "read by programs",
    "ui/admin.py": "read by whoever runs the server, as the command line is",
    "invite.py": "printed by whoever starts the server",
    "board.py": "written into files",
    "__main__.py": "the command line",
    "__init__.py": "the library",
    "chat/checked.py": "asked by the command line, the library and programs",
    "data/printed.py": "printed",
    "evaluate/table.py": "printed",
    "evaluate/printout.py": "written into files",
}
"""Files whose texts no visitor reads on the page, and why."""

NAMES = re.compile(
    r"(SELECT|INSERT|UPDATE|CREATE|ALTER|WHERE|AND) .*|[a-z]+(-[a-z]+)+|### \w+|%\(asctime\)s.*|.*\"rows\": .*|.*%s: %s"
    r"|.*'self'.*|\?i:.*|\{\"type\".*|dtype|quant|Bearer \{0\}|rsLoRA|YAML|JSON Schema|GGUF"
    r"|# %% .*|Python 3|validation: validation\.jsonl|Llama 3\.2 Community|LFM Open License 1\.0"
)
"""Names, code and messages of other programs."""

THEIRS = {
    *("The capital of France is", "def add(a, b): return", "Title: Toast 1.", "Butter 2 slices of bread."),
    *("recipes", "sql", "tickets", "voice", "evaluate", "merged", "gguf", "bundle", "notebook", "train", "fact"),
    *("cosine", "quick", "balanced", "thorough", "prompt,completion Hi,Hello", "Set FINETUNE_CHAT_ENGINE=pytorch."),
    *("no space left on device", "disk quota exceeded", "pytorchstreamwriter failed", "unexpected pos"),
    *("basic_ios::clear: iostream error", "database or disk is full", "disk i/o error", "out of memory"),
    *("can't allocate memory", "cannot allocate memory", "a number with thousands of digits", "<{0} bytes>"),
    *("# every setting is at its default {}", "digits, GPT-2", "Push from Before & After", "initial commit"),
    "Before & After: a run to be trained",
    "python convert_hf_to_gguf.py MERGED_FOLDER --outfile model.gguf",
}
"""What models are asked, codes, and what is looked for in errors."""

NEAREST = "The nearest training row's answer alone is right on 90 % or more: these rows do not show that a"
COMPOSED = {
    "1 row repeats": "1 row {0}repeats",
    "1 row nearly repeats": "1 row {0}repeats",
    "{0} rows repeat": "{0} rows {1}repeat",
    "{0} rows nearly repeat": "{0} rows {1}repeat",
    "'reasoning_content' was put before the answer, in <think> tags.": (
        "'reasoning_content' was put before the answer, in"
    ),
    f"{NEAREST} model is needed.": NEAREST,
    "The tuned model needs {0} prompt tokens, {1} {2}.": "The tuned model needs {0} prompt tokens, {1}",
    "They process each row once, and their output is kept ({0} MB).": (
        "{0} They process each row once, and their output is kept ({1} MB)."
    ),
    "the model is gated, and a shared server fetches public models only": "the model is gated, and {0}",
    "Measured with a few batches on this machine.": "{0} Measured with a few batches on this machine.",
    "Checkpoints: the latest at step {0}, the best at step {1}.": "Checkpoints: the latest at step {0}",
    "{0} → {1} tokens": "{0} → {1} tokens{2} · {3}",
    "{0} warnings": "{0} more: {1} {2}s",
    "{0} warning": "{0} more: {1}",
    "{0} notes": "{0} more: {1} {2}s",
    "{0} note": "{0} more: {1}",
    "{0} errors": "{0} more: {1} {2}s",
    "{0} error": "{0} more: {1}",
    "Tokenizer of {0}.": "{0} Tokenizer of {1}.",
    "{0} groups": "1 group",
    "Loss of the expected answer over {0} rows: tuned {1}, {2}; the difference from {3} is {4}.": (
        "Loss of the expected answer over {0} rows: tuned {1}"
    ),
    "{0} of {1}": "{0}: {1} of {2}",
}
"""Texts that the code puts together from pieces too small to translate, and one of the pieces."""

PIECES = {
    *(*COMPOSED.values(), "model is needed.", "{0} more: , {1}", "{0} more: , {1} {2}s"),
    "{0} As reported by the bundle it came in: not all of it was measured here.",
}

WORDS = {
    *STATES,
    *glossary.WORDS,
    *(title.lower() for name, title in TITLES.items() if name not in ("few_shot", "retrieval")),
    *Forgetting.model_fields["said"].annotation.__args__,  # type: ignore[union-attr]
    *("Tuned", "Retrieval", "starting", "elapsed", "train", "held-out", "step", "loss", "accuracy", "macro F1 {0}"),
    *("perplexity {0}", "Yes", "{0} points", "{0} on {1}", "Measured", "nothing", "None.", "Next", "stopped"),
    *("Pause", "Resume", "Tie", "{0} fix", "{0} fixes", "lines {0}", "yes", "no"),
    *("system", "user", "assistant", "tool", "packaged copy, 4-bit weights dequantised"),
    *("local folder", "the Hub's files, from the local cache", "fetched from the Hub"),
    *("Example", "Teacher", "Somebody", "people", "waiting", "waits", "finished", "verdicts"),
    *("verdict", "run", "whose", "time"),
    *("Copied", "Language", "min", "Info", "Error", "Delete", "Complete"),
}
"""Single words and short shapes that the code says; which of its words are read cannot be told from the code."""


@cache
def texts() -> dict[str, str]:
    """Every text of the page's, and where it stands."""
    found: dict[str, str] = {}
    for file in sorted(sentences.ROOT.rglob("*")):
        name = file.relative_to(sentences.ROOT).as_posix()
        if file.suffix not in (".py", ".html") or name.startswith(tuple(UNSHOWN)):
            continue
        source = file.read_text(encoding="utf-8")
        lines = sentences.python(source) if file.suffix == ".py" else dict.fromkeys(sentences.template(source), 0)
        found |= {text: f"{name}:{line}" for text, line in lines.items() if text not in found}
    ours = {text: where for text, where in found.items() if text not in THEIRS and not NAMES.fullmatch(text)}
    return ours | dict.fromkeys(WORDS, "here") | dict.fromkeys(door.GRADIO.values(), "ui/languages/door.py")


@pytest.mark.parametrize("code", OTHERS)
def test_every_text_of_the_page_is_in_the_catalogue(code: str) -> None:
    words = languages.catalogue(code).words
    missing = [f"{where}: {text}" for text, where in texts().items() if text not in words and text not in PIECES]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("code", OTHERS)
def test_the_catalogue_has_nothing_that_nobody_says(code: str) -> None:
    unsaid = [key for key in languages.catalogue(code).words if key not in texts() and key not in COMPOSED]
    assert not unsaid, "\n".join(unsaid)


def test_what_is_composed_is_still_composed() -> None:
    assert {piece for piece in COMPOSED.values() if piece not in texts()} == set()


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_has_the_places_of_its_english_and_is_one(code: str) -> None:
    words = languages.catalogue(code).words
    places = {key: text for key, text in words.items() if sorted(PLACE.findall(key)) != sorted(PLACE.findall(text))}
    assert not places
    assert not [key for key, text in words.items() if not text.strip() or text != text.strip()]


def test_the_extraction_sees_what_it_should() -> None:
    seen = texts()
    for text in (
        "Start training",  # a button
        "The file is empty.",  # an error
        "Add at least one example.",  # its fix
        "Correct out of {0}",  # a template's text
        "{0} answers ahead of yours …",  # a choice in an f-string
        "{0} answer ahead of yours …",
        "Step size.",  # a setting's help
        "Memorising the training examples instead of learning what they have in common.",  # the glossary
    ):
        assert text in seen, text
    hard = sentences.python('def draw():\n    gr.Button("Nobody translated this")\n')
    assert hard == {"Nobody translated this": 2}


# Finding a translation

ES = Catalogue(
    {
        "The file is empty.": "El archivo está vacío.",
        "{0} rows": "{0} filas",
        "{0} of {1} rows": "{1} filas, {0} de ellas",
        "held out": "reservadas",
        "base": "base es",
        "First problem: {0}": "Primer problema: {0}",
    }
)


@pytest.mark.parametrize(
    ("english", "spanish"),
    [
        ("The file is empty.", "El archivo está vacío."),
        ("3 of 40 rows", "40 filas, 3 de ellas"),
        ("rows.csv: The file is empty. Look again.", "rows.csv: El archivo está vacío. Look again."),
        ("First problem: The file is empty.", "Primer problema: El archivo está vacío."),
        ("12 rows, held out; Base", "12 filas, reservadas; Base es"),
        ("  held out: ", "  reservadas: "),
        ("tickets · 12 rows", "tickets · 12 filas"),
        ("nothing known of 12", "nothing known of 12"),
        ("12.5", "12.5"),
        ("", ""),
    ],
)
def test_a_text_is_found_by_its_shape_or_part_by_part(english: str, spanish: str) -> None:
    assert ES.said(english) == spanish


def test_what_stands_in_a_text_is_left_as_it_is_and_isolated_from_right_to_left() -> None:
    urdu = Catalogue({"There is no column {0}.": "{0} نام کا کوئی کالم نہیں۔"}, "ur")
    assert urdu.said("There is no column a-b.") == "\u2066a-b\u2069 نام کا کوئی کالم نہیں۔"


def test_html_is_translated_where_it_is_ours_and_stays_escaped() -> None:
    html = "<p title='held out'>held out <b dir='auto'>held out <i>base</i></b> held out</p><code>held out</code>"
    ours = "<p title='reservadas'>reservadas <b dir='auto'>held out <i>base</i></b> reservadas</p><code>held out</code>"
    assert languages.in_html(html, ES.said) == ours
    assert (
        languages.in_html("<p>First problem: &lt;script&gt;</p>", ES.said) == "<p>Primer problema: &lt;script&gt;</p>"
    )
    hostile = {"held out": "<b>'\"&"}.get
    escaped = languages.in_html("<i title='held out'>held out</i>", lambda text: hostile(text, text))
    assert escaped == "<i title='&lt;b&gt;&#x27;&quot;&amp;'>&lt;b&gt;'\"&amp;</i>"


@pytest.mark.parametrize("evil", ["a, ", "of ", "of 3 GB ", "(", "() ", ": ", "x; (y), ", "a. ", "{0}"])
def test_whatever_is_written_is_looked_at_without_end(evil: str) -> None:
    """The work for a text is bounded; without a bound each of these took seconds or failed."""
    for code in OTHERS:
        assert languages.catalogue(code).said(evil * 5000) == evil * 5000
        assert isinstance(languages.catalogue(code).said(evil * 150), str)


def test_english_is_left_alone() -> None:
    assert said("The file is empty.") == "The file is empty."
    assert said_html("<b>The file is empty.</b>") == "<b>The file is empty.</b>"


# Which language


@pytest.mark.parametrize(
    ("cookie", "accepted", "code"),
    [
        (None, "ur-PK,ur;q=0.9,en;q=0.8", "ur"),
        (None, "fr,en;q=0.5,te;q=0.7", "te"),
        (None, "fr, de", "en"),
        (None, None, "en"),
        (None, "es;q=0, te", "te"),
        (None, "es;q=x,,;;", "es"),
        ("te", "ur", "te"),
        ("xx", "es-MX", "es"),
    ],
)
def test_the_choice_on_the_page_goes_before_the_browsers_languages(
    cookie: str | None, accepted: str | None, code: str
) -> None:
    assert asked(cookie, accepted) == code


def test_the_page_is_drawn_in_the_language_of_the_request(store: Store) -> None:
    built = page.build(Services(store, Engine()))
    app, _, _ = built.launch(prevent_thread_lock=True, quiet=True)
    try:
        client = TestClient(app)
        drawn = {code: client.get("/", headers={"accept-language": code}).text for code in languages.LANGUAGES}
        chosen = client.get("/config", headers={"accept-language": "te", "cookie": f"{languages.COOKIE}=ur"}).json()
    finally:
        gr.close_all(verbose=False)
    for code, html in drawn.items():
        with spoken(code):
            assert json.dumps(said("Start training"), ensure_ascii=False) in html
        assert ('dir = \\"rtl\\"' in html) == (code == "ur")
        assert f'lang = \\"{code}\\"' in html
    labels = [one["props"].get("label") for one in chosen["components"]]
    with spoken("ur"):
        assert said("Learning rate") in labels
    assert languages.language() == "en"


def answered(blocks: gr.Blocks, event: int, code: str) -> dict[str, Any]:
    """What an event of a page answers to a browser in this language."""
    request: Any = SimpleNamespace(headers={"accept-language": code})
    return anyio.run(lambda: blocks.process_api(event, [], request=request))


@pytest.mark.parametrize(("code", "told"), [("en", "The file is empty."), ("es", "El archivo está vacío.")])
def test_events_answer_in_the_language_of_their_request(code: str, told: str) -> None:
    def press() -> tuple[Any, Any]:
        return "<p>The file is empty. <b dir='auto'>Data</b></p>", gr.update(choices=["Data"], label="Run")

    def fail() -> None:
        raise gr.Error("The file is empty.")

    with door.Blocks() as blocks:
        shown, run, button = gr.HTML(), gr.Dropdown([], label="Run"), gr.Button()
        button.click(press, None, [shown, run])
        button.click(fail, None, None)
    data = answered(blocks, 0, code)["data"]
    assert data[0] == f"<p>{told} <b dir='auto'>Data</b></p>"
    assert data[1]["choices"][0][0] == "Data", "what people have named stays"
    assert data[1]["label"] == ("Run" if code == "en" else "Ejecución")
    with pytest.raises(gr.Error) as caught:
        answered(blocks, 1, code)
    assert caught.value.message == told


def test_choices_of_ours_are_translated_and_keep_their_values() -> None:
    with spoken("es"):
        radio = door.props("radio", {"choices": [("All rows", "all")], "value": "all"})
        runs = door.props("dropdown", {"choices": [("Data · 12 rows", "d1")], "__type__": "update"})
    assert radio == {"choices": [["Todas las filas", "all"]], "value": "all"}
    assert runs["choices"] == [["Data · 12 filas", "d1"]]
