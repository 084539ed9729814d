"""An Ollama `Modelfile` and a llama.cpp command, so that a GGUF is used as it was tested.

Ollama's templates are written in Go's template language. The model's chat template is recognised by what it writes for
a small conversation, not by its name: ChatML (SmolLM2, Qwen), Llama 3 or Gemma. For any other, the Modelfile has no
TEMPLATE, and Ollama uses the template in the GGUF.
"""

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = (("system", "S7"), ("user", "U7"), ("assistant", "A7"), ("user", "V7"))
"""A conversation whose texts appear in no template."""

FAMILIES = {
    "ChatML": (
        "<|im_start|>system\nS7<|im_end|>\n<|im_start|>user\nU7<|im_end|>\n<|im_start|>assistant\nA7<|im_end|>\n"
        "<|im_start|>user\nV7<|im_end|>\n<|im_start|>assistant\n",
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
    ),
    "Llama 3": (
        "<|start_header_id|>system<|end_header_id|>\n\nS7<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "U7<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA7<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nV7<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>"
        "{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "Gemma": (
        "<start_of_turn>user\nS7\n\nU7<end_of_turn>\n<start_of_turn>model\nA7<end_of_turn>\n"
        "<start_of_turn>user\nV7<end_of_turn>\n<start_of_turn>model\n",
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = printf "%s\\n\\n" .Content }}'
        '{{ else if eq .Role "user" }}<start_of_turn>user\n{{ $system }}{{ .Content }}<end_of_turn>\n'
        '{{ $system = "" }}{{ else }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}{{ end }}'
        "<start_of_turn>model\n",
    ),
}
"""What a family's template writes for the probe (after the beginning of text), and the same template in Go."""


def modelfile(
    gguf_name: str,
    tokenizer: "PreTrainedTokenizerBase",
    system: str | None,
    ends: Sequence[int],
    thinking: bool = False,
) -> str:
    """Ollama's recipe for the GGUF beside it; `ends` are the tokens that end an answer (`models.end_tokens`).

    `thinking`: whether answers were trained to think aloud, which changes how they open.

    Example:
        >>> print(modelfile("model.gguf", tokenizer, "Answer in JSON.", [2]))
        FROM ./model.gguf
        TEMPLATE \"\"\"{{- range .Messages }}<|im_start|>{{ .Role }}
        …
    """
    lines = [f"FROM ./{gguf_name}"]
    family, opening = recognised(tokenizer, thinking)
    if family:
        lines.append(f'TEMPLATE """{FAMILIES[family][1]}{opening}"""')
    else:
        lines.append("# No TEMPLATE: Ollama reads the chat template within the GGUF.")
    stops = [str(tokenizer.decode([end])) for end in sorted(set(ends))]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines += [
        "# As it was tested: greedy decoding.",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    prompt = system or (default_system(tokenizer, thinking) if family == "ChatML" else "")
    if '"""' in prompt:
        lines.append(
            "# A Modelfile cannot hold the system prompt, which has three quotes in a row: send it with each chat."
        )
    elif prompt:
        lines.append(f'SYSTEM """{prompt}"""')
    return "\n".join(lines) + "\n"


def llama_command(
    gguf_name: str, system: str | None = None, lora_name: str | None = None, thinking: bool | None = None
) -> str:
    """The command that starts a chat in llama.cpp with the GGUF's template; `thinking` is its switch, if it has one.

    Example:
        >>> llama_command("model.gguf", "Answer in JSON.")
        "llama-cli -m model.gguf --jinja -cnv --temp 0 -sys 'Answer in JSON.'"
    """
    words = ["llama-cli", "-m", gguf_name, *(["--lora", lora_name] if lora_name else [])]
    words += ["--jinja", "-cnv", "--temp", "0", *(["-sys", system] if system else [])]
    if thinking is not None:
        words += ["--chat-template-kwargs", json.dumps({"enable_thinking": thinking}, separators=(",", ":"))]
    return shlex.join(words)


def recognised(tokenizer: "PreTrainedTokenizerBase", thinking: bool = False) -> tuple[str | None, str]:
    """The family the chat template belongs to, and what it adds to the family's opening of an answer.

    Example:
        >>> recognised(qwen3_tokenizer)
        ('ChatML', '<think>\\n\\n</think>\\n\\n')
    """
    try:
        written = _written(PROBE, tokenizer, thinking)
    except ModelError:
        return None, ""
    begun = written.removeprefix(str(tokenizer.bos_token))
    for family, (expected, _) in FAMILIES.items():
        for text in (written, begun):
            if text.startswith(expected):
                return family, text.removeprefix(expected)
    return None, ""


def default_system(tokenizer: "PreTrainedTokenizerBase", thinking: bool = False) -> str:
    """A ChatML template's own system prompt, used when none is given, as SmolLM2's has; often none."""
    start, end = "<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\nU7"
    written = _written(PROBE[1:2], tokenizer, thinking)
    return written.removeprefix(start).split(end)[0] if written.startswith(start) and end in written else ""


def _written(turns: Sequence[tuple[str, str]], tokenizer: "PreTrainedTokenizerBase", thinking: bool) -> str:
    from finetune import models

    messages = [{"role": role, "content": text} for role, text in turns]
    ids = models.prompt_ids(messages, tokenizer, thinking=thinking)
    return str(tokenizer.decode(ids, skip_special_tokens=False))
