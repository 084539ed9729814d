"""What the page shows of preferences: both answers with their masks, and curves that are called what they are."""

from pathlib import Path
from typing import Any

import pytest

from finetune import data
from finetune.train.events import RowsRead
from finetune.train.progress import progress
from finetune.ui.data.rows import as_chat, as_trained, found
from finetune.ui.train import measured
from tests.train.events import RUN, evaluation, series, step

ASKED = {"role": "user", "content": "Where do puffins nest?"}
GOOD, BAD = ({"role": "assistant", "content": said} for said in ("In burrows.", "At <b>sea</b>."))
PAIR = data.Example((ASKED, GOOD), 3, worse=BAD)


def test_a_pair_is_shown_with_both_answers(tiny: Path) -> None:
    shown = as_chat(PAIR)
    assert shown.count("ba-bubble") == 3
    assert shown.count("ba-bubble ba-after") == 1
    assert "the better answer" in shown
    assert "the worse answer" in shown
    assert "At &lt;b&gt;sea" in shown
    trained = as_trained(PAIR, str(tiny))
    better, worse = trained.index("As trained: the better answer"), trained.index("As trained: the worse answer")
    assert better < trained.index("In burrows.") < worse < trained.index("sea")
    assert trained.count("puffins") == 2
    assert found([PAIR], "sea", 0) == 0, "the worse answer is found, too"


@pytest.mark.parametrize(("good", "said"), [(True, "marked as good"), (False, "marked as bad")])
def test_a_rated_answer_is_shown_with_its_mark(tiny: Path, good: bool, said: str) -> None:
    rated = data.Example(PAIR.messages, 1, good=good)
    assert said in as_chat(rated)
    assert ("ba-bubble ba-after" in as_chat(rated)) == good
    assert as_trained(rated, str(tiny)).count("As trained") == 1


def test_an_ordinary_row_is_shown_as_before() -> None:
    shown = as_chat(data.Example(PAIR.messages, 1))
    assert "marked" not in shown
    assert "better" not in shown


@pytest.mark.parametrize(
    ("teach", "title", "unit"),
    [("pairs", "Preference loss, DPO", "nats per pair"), ("ratings", "Preference loss, KTO", "per answer")],
)
def test_curves_of_preferences_say_what_they_are(teach: Any, title: str, unit: str) -> None:
    moved = [evaluation(0, 0.693).model_copy(update={"ranked": 0.5}), step(1), evaluation(1, 0.4)]
    events = series(RowsRead(tokens=10, teach=teach), *moved[:2], moved[2].model_copy(update={"ranked": 0.75}))
    view = progress(RUN, events)
    shown = measured.loss(view)
    assert title in shown
    assert unit in shown
    assert "ranked right (50 % at the start)" in shown
    assert "75%" in measured.card(RUN, view, "d")
    plain = progress(RUN, events[2:3])
    assert "Preference" not in measured.loss(plain)
