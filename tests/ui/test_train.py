"""The Train tab's form: presets, YAML in and out, the command beside it."""

from pathlib import Path

import gradio as gr
import pytest

from finetune import data, models, train
from finetune.chat import Engine
from finetune.services import Services, known
from finetune.store import Store
from finetune.ui.train import tab as tab


@pytest.fixture
def page(store: Store) -> tab.TrainTab:
    with gr.Blocks():
        return tab.TrainTab(Services(store, Engine()), gr.BrowserState(None), gr.BrowserState(None))


def test_what_is_drawn_are_the_defaults(page: tab.TrainTab) -> None:
    drawn = {name: component.value for name, component in page.inputs.items()}
    assert train.TrainConfig.parse(drawn) == train.TrainConfig()


def test_a_preset_fills_the_form_and_leaves_the_model(page: tab.TrainTab) -> None:
    filled = page._start_from("thorough", "owner/mine", None, None)
    config = train.TrainConfig.parse({name: filled[component] for name, component in page.inputs.items()})
    assert config == train.TrainConfig.parse({**train.preset("thorough").values, "model": "owner/mine"})
    kept = page._keep(filled)
    assert kept[page.kept] == config.changed()
    assert kept[page.cards.preset]["value"] == "thorough"


def test_the_command_and_the_yaml_follow_the_form(page: tab.TrainTab, tmp_path: Path) -> None:
    config = train.TrainConfig(epochs=4, model="owner/my model", max_steps=7)
    command, yaml = page.elsewhere._write(page.fill(config) | {page.parent: None})
    assert command == "python -m finetune train DATA --set 'model=owner/my model' epochs=4 max_steps=7"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml)
    filled = page.elsewhere._load(str(path))
    assert train.TrainConfig.parse({name: filled[component] for name, component in page.inputs.items()}) == config


def test_what_is_wrong_is_said_in_place_of_the_command(page: tab.TrainTab) -> None:
    values = page.fill(train.TrainConfig()) | {page.inputs["max_steps"]: "many", page.parent: None}
    command, _ = page.elsewhere._write(values)
    assert command.startswith("# max_steps: 'many' is not allowed")


@pytest.mark.parametrize(
    ("text", "said"), [("rr: 3", "Did you mean &#39;r&#39;"), ("- 1", "contains no settings"), ("r: [", "cannot")]
)
def test_a_wrong_yaml_changes_nothing_and_says_why(page: tab.TrainTab, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(gr.Error, match=said):
        page.elsewhere._load(str(path))


def test_numbers_have_the_bounds_of_their_setting(page: tab.TrainTab) -> None:
    assert (page.inputs["r"].minimum, page.inputs["r"].maximum) == (1, 512)
    assert (page.inputs["samples"].minimum, page.inputs["samples"].maximum) == (0, 5)


def test_why_no_run_is_queued_stays_beside_the_form(page: tab.TrainTab, store: Store, tiny: Path) -> None:
    dataset = data.save_dataset(store, data.load("sample_data/recipes"))
    state = known(None) | {"dataset": dataset.id}

    def press(layers: str) -> dict:
        filled = page.fill(train.TrainConfig(model=str(tiny))) | {page.inputs["target_modules"]: layers}
        return page._begin(filled | {page.browser: state, page.parent: None})

    for layers in ("embed_tokens", "zzz", "<img>"):
        changes = press(layers)
        assert set(changes) == {page.refused}
        assert "target_modules: " in changes[page.refused]
        assert "<img>" not in changes[page.refused]
    assert store.runs() == []
    changes = press("all-linear")
    assert (changes[page.run]["value"], changes[page.refused]) == (store.runs()[0].id, "")


def test_what_is_typed_is_there_after_a_reload(page: tab.TrainTab) -> None:
    typed = train.TrainConfig(model="owner/mine", max_steps=7)
    kept = page._keep(page.fill(typed))
    assert kept[page.cards.preset]["value"] is None, "the settings are those of no card"
    assert kept[page.refused] == "", "what was said of earlier settings goes"
    restored = page.restore(kept[page.kept])
    assert train.TrainConfig.parse({name: restored[one] for name, one in page.inputs.items()}) == typed
    assert restored[page.cards.preset]["value"] is None
    assert page.restore(None) == gr.skip()
    assert page.restore({"of_a_later_version": 1}) == gr.skip()


def test_half_a_number_is_not_kept(page: tab.TrainTab) -> None:
    assert page._keep(page.fill(train.TrainConfig()) | {page.inputs["max_steps"]: "1e"}) == gr.skip()


def draw(page: tab.TrainTab, dataset: str | None, model: str = models.DEFAULT) -> dict:
    state = known(None) | {"dataset": dataset}
    drawn = {page.browser: state, page.model: model, page.inputs["held_out"]: 0.15, page.inputs["seed"]: 0}
    return page.chosen._draw(drawn)


def test_data_and_model_are_named_at_the_top(page: tab.TrainTab, store: Store) -> None:
    empty = draw(page, None)
    assert (empty[page.chosen.empty]["visible"], empty[page.ready]["visible"]) == (True, False)
    drawn = draw(page, data.save_dataset(store, data.load("sample_data/recipes")).id)
    assert (drawn[page.chosen.empty]["visible"], drawn[page.ready]["visible"]) == (False, True)
    for said in ("recipes", "225 examples to learn from", "73 held out"):
        assert said in drawn[page.chosen.data]
    assert "135 million parameters" in drawn[page.chosen.copy]
    assert "Apache-2.0" in drawn[page.chosen.copy]
    assert drawn[page.refused] == drawn[page.plan.answer] == "", "what was said of an earlier choice goes"


def test_another_models_name_says_nothing_of_the_one_before(page: tab.TrainTab, tmp_path: Path) -> None:
    said = draw(page, None, "owner/<b>unknown")[page.chosen.copy]
    assert "neither a local folder nor a Hub id" in said
    assert "<b>unknown" not in said
    said = draw(page, None, "owner/unknown")[page.chosen.copy]
    assert "not on this machine yet" in said
    assert "read its licence" in said


def test_too_few_rows_are_said_before_training(page: tab.TrainTab, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "few.csv"
    file.write_text(
        "prompt,completion\n" + "\n".join(f"What is {i} and {i * i}?,It is {i + i * i}." for i in range(60))
    )
    drawn = draw(page, data.save_dataset(store, data.load(file)).id)
    assert "Only 9 rows are held out, and a verdict needs 20: bring about 70 more rows" in drawn[page.chosen.data]


def test_an_ended_run_makes_room_for_the_next(page: tab.TrainTab, store: Store, small_dataset: data.Dataset) -> None:
    run = train.start(store, train.TrainConfig(), data.save_dataset(store, small_dataset))
    assert page.make_room(run.id, None) == gr.skip(), "it goes on: it stays in view"
    train.stop(store, run.id)
    assert page.make_room(run.id, None) is None


def test_a_run_in_view_folds_the_form_away_but_keeps_it_mounted() -> None:
    """Unmounted inputs notice nothing: settings copied from a run would be neither kept nor those of a card."""
    form, button = tab._folded("r1")
    assert (form["elem_classes"], button["visible"]) == (["ba-folded"], True)
    form, button = tab._folded(None)
    assert (form["elem_classes"], button["visible"]) == ([], False)
