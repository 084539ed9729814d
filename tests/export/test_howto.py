"""The Modelfile writes what the chat template writes, and says where an answer ends."""

import re
import shlex
from typing import Any

import pytest

from finetune import models
from finetune.export.gguf.howto import FAMILIES, default_system, llama_command, modelfile, recognised
from tests.conftest import CHATML
from tests.export.tiny_models import tokenizer_of
from tests.models.families import FAMILIES as FAMILIES_IN_USE
from tests.models.families import tokenizer_of as tokenizer_in

SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    + CHATML.removeprefix("{% for message in messages %}")
)


@pytest.mark.parametrize(
    ("kind", "family"), [("gpt-2", "ChatML"), ("qwen2", "ChatML"), ("llama-bpe", "Llama 3"), ("gemma", "Gemma")]
)
def test_recognised_by_what_it_writes(kind: str, family: str) -> None:
    assert recognised(tokenizer_of(kind)) == (family, "")


def test_an_answers_opening_is_kept() -> None:
    """Qwen3 asked not to think opens its answers with an empty thought."""
    tokenizer = tokenizer_of("qwen2")
    tokenizer.chat_template = CHATML.replace(
        "assistant\n' }}{% endif %}", "assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
    )
    assert recognised(tokenizer) == ("ChatML", "<think>\n\n</think>\n\n")
    assert '<|im_start|>assistant\n<think>\n\n</think>\n\n"""' in modelfile("model.gguf", tokenizer, None, [2])


@pytest.mark.parametrize(("thinking", "opening"), [(False, "<think>\n\n</think>\n\n"), (True, "")])
def test_an_answer_that_thinks_is_not_told_that_it_has_thought(thinking: bool, opening: str) -> None:
    tokenizer = tokenizer_in(next(family for family in FAMILIES_IN_USE if family.name == "qwen3"))
    assert recognised(tokenizer, thinking) == ("ChatML", opening)
    told = modelfile("model.gguf", tokenizer, None, [2], thinking)
    assert f'<|im_start|>assistant\n{opening}"""' in told
    prompt = models.prompt_ids([{"role": "user", "content": "U7"}], tokenizer, thinking=thinking)
    template = told.split('"""')[1]
    assert go(template, [{"Role": "user", "Content": "U7"}]) == tokenizer.decode(prompt)


def test_another_template_is_left_to_ollama() -> None:
    tokenizer = tokenizer_of("qwen2")
    tokenizer.chat_template = (
        "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    told = modelfile("model.gguf", tokenizer, "Be brief.", [2])
    assert 'TEMPLATE """' not in told
    assert 'PARAMETER stop "<|im_end|>"' in told


def test_modelfile() -> None:
    told = modelfile("model.gguf", tokenizer_of("qwen2"), 'Say "hi".\nIn JSON.', [2, 0])
    assert told.startswith('FROM ./model.gguf\nTEMPLATE """')
    assert 'PARAMETER stop "<|endoftext|>"\nPARAMETER stop "<|im_end|>"\n' in told
    assert "PARAMETER temperature 0\n" in told
    assert told.endswith('SYSTEM """Say "hi".\nIn JSON."""\n')


def test_the_templates_own_system_prompt_is_not_lost() -> None:
    tokenizer = tokenizer_of("smollm")
    tokenizer.chat_template = SMOLLM
    assert default_system(tokenizer) == "You are SmolLM"
    assert 'SYSTEM """You are SmolLM"""' in modelfile("model.gguf", tokenizer, None, [2])
    assert 'SYSTEM """Mine."""' in modelfile("model.gguf", tokenizer, "Mine.", [2])


def test_a_system_prompt_that_a_modelfile_cannot_hold() -> None:
    told = modelfile("model.gguf", tokenizer_of("qwen2"), 'Use """ quotes.', [2])
    assert "SYSTEM" not in told
    assert told.count('"""') == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_go_template_writes_the_same(family: str) -> None:
    """A small reading of Go's template language: ranges, conditions, assignments, and what a dash trims."""
    expected, template = FAMILIES[family]
    messages = [
        {"Role": "system", "Content": "S7"},
        {"Role": "user", "Content": "U7"},
        {"Role": "assistant", "Content": "A7"},
        {"Role": "user", "Content": "V7"},
    ]
    assert go(template, messages) == expected


def test_llama_command() -> None:
    command = llama_command("my model.gguf", "It's JSON; $HOME", "lora.gguf")
    assert shlex.split(command) == [
        *("llama-cli", "-m", "my model.gguf", "--lora", "lora.gguf", "--jinja", "-cnv", "--temp", "0"),
        *("-sys", "It's JSON; $HOME"),
    ]


def go(template: str, messages: list[dict[str, str]]) -> str:
    """Run the few words of Go's text/template that are used here."""
    parts = re.split(r"(\{\{-?.*?-?\}\})", template)
    for place in range(1, len(parts), 2):
        if parts[place].startswith("{{-"):
            parts[place - 1] = parts[place - 1].rstrip()
        if parts[place].endswith("-}}"):
            parts[place + 1] = parts[place + 1].lstrip()
    steps = [(index % 2 == 1, part.strip("{}-").strip() if index % 2 else part) for index, part in enumerate(parts)]
    written: list[str] = []
    _go(steps, 0, {}, messages, written, True)
    return "".join(written)


def _go(steps: list[Any], place: int, now: dict[str, str], messages: list[Any], written: list[str], on: bool) -> int:
    """Write from `place` on to the block's end, and return where that is; nothing is written while not `on`."""
    taken = False
    while place < len(steps):
        code, text = steps[place]
        if not code:
            written += [text] if on else []
        elif text == "end" or text.startswith("else"):
            return place
        elif text == "range .Messages":
            for message in messages:
                end = _go(steps, place + 1, _into(now, message), messages, written, on)
            place = end
        elif text.startswith("if "):
            taken = False
            while steps[place][1] != "end":
                condition = steps[place][1].removeprefix("else").strip().removeprefix("if").strip()
                holds = not condition or now.get("Role") == re.fullmatch(r'eq \.Role "(\w+)"', condition)[1]  # type: ignore[index]
                place = _go(steps, place + 1, now, messages, written, on and holds and not taken)
                taken = taken or holds
        elif on:
            _say(text, now, written)
        place += 1
    return place


def _say(text: str, now: dict[str, str], written: list[str]) -> None:
    """A value, or an assignment to ``$system``."""
    if found := re.fullmatch(r'\$system :?= (""|printf "%s\\n\\n" \.Content)', text):
        now["$system"] = "" if found[1] == '""' else now["Content"] + "\n\n"
    else:
        written.append(now[text.removeprefix(".")])


def _into(now: dict[str, str], message: dict[str, str]) -> dict[str, str]:
    now.update(message)
    return now
