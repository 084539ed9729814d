"""llama.cpp in place of PyTorch: the same answers, only where it may answer, and nothing is lost when it fails."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune import data, models, settings, train
from finetune.chat import Ask, Engine, Reply, Sampling
from finetune.chat import llama as llamacpp
from finetune.errors import ConfigError, ModelError, RunError
from finetune.export import chat_engine
from finetune.export.chat_engine import LlamaCpp
from finetune.store import Run, Store
from tests.export.tiny_models import adapted_run

SHORT = Sampling(max_tokens=8)
LONG = Sampling(max_tokens=100)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model's tokens are nearly tied, and after the first other one nothing is the same."""
    monkeypatch.setattr(chat_engine, "PROBE_TOKENS", SHORT.max_tokens)


@pytest.fixture(scope="module")
def model(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model, saying printable characters only: llama.cpp holds broken ones back, PyTorch shows them."""
    folder = tmp_path_factory.mktemp("printable")
    tokenizer = models.load_tokenizer(models.find(str(tiny)))
    changed = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        for token in range(len(tokenizer)):
            text = tokenizer.decode([token])
            if not (text.isascii() and text.isprintable()) or token < 3:
                changed.get_input_embeddings().weight[token] *= 0.01
    changed.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run(store: Store, model: str, small_dataset: data.Dataset) -> Run:
    return adapted_run(store, Path(model), data.save_dataset(store, small_dataset))


@pytest.fixture
def llama(store: Store) -> Iterator[LlamaCpp]:
    llama = LlamaCpp(store)
    yield llama
    llama.close()


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def last(engine: Engine, asks: list[Ask], model: str, sampling: Sampling = SHORT) -> list[Reply]:
    return list(engine.stream(asks, model, sampling))[-1]


def test_after_the_check_its_answers_are_pytorchs(llama: LlamaCpp, run: Run, model: str) -> None:
    engine = Engine(llama)
    checked = llama.prepare(run, engine)
    assert checked.status in ("green", "amber")
    assert checked.n == 2 * len(train.rows_of_run(llama.store, run)[1])
    differ = False
    for question in ("What is 3 plus 3?", "Hello", "longer " * 20):
        asks = [Ask(ask(question)), Ask(ask(question), run), Ask(ask(question + "!"), run)]
        quick, exact = last(engine, asks, model), engine.answer(asks, model, SHORT)
        assert [reply.by for reply in quick] == [checked.sentence] * 3
        assert [reply.by for reply in exact] == [""] * 3
        facts = [[(one.text, one.tokens, one.stop, one.prompt) for one in replies] for replies in (quick, exact)]
        assert facts[0] == facts[1]
        differ = differ or quick[0].text != quick[1].text
    assert differ, "the adapter was there"


def test_what_it_may_not_answer_is_pytorchs(llama: LlamaCpp, run: Run, model: str) -> None:
    engine = Engine(llama)
    llama.prepare(run, engine)
    both = [Ask(ask("Hi")), Ask(ask("Hi"), run)]
    assert last(engine, both, model)[0].by
    assert not last(engine, both, model, Sampling(max_tokens=8, temperature=1.0))[0].by
    assert not last(engine, both, model, Sampling(max_tokens=8, repetition_penalty=1.2))[0].by
    assert not last(engine, [Ask(ask("Hi"), run, strength=0.5)], model)[0].by
    assert not last(engine, both * 3, model)[0].by
    assert not last(engine, both[:1], model)[0].by


def test_a_stop_is_heard_and_the_next_answer_is_whole(llama: LlamaCpp, run: Run, model: str) -> None:
    engine, stop = Engine(llama), threading.Event()
    llama.prepare(run, engine)
    asks, whole = [Ask(ask("Hello")), Ask(ask("Hello"), run)], LONG
    replies: list[Reply] = []
    for replies in engine.stream(asks, model, whole, stop):
        if sum(reply.tokens for reply in replies) > 2:
            stop.set()
    assert "stopped" in [reply.stop for reply in replies]
    assert [one.text for one in last(engine, asks, model)] == [one.text for one in engine.answer(asks, model, SHORT)]


def test_when_its_process_dies_pytorch_answers(llama: LlamaCpp, run: Run, model: str) -> None:
    engine, asks = Engine(llama), [Ask(ask("Hello")), Ask(ask("Hello"), run)]
    llama.prepare(run, engine)
    stream = engine.stream(asks, model, LONG)
    assert next(stream)[0].by
    llama._ready[run.id].tuned.close()
    replies = list(stream)[-1]
    assert [reply.by for reply in replies] == ["", ""]
    assert [one.text for one in replies] == [one.text for one in engine.answer(asks, model, LONG)]
    assert not last(engine, asks, model)[0].by
    assert llama._learning is None


def test_a_first_answer_makes_it_learn_what_is_kept(llama: LlamaCpp, run: Run, model: str) -> None:
    engine, asks = Engine(llama), [Ask(ask("Hello")), Ask(ask("Hello"), run)]
    assert not last(engine, asks, model)[0].by
    assert llama._learning is not None
    llama._learning.join(120)
    said = last(engine, asks, model)[0].by
    assert said
    again = LlamaCpp(llama.store)
    notes = {file: file.stat().st_mtime_ns for file in (train.run_folder(run.id) / "llama").iterdir()}
    assert again.prepare(run, engine).sentence == said
    assert {file: file.stat().st_mtime_ns for file in notes} == notes
    again.close()


def test_new_weights_are_pytorchs_until_the_check(llama: LlamaCpp, run: Run, model: str) -> None:
    engine, asks = Engine(llama), [Ask(ask("Hello"), run)]
    llama.prepare(run, engine)
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    weights.touch()
    assert not last(engine, asks, model)[0].by
    assert llama._learning is not None
    llama._learning.join(120)
    assert last(engine, asks, model)[0].by


def test_an_adapter_that_it_cannot_express_stays_with_pytorch(llama: LlamaCpp, tiny: Path) -> None:
    run = adapted_run(llama.store, tiny, use_dora=True)
    with pytest.raises(RunError, match="more than a plain LoRA"):
        llama.prepare(run, Engine(llama))
    assert not llama._ready


def test_it_is_off_unless_it_is_wanted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUNE_CHAT_ENGINE", raising=False)
    assert chat_engine.of_settings(store) is None
    monkeypatch.setenv("FINETUNE_CHAT_ENGINE", "AUTO")
    assert isinstance(chat_engine.of_settings(store), LlamaCpp)
    monkeypatch.setenv("FINETUNE_CHAT_ENGINE", "vllm")
    with pytest.raises(ConfigError, match="pytorch or auto"):
        settings.read()


def test_a_damaged_file_ends_its_process_alone(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"base\.gguf.*cannot load"):
        llamacpp.Served(tmp_path / "base.gguf")
