"""The default model in llama.cpp: the same tokens, the same answers, and a broken file shows."""

from pathlib import Path

import pytest

from finetune import chat, models, train
from finetune.data import Dataset
from finetune.export import llamacpp
from finetune.export.gguf_lora import write_gguf_lora
from finetune.export.gguf_model import write_gguf
from finetune.export.merged import write_merged
from finetune.store import Store
from tests.conftest import train_tiny
from tests.export.strings import varied

QUESTIONS = ["What is the capital of France?", "Name three colours.", "What is 3 plus 3?"]


@pytest.mark.model
def test_tokens_are_the_default_models(default_model: str, tmp_path: Path) -> None:
    found = models.find(default_model)
    tokenizer = models.load_tokenizer(found)
    texts = varied(2500, seed=1)
    told = llamacpp.tokenize(write_gguf(found.folder, tmp_path / "model.gguf", "q8_0"), texts)
    expected = [tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) for text in texts]
    wrong = [(text, a, b) for text, a, b in zip(texts, told, expected, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(texts)}: {wrong[:5]}"


@pytest.mark.model
def test_the_tuned_default_model_answers_the_same(
    default_model: str, store: Store, small_dataset: Dataset, tmp_path: Path
) -> None:
    run = train_tiny(store, Path(default_model), small_dataset, model=default_model, max_steps=10, learning_rate=1e-3)
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    tuned = chat.Engine().answer([chat.Ask(messages, run) for messages in asked], default_model, chat.Sampling(24))
    expected = [reply.text for reply in tuned]
    merged = write_merged(run, tmp_path / "merged")
    gguf = write_gguf(merged, tmp_path / "merged.gguf")
    assert llamacpp.answers(gguf, asked, 24) == expected
    base = write_gguf(models.find(default_model).folder, tmp_path / "base.gguf")
    lora = write_gguf_lora(run, tmp_path / "lora.gguf")
    assert llamacpp.answers(base, asked, 24, lora=lora) == expected
    assert llamacpp.answers(base, asked, 24) != expected
    template = merged / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", "<|im_start|>"))
    broken = write_gguf(merged, tmp_path / "broken.gguf")
    assert llamacpp.answers(broken, asked, 24) != expected
    assert train.adapter_folder(run.id).is_dir()
