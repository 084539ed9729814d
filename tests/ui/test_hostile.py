"""Every function that draws: whatever people, files or models wrote comes out as text, never as a tag or attribute."""

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune import data, models
from finetune.board import Board, Row
from finetune.chat import Reply
from finetune.chat.talk import Column, Talk, Turn
from finetune.chat.votes import Vote
from finetune.data.preview import Segment
from finetune.data.tokens import Bin, Quantiles
from finetune.errors import ModelError
from finetune.evaluate.findings import ArmAnswer, Judged, Report
from finetune.evaluate.worksheet import Advice, Item, Sheet
from finetune.export import parity
from finetune.export.formats import FORMATS
from finetune.export.make import Exported
from finetune.people import Person
from finetune.store import DatasetRecord, Facts, Run
from finetune.train import Progress, progress
from finetune.train.events import Answer, Noted, Samples
from finetune.ui import chart, html, status
from finetune.ui.chat import blind, compare
from finetune.ui.data import edit, library, mapping, report, rows, versions
from finetune.ui.export import cards
from finetune.ui.results import verdict
from finetune.ui.train import chosen, live, measured, runs
from finetune.ui.worksheet import view
from finetune.ui.workshop import board as room
from finetune.ui.workshop import tab as workshop
from tests.train.events import RUN, evaluation, series, step
from tests.ui.payloads import PAYLOADS

HOSTILE = '<script>alert(1)</script><img src=x onerror=alert(2)>\'"=HYPERLINK("x")\u202etxt.exe\x00'

TAGS = """
a article b bdi br button code dd del details div dl dt em figcaption figure h4 h5 header i ins li mark nav ol option p
path pre section select small span strong summary svg table tbody td th thead title tr u ul
"""
ATTRIBUTES = """
aria-busy aria-checked aria-current aria-hidden aria-label aria-pressed class d data-code data-dataset data-do
data-from data-id data-label data-row data-run data-tab data-text dir height
href preserveaspectratio rel role scope selected style tabindex target title type value viewbox
"""


BOXES = re.compile("<textarea[^>]*>\n([^<]*)</textarea>")
"""The boxes of a form, whose texts are as they are."""

COPIED = re.compile("data-text='[^']*'")
"""What the Copy button copies: the answer as it is."""


class Tags(HTMLParser):
    """Collects every tag and attribute of a piece of HTML."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            self.attributes.setdefault(name, set()).add(value or "")


def ours(html: str) -> bool:
    """Whether there is nothing in it but what the app itself writes, and no invisible character."""
    found = Tags(html)
    links = found.attributes.get("href", set())
    return (
        all(re.search(rf"\s{re.escape(tag)}\s", TAGS) for tag in found.tags)
        and all(re.search(rf"\s{re.escape(name)}\s", ATTRIBUTES) for name in found.attributes)
        and all(link.startswith("https://") for link in links)
        and not any(mark in COPIED.sub("", html) for mark in "\u202e\x00")
    )


def a_dataset(evil: str) -> data.Dataset:
    tool = {"type": "function", "function": {"name": evil, "parameters": {}}}
    asked = [{"role": role, "content": evil} for role in ("system", "user")]
    answer = {"role": "assistant", "content": evil, "tool_calls": [{"function": {"name": evil}}]}
    example = data.Example((*asked, answer), 3, tools=(tool,))
    problem = data.Problem("x", "warning", 9, tuple(range(9)), evil, evil)
    return data.Dataset(
        name=evil,
        path=Path("rows.jsonl"),
        format=evil,
        examples=(example,),
        rejected=(data.Rejected(2, "bad", evil, evil),),
        problems=[problem] * 10,
        columns=(evil,),
        mapping=data.Mapping("{a}", "{b}"),
        applied=(evil,),
    )


def a_record(evil: str) -> DatasetRecord:
    return DatasetRecord("d1", "local", evil, 0.0, "folder", Facts())


def a_run(evil: str) -> Run:
    return replace(RUN, name=evil, reason=evil, state="failed", config={"model": evil})


def a_progress(evil: str) -> Progress:
    answer = Answer(prompt=evil, expected=evil, text=evil)
    parts = [evaluation(0), step(1), *(Samples(step=at, answers=[answer] * 5) for at in (0, 1))]
    return progress(a_run(evil), series(*parts, Noted(code="x", text=evil)))


def a_turn(evil: str) -> Turn:
    return Turn(evil, (Reply(evil, 3, (1, 2), 1.0, 0.5, "end_of_turn"), Reply(f"{evil}x", stop="length")), evil)


def a_talk(evil: str) -> Talk:
    columns = (Column("base", evil), Column("tuned", evil, a_run(evil)))
    return Talk(a_run(evil), columns, evil).answered(evil, a_turn(evil).replies, evil, SimpleNamespace())


def an_evaluation(evil: str) -> Report:
    arm = {"score": 0.8, "ci": [0.7, 0.9], "correct": 8, "parts": {evil: 0.8}, "loss": 0.1, "perplexity": 1.1}
    arm |= {"prompt_tokens": 58.0, "seconds": 0.4, "confusion": {evil: {evil: 1, f"{evil}x": 2}}}
    answer = {"prompt": evil, "base": evil, "tuned": evil}
    lost = {"base_loss": 2.1, "tuned_loss": 2.4, "ci": [0.2, 0.4], "n": 64, "said": "worse", "answers": [answer]}
    found = {"run": None, "model": evil, "n": 100, "excluded": 2, "left_out": 3, "kind": "label", "metric": "accuracy"}
    found |= {"arms": {"base": arm, "tuned": arm}, "verdict": {"code": "helped", "sentence": evil}}
    return Report(**found, difference=None, forgetting=lost)


def an_export(evil: str) -> Exported:
    found = parity.compare([("a", True)] * 9, [("b", True)] * 9, ["a"] * 9, [evil] * 9, "label")
    return Exported("adapter", Path(evil.replace("/", "|")), 1, "0", replace(found, problem=evil))


def a_row_of_the_room(evil: str) -> dict[str, object]:
    return {"run": "r1", "who": evil, "name": evil, "state": "running", "word": evil, "verdict": evil, "ready": True}


def a_board(evil: str) -> Board:
    line = Row(evil, "r1", evil, "running", evil, 1, 2, 3.0, None, 4.0, (1.0, 0.5), evil, "helped", True)
    return Board([Person("0" * 32, evil, 0.0)], [line], 9.0, True, 30.0, False)


def a_row(evil: str) -> Judged:
    return Judged(prompt=evil, expected=evil, arms={"tuned": ArmAnswer(text=evil, right=True, loss=0.1)})


def a_sheet(evil: str) -> Sheet:
    items = (Item("Group", "Title", evil, words=("LoRA",)), Item("Group", "Other", None, evil))
    return Sheet(items, Advice("x", evil, (evil,)))


def a_fix(evil: str) -> data.Fix:
    return data.Fix("x", "Title", 1, f"assistant:  {evil}", f"assistant: \n{evil}")


def a_problem(evil: str) -> data.Problem:
    return data.Problem(evil, "warning", 3, (1,), evil, evil)


def a_blind_test(evil: str) -> blind.Blind:
    return blind.Blind(a_talk(evil), (evil, evil))


def a_vote(evil: str) -> Vote:
    messages = [{"role": "user", "content": evil}]
    return Vote(choice="base", left="base", messages=messages, base=evil, tuned=evil, at=0.0)


def some_stats(evil: str) -> data.TokenStats:
    some = Quantiles(1, 2, 3, 4, 5)
    labels = {f"{evil}{place}": place + 1 for place in range(12)}
    return data.TokenStats(
        9,
        9,
        4,
        some,
        some,
        None,
        (Bin(1, 3, 5), Bin(3, 6, 4)),
        3.0,
        5,
        0.5,
        labels,
        (),
        data.WillTrain(9, 9, 1, 9, 40, 10, False),
    )


Drawing = Callable[[str], str]
DRAWN: dict[str, Drawing] = {
    "chart.draw": lambda evil: chart.draw(evil, [chart.Line(evil, [(0, 1.0), (5, 2.0)], "#fff", dots=True)] * 2),
    "blind.question": lambda evil: blind.question(a_blind_test(evil), a_turn(evil).replies),
    "blind.revealed": lambda evil: blind.revealed([a_vote(evil)], "Yours"),
    "compare.talk": lambda evil: compare.talk(a_talk(evil), "free"),
    **{
        f"compare.turn {kind}": lambda evil, kind=kind: compare.turn(a_turn(evil), a_talk(evil).columns, kind)
        for kind in ("free", "json", "sql", "label")
    },
    "compare.difference": lambda evil: compare.difference(evil, f"so {evil}!"),
    "library.question": lambda evil: library.question(a_record(evil), []),
    "library.question of runs": lambda evil: library.question(a_record(evil), [replace(a_run(evil), state="running")]),
    "library.question of ended runs": lambda evil: library.question(a_record(evil), [a_run(evil)]),
    "mapping.named": lambda evil: mapping.named([evil] * 50, data.Mapping("a", "b")),
    "rows.as_chat": lambda evil: rows.as_chat(a_dataset(evil).examples[0]),
    "rows.not_found": lambda evil: rows._said(rows._not_found(a_dataset(evil), evil))["value"],
    "rows.not_found rejected": lambda evil: rows._said(rows._not_found(a_dataset(evil), "line 2"))["value"],
    "edit.draft": lambda evil: edit.TEMPLATES.draft(data.Counts(edited=1, replaced=[(evil, evil, 2)])),
    "edit.problems": lambda evil: edit.TEMPLATES.problems([a_problem(evil)], evil),
    "edit.walking": lambda evil: edit.TEMPLATES.walking(a_problem(evil), 3, False),
    "edit.preview": lambda evil: edit.TEMPLATES.preview({"rows": 1, "kept": 2, "first": [(1, evil, evil)]}),
    "edit.comparison": lambda evil: edit.TEMPLATES.comparison(
        1, 2, {"changed": 1, "added": 1, "removed": 0}, [("changed", 1, evil, evil), ("added", 2, "", evil)], 1, 2, 2
    ),
    "versions.history": lambda evil: versions.history(
        [replace(a_record(evil), author=evil, version=2, facts=Facts(edited={"replaced": [[evil, evil, 1]]}))], "", []
    ),
    "report.summary": lambda evil: report.summary(
        replace(a_dataset(evil), validation=a_dataset(evil)), data.Split("ratio", 5, 4, seed=0, groups=2)
    ),
    "report.problems": lambda evil: report.problems(a_dataset(evil).problems),
    "report.first_rows": lambda evil: report.first_rows(a_dataset(evil)),
    "report.rejected": lambda evil: report.rejected(a_dataset(evil)),
    "report.refused": report.refused,
    "report.fix": lambda evil: report.fix(a_fix(evil)),
    "report.fix dropped": lambda evil: report.fix(replace(a_fix(evil), after="")),
    "report.numbers": lambda evil: report.numbers(some_stats(evil), evil, report.estimate(9, 3, 20.0)),
    "cards.row": lambda evil: cards.row(
        FORMATS[0], an_export(evil).as_dict() | {"rows": [{"prompt": evil, "before": evil, "after": evil}]}
    ),
    "cards.named": lambda evil: cards.named(a_run(evil)),
    "cards.working": lambda evil: cards.working(evil, cards.named(a_run(evil))),
    "cards.failed": lambda evil: cards.failed(evil, run=cards.named(a_run(evil))),
    "cards.done": lambda evil: cards.done(an_export(evil)),
    "cards.pushed": lambda evil: cards.pushed(f"https://hub/{evil}"),
    "cards.imported": lambda evil: cards.imported(a_run(evil)),
    "worksheet.draw": lambda evil: view.draw(a_sheet(evil)),
    "html.failed": html.failed,
    "html.card": lambda evil: html.card(evil, evil),
    "html.masked": html.masked,
    "verdict.verdict": lambda evil: verdict.verdict(an_evaluation(evil)),
    "verdict.arms": lambda evil: verdict.arms(an_evaluation(evil)),
    "verdict.forgetting": lambda evil: verdict.forgetting(an_evaluation(evil)),
    "verdict.rows": lambda evil: verdict.rows([a_row(evil)] * 12, "all"),
    "measured.card": lambda evil: measured.card(a_run(evil), a_progress(evil), evil),
    "measured.notes": lambda evil: measured.notes(a_progress(evil)),
    "measured.answers": lambda evil: measured.answers(a_progress(evil)),
    "chosen.chip": lambda evil: chosen.TEMPLATES.chip("Data", evil, [evil, evil], evil),
    "status.line": lambda evil: status.TEMPLATES.line(a_record(evil), evil, a_run(evil), evil, evil, 3),
    "run.differences": lambda evil: measured.TEMPLATES.differences([evil, evil], [(evil, [evil, evil])]),
    "workshop.welcome": lambda evil: workshop.TEMPLATES.welcome(evil, evil, evil, True),
    "workshop.shown": lambda evil: workshop.TEMPLATES.shown([a_row_of_the_room(evil)]),
    "workshop.board": lambda evil: room.drawn(a_board(evil), [evil]),
    "live.watching": live.watching,
    "runs.table": lambda evil: runs.table([(a_run(evil), evil, (1, 1.0)), (a_run(evil), evil, None)], ["r1"], 100.0),
}


@pytest.mark.parametrize("name", DRAWN)
def test_whatever_was_written_stays_text(name: str) -> None:
    for evil in (HOSTILE, *PAYLOADS):
        drawn = DRAWN[name](evil)
        assert ours(drawn), drawn
        assert drawn != DRAWN[name]("harmless"), "it shows what it is given"


def test_a_row_in_its_form_stays_text_and_is_not_changed() -> None:
    for evil in (HOSTILE, *PAYLOADS):
        form = edit._form("d1", data.Edited(a_dataset(evil).examples, []), 0, "")["value"]
        [shown, *_] = BOXES.findall(form)
        assert unescape(shown) == evil, "what one does not touch is kept as it is, also what cannot be seen"
        assert ours(BOXES.sub("", form))
        assert "<" not in shown


def test_a_row_as_trained_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load_tokenizer", lambda _: None)
    monkeypatch.setattr(models, "find", lambda _: None)
    kinds = ("text", "special", "cut")
    for evil in (HOSTILE, *PAYLOADS):
        segments = [Segment(evil, kind, (1, 2), trained) for kind in kinds for trained in (True, False)]
        monkeypatch.setattr(data, "preview", lambda *_, segments=segments: segments)
        assert ours(rows.as_trained(a_dataset(evil).examples[0], "m"))


def test_what_a_model_is_found_as_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str, say: Callable[[str], None]) -> None:
        say(HOSTILE)
        raise ModelError(HOSTILE)

    monkeypatch.setattr(models, "load_tokenizer", lambda _: None)
    for find in (lambda _, say: say(HOSTILE) or SimpleNamespace(sentence=HOSTILE), fails):
        monkeypatch.setattr(models, "find", find)
        assert all(map(ours, chosen.locate(HOSTILE)))
