"""Scores against values worked out by hand, and against the libraries they wrap."""

import json
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from finetune.errors import ConfigError
from finetune.evaluate import scores


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ('["egg"]', '["egg"]', 1.0),
        ('["egg", "milk"]', '["egg"]', 2 / 3),
        ('["milk", "egg"]', '["egg", "milk"]', 1.0),
        ('["egg", "egg"]', '["egg"]', 2 / 3),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 1.0),
        ('{"a": 1, "b": 3}', '{"a": 1, "b": 2}', 0.5),
        ('{"a": {"b": [1, 2]}}', '{"a": {"b": [2, 5]}}', 0.5),
        ('{"a": 1}', '{"b": 1}', 0.0),
        ("[]", "[]", 1.0),
        ("[]", '["egg"]', 0.0),
        ("no JSON", '["egg"]', 0.0),
        ('{"a": 1.0}', '{"a": "1.0"}', 0.0),
    ],
)
def test_field_f1(answer: str, expected: str, f1: float) -> None:
    assert scores.field_f1(answer, expected) == pytest.approx(f1)


def test_macro_f1_and_confusion() -> None:
    """a: 2 said, 1 wanted, 1 hit: 2/3. b: 1 said, 2 wanted, 1 hit: 2/3. c: never said: 0."""
    answers, expected = ["a", "A.", "b", "hm"], ["a", "b", "b", "c"]
    assert scores.macro_f1(answers, expected) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert scores.confusion(answers, expected) == {
        "a": {"a": 1},
        "b": {"a": 1, "b": 1},
        "c": {scores.OTHER: 1},
    }


def test_free_text_agrees_with_the_libraries() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_chrf

    a, b = "the cat sat on the mat", "a cat sat on a mat"
    found = scores.scored(a, b, "free")
    assert found.right is None
    assert found.parts["chrF"] == pytest.approx(sentence_chrf(a, [b]).score / 100)
    assert found.parts["ROUGE-L"] == pytest.approx(RougeScorer(["rougeL"]).score(b, a)["rougeL"].fmeasure)
    assert found.parts["ROUGE-L"] == pytest.approx(4 / 6)  # cat sat on mat: 4 of 6 words on both sides


def test_sums_are_means_and_what_is_missing_counts_as_nothing() -> None:
    said = [scores.scored(text, '["a"]', "json") for text in ('["a"]', '["b"]', "oops", '["a","b"]')]
    assert scores.summed(said) == pytest.approx(
        {"right": 0.25, "valid": 0.75, "field F1": (1 + 0 + 0 + 2 / 3) / 4, "exact match": 0.25}
    )
    labels = [scores.scored(text, "billing", "label") for text in ("Billing.", "login")]
    assert scores.summed(labels) == {"right": 0.5}
    assert scores.summed([]) == {}


def test_json_is_held_to_a_schema() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    assert scores.scored('["egg"]', '["milk"]', "json", schema).parts["conforms to the schema"] == 1.0
    assert scores.scored("[1]", '["milk"]', "json", schema).parts["conforms to the schema"] == 0.0
    assert scores.scored("[", '["milk"]', "json", schema).parts["conforms to the schema"] == 0.0
    assert "conforms to the schema" not in scores.scored('["egg"]', '["milk"]', "json").parts
    scores.refuse_schema(schema, "json")
    for wrong, kind in (({"type": "nonsense"}, "json"), ([], "json"), (schema, "label")):
        with pytest.raises(ConfigError):
            scores.refuse_schema(wrong, kind)
    with pytest.raises(ConfigError, match="not fetched"):
        scores.scored("[]", "[]", "json", {"$ref": "https://example.com/schema.json"})


def test_nothing_a_schema_points_to_is_fetched_or_read(tmp_path: Path) -> None:
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "x.json").write_text("{}")
    for place in (f"http://127.0.0.1:{server.server_port}/x.json", (tmp_path / "x.json").as_uri()):
        with pytest.raises(ConfigError, match="not fetched"):
            scores.keeps("[]", {"$ref": place})
    server.shutdown()
    assert asked == []


@pytest.mark.parametrize("schema", [{"$schema": []}, {"$schema": 5}, {"type": 3}, 7, None, []])
def test_what_is_no_schema_is_refused(schema: object) -> None:
    with pytest.raises(ConfigError, match="not a JSON Schema"):
        scores.refuse_schema(schema, "json")


def test_numbers_beyond_floats_keep_to_nothing() -> None:
    assert not scores.keeps("1e400", {"multipleOf": 0.1})


@pytest.mark.parametrize("text", ["Привет, мир", "你好世界", "Ça va, élève ?", "नमस्ते दुनिया", "שלום עולם"])
def test_in_every_script_the_same_is_the_same(text: str) -> None:
    assert scores.scored(text, text, "free").parts == {"chrF": 1.0, "ROUGE-L": 1.0, "exact match": 1.0}


@pytest.mark.parametrize(("one", "other"), [("का", "के"), ("किताब", "कुताब"), ("ไม่", "ไม้"), ("cafe\u0301", "cafe\u0300")])
def test_marks_tell_words_apart(one: str, other: str) -> None:
    assert scores.rouge_l(one, other) == 0.0


@pytest.mark.parametrize("between", [" ", ",", "_"])
def test_rouge_looks_at_the_first_words(between: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table has a cell for every pair of words: fifty thousand on either side would fill any memory."""
    from rouge_score import rouge_scorer

    whole = rouge_scorer._lcs_table

    def bounded(*words: list[str]) -> list[list[int]]:
        assert [len(one) for one in words] == [scores.MOST_WORDS] * 2
        return whole(*words)

    monkeypatch.setattr(rouge_scorer, "_lcs_table", bounded)
    same, other = (between.join(f"{letter}{i}" for i in range(50_000)) for letter in "ab")
    assert scores.scored(same, same, "free").parts["ROUGE-L"] == 1.0
    assert scores.scored(same, other, "free").parts["ROUGE-L"] == 0.0


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"k" * 50_000: list(range(8_000))}),  # every field's path holds the key
        '{"a":' * 300 + json.dumps(list(range(15_000))) + "}" * 300,  # laid out, every line is indented by 600
    ],
)
def test_scoring_json_takes_no_more_than_a_multiple_of_it(text: str) -> None:
    scores.scored("{}", "{}", "json")
    tracemalloc.start()
    try:
        assert scores.scored(text, text, "json") == scores.Scored(
            True, {"valid": 1.0, "field F1": 1.0, "exact match": 1.0}
        )
        assert tracemalloc.get_traced_memory()[1] < 120 * len(text)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "answer", "expected", "exact"),
    [
        ("json", '["egg"]', '["egg"]', 1.0),
        ("json", '[ "egg" ]', '["egg"]', 0.0),
        ("sql", "SELECT a FROM t", "select a  from t", 1.0),
        ("sql", "SELECT a FROM t -- all", "SELECT a FROM t", 0.0),
        ("number", "1,000", "1000", 0.0),
        ("number", "1000.", "1000", 1.0),
        ("free", "As you wish.", "as you wish", 1.0),
        ("free", "As you like.", "as you wish", 0.0),
    ],
)
def test_every_kind_says_how_many_are_the_same_text(kind: str, answer: str, expected: str, exact: float) -> None:
    assert scores.scored(answer, expected, kind).parts["exact match"] == exact
