"""The code in a card asks with the very prompt that was trained on and checked."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from finetune import data, models
from finetune.export import facts, make
from finetune.export.formats import Usage, format_of
from finetune.export.subject import gather
from finetune.store import Store
from tests.conftest import train_tiny
from tests.models.families import FAMILIES, tokenizer_of

BASE = facts.Base("owner/model", False)
QWEN3 = next(family for family in FAMILIES if family.name == "qwen3")
ASKED = [{"role": "user", "content": "…"}]


def blocks(markdown: str, language: str) -> list[str]:
    return [part.split("\n```")[0] for part in markdown.split(f"```{language}\n")[1:]]


def uses(format: str) -> Usage:
    card = format_of(format).card
    assert card
    return card.usage


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("format", ["adapter", "merged"])
def test_python_asks_as_was_trained(format: str, thinking: bool) -> None:
    tokenizer = tokenizer_of(QWEN3)
    assert models.can_think(tokenizer)
    [code] = blocks(uses(format)(BASE, [], None, thinking), "python")
    asking = [line for line in code.splitlines() if line.startswith(("messages =", "inputs ="))]
    told: dict[str, Any] = {"tokenizer": tokenizer}
    exec("\n".join(asking), told)
    assert told["inputs"]["input_ids"][0].tolist() == models.prompt_ids(ASKED, tokenizer, thinking=thinking)


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("format", ["gguf", "gguf-lora"])
def test_llama_cpp_asks_as_was_trained(format: str, thinking: bool) -> None:
    tokenizer = tokenizer_of(QWEN3)
    [command] = blocks(uses(format)(BASE, ["a b.gguf"], "Be brief.", thinking), "bash")
    words = shlex.split(command)
    assert {"--jinja", "a b.gguf"} < set(words)
    assert words[words.index("-sys") + 1] == "Be brief."
    kwargs = json.loads(words[words.index("--chat-template-kwargs") + 1])
    asked = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, **kwargs)
    assert asked["input_ids"] == models.prompt_ids(ASKED, tokenizer, thinking=thinking)


def test_an_adapter_says_how_to_find_a_base_that_is_a_folder(
    store: Store, tiny: Path, tmp_path: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import AutoPeftModelForCausalLM

    base = Path(shutil.copytree(tiny, tmp_path / "models" / "base"))
    run = train_tiny(store, base, small_dataset, max_steps=1)
    made = make.export(store, run, "adapter", tmp_path / "out", make.Choices(check=False))
    folder = make.unpacked(made, tmp_path / "adapter")
    card, config = (folder / "README.md").read_text(), folder / "adapter_config.json"
    assert "The base was a local folder named base;" in card
    assert str(tmp_path) not in card + config.read_text()
    monkeypatch.chdir(base.parent)
    assert AutoPeftModelForCausalLM.from_pretrained(folder).peft_config, "beside the base"
    monkeypatch.chdir(tmp_path)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(base)}))
    assert AutoPeftModelForCausalLM.from_pretrained(folder).peft_config, "as the card says"
    assert "local folder" not in uses("adapter")(BASE, [], None, None)


def test_a_template_without_the_switch_needs_no_word() -> None:
    for family in FAMILIES:
        assert models.can_think(tokenizer_of(family)) == (family is QWEN3), family.name
    for format in ("adapter", "merged", "gguf", "gguf-lora"):
        assert "thinking" not in uses(format)(BASE, ["a.gguf"], "Be brief.", None)


@pytest.mark.parametrize("thinking", [None, False, True])
def test_what_is_handed_out_beside_the_files(
    store: Store, tiny: Path, tmp_path: Path, small_dataset: data.Dataset, thinking: bool | None
) -> None:
    """The card's line is the one in llama.cpp.txt, and both say how the run was trained."""
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    if thinking is not None:
        (base / "chat_template.jinja").write_text(str(tokenizer_of(QWEN3).chat_template))
    for example in small_dataset.examples if thinking else []:
        example.messages[-1]["content"] = "<think>\nHm.\n</think>\n\n" + example.messages[-1]["content"]
    run = train_tiny(store, base, small_dataset, max_steps=1)
    assert facts.thinking(gather(store, run)) is thinking
    for to in ("adapter", "merged", "gguf", "gguf-lora"):
        made = make.export(store, run, to, tmp_path / "out", make.Choices(check=False))
        folder = make.unpacked(made, tmp_path / "adapter")
        card = (folder / "README.md").read_text()
        assert card.count(f"enable_thinking={thinking}") == (thinking is not None and "gguf" not in to)
        assert ("enable_thinking" in card) == (thinking is not None)
        if "gguf" in to:
            command = (folder / "llama.cpp.txt").read_text().strip()
            assert blocks(card, "bash")[0] == command
        assert ("not run in Ollama" in card) == (to == "gguf")
        if to == "gguf":
            opening = "<|im_start|>assistant\n" + "<think>\n\n</think>\n\n" * (thinking is False)
            assert f'{opening}"""' in (folder / "Modelfile").read_text()


@pytest.mark.parametrize(("to", "dtype"), [("adapter", "float32"), ("merged", "float32"), ("merged", "bfloat16")])
def test_python_answers_in_the_precision_that_was_checked(
    store: Store, tiny: Path, tmp_path: Path, small_dataset: data.Dataset, to: str, dtype: str
) -> None:
    """The base is in bfloat16, as most are on the Hub; an adapter is checked in float32."""
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    AutoModelForCausalLM.from_pretrained(tiny).bfloat16().save_pretrained(base)
    run = train_tiny(store, base, small_dataset, max_steps=1)
    made = make.export(store, run, to, tmp_path / "out", make.Choices(dtype=dtype, check=False))
    folder = make.unpacked(made, tmp_path / "adapter")
    [code] = blocks((folder / "README.md").read_text(), "python")
    told: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(folder)).replace("path/to/base", str(base)), told)
    assert {str(weight.dtype) for weight in told["model"].parameters()} == {f"torch.{dtype}"}
