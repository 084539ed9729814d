"""The Train tab's form: presets, YAML in and out, the command beside it."""

from pathlib import Path

import gradio as gr
import pytest

from finetune import data, train
from finetune.chat import Engine
from finetune.services import Services, known
from finetune.store import Store
from finetune.ui.train import form
from finetune.ui.train import tab as tab


@pytest.fixture
def page(store: Store) -> tab.TrainTab:
    with gr.Blocks():
        browser, model = gr.BrowserState(None), form.model_input()
        return tab.TrainTab(Services(store, Engine()), browser, model)


def test_what_is_drawn_are_the_defaults(page: tab.TrainTab) -> None:
    drawn = {name: component.value for name, component in page.inputs.items()}
    assert train.TrainConfig.parse(drawn) == train.TrainConfig()


def test_a_preset_fills_the_form_and_leaves_the_model(page: tab.TrainTab) -> None:
    filled = page._start_from("thorough", "owner/mine")
    config = train.TrainConfig.parse({name: filled[component] for name, component in page.inputs.items()})
    assert config == train.TrainConfig.parse({**train.preset("thorough").values, "model": "owner/mine"})
    assert filled[page.preset]["info"] == train.preset("thorough").sentence


def test_the_command_and_the_yaml_follow_the_form(page: tab.TrainTab, tmp_path: Path) -> None:
    config = train.TrainConfig(epochs=2, model="owner/my model", max_steps=7)
    command, yaml = page.elsewhere._write(page.fill(config))
    assert command == "python -m finetune train DATA --set 'model=owner/my model' epochs=2 max_steps=7"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml)
    filled = page.elsewhere._load(str(path))
    assert train.TrainConfig.parse({name: filled[component] for name, component in page.inputs.items()}) == config


def test_what_is_wrong_is_said_in_place_of_the_command(page: tab.TrainTab) -> None:
    values = page.fill(train.TrainConfig()) | {page.inputs["max_steps"]: "many"}
    command, _ = page.elsewhere._write(values)
    assert command.startswith("# max_steps: 'many' is not allowed")


@pytest.mark.parametrize(
    ("text", "said"), [("rr: 3", "Did you mean &#39;r&#39;"), ("- 1", "does not hold settings"), ("r: [", "cannot")]
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
        return page._begin(filled | {page.browser: state})

    for layers in ("embed_tokens", "zzz", "<b>"):
        changes = press(layers)
        assert set(changes) == {page.refused}
        assert "target_modules: " in changes[page.refused]
        assert "<b>" not in changes[page.refused]
    assert store.runs() == []
    changes = press("all-linear")
    assert (changes[page.run]["value"], changes[page.refused]) == (store.runs()[0].id, "")
