"""Random little models of four families, each with a tokenizer of its family's kind and an adapter that acts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune import train
from finetune.store import DatasetRecord, Facts, Run, Store
from tests.conftest import CHATML, make_tokenizer

TEXT = (
    "The quick brown fox jumps over the lazy dog. def add(a, b):\n    return a + b\n\n# Zürich, naïve café: "
    "12 345,67 €\n"
    "Hello hello world, I'm sure you'll see that they've 2024 reasons; don't wait 10 10 100 1000 years!"
    "   spaces\t\ttabs\n"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' "
    "+ ('model' if message['role'] == 'assistant' else 'user') + '\n' "
    "+ (first if loop.first else '') + message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
FAMILIES = ("llama", "qwen3", "gemma3_text")


def byte_level(splits: Sequence[Any], special: Sequence[str], ignore_merges: bool = False) -> Any:
    """A byte-level BPE tokenizer trained on `TEXT`, text split as told."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(splits)) if len(splits) > 1 else splits[0]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=480, special_tokens=list(special), initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT * 3], trainer)
    return tokenizer


def tokenizer_of(kind: str) -> Any:
    """``gpt-2``, ``smollm``, ``qwen2``, ``llama-bpe``, ``llama-2`` or ``gemma``: splits text and chats as that does."""
    from tokenizers import Regex, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from finetune.export.gguf.vocab import LLAMA, QWEN

    if kind == "gpt-2":
        return make_tokenizer(TEXT)
    if kind in ("gemma", "llama-2"):
        return sentencepiece_tokenizer(prefix=kind == "llama-2")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if kind == "llama-bpe":
        special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        made = byte_level([pre_tokenizers.Split(Regex(LLAMA), "isolated"), bare], special, ignore_merges=True)
        fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=special[0], eos_token=special[4])
        fast.chat_template = LLAMA3_TEMPLATE
        return fast
    splits = {
        "smollm": [pre_tokenizers.Digits(individual_digits=True), plain],
        "qwen2": [pre_tokenizers.Split(Regex(QWEN), "isolated"), bare],
    }[kind]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = byte_level(splits, special)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=special[2], pad_token=special[0])
    fast.chat_template = CHATML
    return fast


def sentencepiece_tokenizer(prefix: bool) -> Any:
    """BPE with byte fallback and every way to make a token among its merges, as the real ones have.

    With a `prefix`, text is encoded with a space before it, as Llama 2 does; otherwise as it is (Gemma).
    """
    from tokenizers import AddedToken, normalizers, processors
    from transformers import GemmaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    words = [
        "▁▁",
        "▁▁▁",
        "he",
        "in",
        "▁t",
        "▁the",
        "the",
        "llo",
        "▁hello",
        "hello",
        "er",
        "re",
        "ou",
        "10",
        "100",
        "ab",
    ]
    words += [
        "an",
        "and",
        "▁a",
        "▁w",
        "or",
        "▁wor",
        "ld",
        "▁world",
        "zü",
        "fé",
        "ca",
        "▁ca",
        "▁café",
        "日本",
        "()",
        "):",
    ]
    text = "".join(dict.fromkeys(TEXT.replace(" ", "▁") + "abcdefghijklmnopqrstuvwxyz0123456789日本語"))
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *words, *text]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    merges = generate_merges(vocab, {piece: -index for piece, index in vocab.items()})
    made = GemmaTokenizer(vocab=vocab, merges=merges)
    made.add_special_tokens({"additional_special_tokens": special[5:]}, replace_extra_special_tokens=True)
    made.add_tokens([AddedToken("\n\n", normalized=False)])
    if prefix:
        spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        made._tokenizer.normalizer, made._tokenizer.pre_tokenizer = normalizers.Sequence(spaces), None
    made.chat_template = GEMMA_TEMPLATE
    made._tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    return made


def save_model(family: str, folder: Path, tokenizer: Any = None, **more: Any) -> Path:
    """A random model of a family, float32, written to `folder` with a tokenizer of its kind."""
    import torch
    import transformers

    kind = {"llama": "gpt-2", "qwen2": "qwen2", "qwen3": "qwen2", "gemma3_text": "gemma"}[family]
    tokenizer = tokenizer or tokenizer_of(kind)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 5,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    if family == "gemma3_text":
        shape |= {"num_hidden_layers": 7, "sliding_window": 16, "query_pre_attn_scalar": 32}
    if family == "qwen2":
        del shape["head_dim"]
    if family == "llama":
        shape |= {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False}
    shape |= more
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3_text": "Gemma3"}[family]
    config_class = "Gemma3TextConfig" if family == "gemma3_text" else f"{name}Config"
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, config_class)(**shape))
    with torch.no_grad():  # norms and biases that a mistake would show in
        for key, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.add_(0.3 * torch.randn_like(weight))
            assert key
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def adapted_run(store: Store, folder: Path, record: DatasetRecord | None = None, **settings: Any) -> Run:
    """A run of the model in `folder` that has ended, on `record`, with a random adapter on every linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    none = {"owner": "local", "name": "none", "folder": str(folder), "facts": Facts(system=None, accepted=1)}
    record = record or store.add_dataset(**none)
    config = train.TrainConfig.parse({"model": str(folder)})
    run = store.add_run(owner="local", name="tiny", dataset=record.id, config=config.model_dump())
    lora = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(**lora))
    torch.manual_seed(5)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                weight.normal_(std=0.05)
    model.save_pretrained(train.adapter_folder(run.id))
    return run


def logits(model: Any, prompts: Sequence[list[int]]) -> Any:
    """The logits after each prompt: (prompts, vocabulary), float32."""
    import torch

    with torch.inference_mode():
        return torch.stack([model(torch.tensor([prompt])).logits[0, -1].float() for prompt in prompts])


def with_adapter(run: Run) -> Any:
    """The base with its adapter on, as chat and the evaluation ask it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(run.config["model"])
    return PeftModel.from_pretrained(base, str(train.adapter_folder(run.id))).eval()


def prompts_for(folder: Path) -> list[list[int]]:
    """Some prompts as token ids; the last is longer than Gemma's window."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["hello world", "def add(a, b):", "10 100 1000", TEXT[:120]]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def changed_json(file: Path, **values: Any) -> None:
    """Change keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")
