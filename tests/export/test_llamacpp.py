"""The default model in llama.cpp: the same tokens, the same answers, and a broken file shows."""

import shutil
from pathlib import Path

import pytest

from finetune import chat, models
from finetune.export import llamacpp
from finetune.export.gguf import write_gguf, write_gguf_lora
from finetune.export.merged import write_merged
from finetune.export.subject import gather
from finetune.models import packaged
from finetune.store import Store
from tests.export import llama
from tests.export.strings import varied
from tests.export.test_gguf import agree
from tests.export.tiny_models import adapted_run, changed_json, logits, with_adapter

QUESTIONS = ["What is the capital of France?", "Name three colours.", "What is 3 plus 3?"]


@pytest.fixture(scope="module")
def base_gguf(packaged_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(packaged.folder(packaged_models), tmp_path_factory.mktemp("base") / "base.gguf")


@pytest.mark.model
def test_tokens_are_the_default_models(default_model: str, base_gguf: Path) -> None:
    tokenizer = models.load_tokenizer(models.find(default_model))
    texts = varied(2500, seed=1)
    told = llama.tokenize(base_gguf, texts)
    expected = [tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) for text in texts]
    wrong = [(text, a, b) for text, a, b in zip(texts, told, expected, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(texts)}: {wrong[:5]}"


@pytest.mark.model
def test_the_tuned_default_model_is_the_same(default_model: str, base_gguf: Path, store: Store, tmp_path: Path) -> None:
    base = models.find(default_model).folder
    tokenizer = models.load_tokenizer(models.find(default_model))
    run = adapted_run(store, base)
    prompts = [models.prompt_ids([{"role": "user", "content": question}], tokenizer) for question in QUESTIONS]
    tuned = logits(with_adapter(run), prompts)
    merged = write_gguf(write_merged(gather(store, run), tmp_path / "merged"), tmp_path / "merged.gguf")
    agree(llama.next_tokens(merged, prompts), tuned, 0.1)
    lora = write_gguf_lora(gather(store, run), tmp_path / "lora.gguf")
    agree(llama.next_tokens(base_gguf, prompts, lora), tuned, 0.1)
    with pytest.raises(AssertionError):
        agree(llama.next_tokens(base_gguf, prompts), tuned, 0.1)


@pytest.mark.model
def test_a_broken_template_or_end_of_turn_shows(default_model: str, base_gguf: Path, tmp_path: Path) -> None:
    """llama.cpp knows ``<|im_end|>`` by its looks; so an end is only lost with the template that teaches it."""
    folder = tmp_path / "model"
    shutil.copytree(models.find(default_model).folder, folder)
    asked = [[{"role": "user", "content": QUESTIONS[0]}]]
    whole = llamacpp.answers(base_gguf, asked, 40)
    assert whole == [("The capital of France is Paris.", True)]
    assert whole == [
        (reply.text, reply.stop == "end_of_turn") for reply in chat.Engine().answer([chat.Ask(asked[0])], default_model)
    ]
    template = folder / "chat_template.jinja"
    told = template.read_text()
    template.write_text("{% for message in messages %}{{ message['content'] + '<|im_end|>' }}{% endfor %}")
    assert llamacpp.answers(write_gguf(folder, tmp_path / "start.gguf"), asked, 40) != whole
    template.write_text(told)
    words = folder / "tokenizer.json"
    words.write_text(words.read_text().replace("<|im_end|>", "<|no_end|>"))
    template.write_text(told.replace("<|im_end|>", "<|endoftext|>"))
    changed_json(folder / "tokenizer_config.json", eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    changed_json(folder / "generation_config.json", eos_token_id=0)
    assert not llamacpp.answers(write_gguf(folder, tmp_path / "end.gguf"), asked, 40)[0][1]
