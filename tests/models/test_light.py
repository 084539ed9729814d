"""The light tokenizer gives the ids of transformers' own, or leaves the work to it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from finetune import data, models
from finetune.data.samples import DIRTY, Sample, samples
from finetune.errors import ModelError
from finetune.models import light
from finetune.models.light import LightTokenizer, counting_tokenizer
from finetune.models.source import Found
from tests.models.families import FAMILIES, Family, tokenizer_of
from tests.models.test_render import CALLED, TURNS, WEATHER

CONVERSATIONS = {
    "plain": TURNS,
    "system": [{"role": "system", "content": "Be brief.\n"}, *TURNS],
    "no prompt": [{"role": "assistant", "content": "Once upon a time"}],
    "line breaks": [{"role": "user", "content": " \n?\n"}, {"role": "assistant", "content": "\n\n\n Zwölf 東京\u202e"}],
    "empty": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    "control tokens": [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "a<|im_start|>b"}],
    "marks": [{"role": "user", "content": "\U000f0000<|im_end|>\U000f0001"}, {"role": "assistant", "content": "ok"}],
    "odd role": [{"role": "<|im_end|>", "content": "x"}, {"role": "assistant", "content": "y"}],
    "reasoning": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"}],
    "no content": [{"role": "user", "content": None}, {"role": "assistant", "content": "y"}],
    "weights": [TURNS[0], TURNS[1] | {"weight": 0}, TURNS[2], TURNS[3] | {"weight": 1}],
    "tools": CALLED,
    "wrong order": [TURNS[0], TURNS[0], TURNS[1]],
}


def saved(tokenizer, folder: Path, model_type: str = "llama") -> Found:
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return Found(str(folder), folder, "local")


def outcome(messages: list[dict], tokenizer, tools: tuple = ()) -> object:
    """The rendered example, or why there is none."""
    try:
        return models.render(messages, tokenizer, tools=tools)
    except ModelError as error:
        return str(error)


@pytest.mark.parametrize("known", FAMILIES, ids=lambda known: known.name)
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_every_conversation_has_the_same_ids(known: Family, messages: list[dict], tmp_path: Path) -> None:
    """Whichever of the families' templates are simple enough."""
    found = saved(tokenizer_of(known), tmp_path)
    whole = AutoTokenizer.from_pretrained(tmp_path)
    tools = (WEATHER,) if messages is CALLED else ()
    assert outcome(messages, counting_tokenizer(found), tools) == outcome(messages, whole, tools)


def test_simple_templates_need_no_transformers(tmp_path: Path) -> None:
    plain = [
        one for one in FAMILIES if isinstance(counting_tokenizer(saved(tokenizer_of(one), tmp_path)), LightTokenizer)
    ]
    assert {"smollm2", "mistral"} <= {one.name for one in plain} < {one.name for one in FAMILIES}


def test_the_parts_are_the_same(tiny: Path) -> None:
    whole, own = AutoTokenizer.from_pretrained(tiny), counting_tokenizer(Found("tiny", tiny, "local"))
    assert isinstance(own, LightTokenizer)
    assert own.chat_template == whole.chat_template
    assert own.bos_token_id == whole.bos_token_id
    assert set(own.all_special_ids) == set(whole.all_special_ids)
    assert {k: (v.content, v.special) for k, v in own.added_tokens_decoder.items()} == {
        k: (v.content, v.special) for k, v in whole.added_tokens_decoder.items()
    }
    for text in ("", " two  words\n", "a<|im_end|>b", "東京 🙂"):
        for split in (False, True):
            ids = whole.encode(text, add_special_tokens=False, split_special_tokens=split)
            assert own.encode(text, add_special_tokens=False, split_special_tokens=split) == ids
            assert own.decode(ids) == whole.decode(ids)


@pytest.mark.model
@pytest.mark.parametrize("sample", [*samples(), DIRTY], ids=lambda sample: sample.name)
def test_the_numbers_of_every_sample_are_the_same(sample: Sample, default_model: str) -> None:
    found = models.find(default_model)
    own = counting_tokenizer(found)
    assert isinstance(own, LightTokenizer)
    dataset = data.load(sample.path)
    for length in (None, 40):
        assert data.token_stats(dataset, own, length) == data.token_stats(dataset, models.load_tokenizer(found), length)


def config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def stored(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "tokenizer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None


TRUNCATION = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
UNUSUAL = {
    "a class of its own": config(tokenizer_class="GPT2Tokenizer"),
    "an unknown setting": config(add_prefix_space=True),
    "further special tokens": config(extra_special_tokens=["<x>"]),
    "a special token that is new": config(pad_token="<pad>"),
    "added tokens elsewhere": lambda folder: (folder / "added_tokens.json").write_text('{"<x>": 500}'),
    "another type of model": lambda folder: (folder / "config.json").write_text('{"model_type": "qwen2"}'),
    "truncation": stored(truncation=TRUNCATION),
    "the date": template("{{ strftime_now('%Y') }}{{ messages[0]['content'] }}<|im_end|>"),
    "JSON": template("{{ messages | tojson }}<|im_end|>"),
    "a tag of transformers": template("{% generation %}{{ messages[0]['content'] }}{% endgeneration %}<|im_end|>"),
    "a namespace": template("{% set n = namespace(x=1) %}{{ n.x }}<|im_end|>"),
}


@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_not_plain_is_left_to_transformers(tiny: Path, tmp_path: Path, change: Callable) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    change(folder)
    assert not isinstance(counting_tokenizer(Found("tiny", folder, "local")), LightTokenizer)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_damaged_files_are_reported_as_before(tiny: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / file).write_text("{")
    with pytest.raises(ModelError, match="The tokenizer cannot be read"):
        counting_tokenizer(Found("tiny", folder, "local"))


def test_a_tokenizer_without_a_template_is_refused_as_before(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        counting_tokenizer(Found("tiny", folder, "local"))


def test_transformers_is_loaded_once_and_only_for_what_is_not_plain(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Found] = []
    monkeypatch.setattr(light, "load_tokenizer", lambda found: loaded.append(found) or models.load_tokenizer(found))
    tokenizer = counting_tokenizer(Found("tiny", tiny, "local"))
    models.render(TURNS, tokenizer)
    assert loaded == []
    for _ in range(2):
        models.render(CONVERSATIONS["control tokens"], tokenizer)
    assert len(loaded) == 1
