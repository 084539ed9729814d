"""How to use an exported run, as code to copy: transformers, PEFT, llama.cpp and Ollama.

The code asks as the check does: in its precision (a merged model's own, else float32), and with its prompt. `thinking`
is the value of the template's switch, if it has one (`facts.thinking`).

Example:
    >>> "llama-cli -m model-f16.gguf" in gguf(base, ["model-f16.gguf"])
    True
"""

from collections.abc import Sequence

from finetune.export.facts import Base
from finetune.export.gguf.howto import llama_command
from finetune.export.markdown import fenced, inline

ASK = """messages = [{first}{{"role": "user", "content": "…"}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, {switch}\
return_dict=True, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=256, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""

SYSTEM = '{"role": "system", "content": SYSTEM}, '
"""`SYSTEM` is the prompt shown below it in the card."""


def adapter(base: Base, files: Sequence[str], system: str | None = None, thinking: bool | None = None) -> str:
    """With transformers and PEFT."""
    where = f"path/to/{base.name}" if base.local else base.name
    code = f"""import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
base = AutoModelForCausalLM.from_pretrained("{where}", dtype=torch.float32)
model = PeftModel.from_pretrained(base, "path/to/this/folder")
model.generation_config = GenerationConfig.from_pretrained("path/to/this/folder")
{_ask(system, thinking)}"""
    return f"With transformers and PEFT:\n\n{_note(system)}{fenced(code, 'python')}{_named(base)}"


def merged(base: Base, files: Sequence[str], system: str | None = None, thinking: bool | None = None) -> str:
    """With transformers."""
    code = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
{_ask(system, thinking)}"""
    return f"With transformers:\n\n{_note(system)}{fenced(code, 'python')}"


def gguf(base: Base, files: Sequence[str], system: str | None = None, thinking: bool | None = None) -> str:
    """With llama.cpp, and with Ollama if there is a Modelfile."""
    names = _ggufs(files)
    parts = [_llama_cpp(llama_command(names[0], system, None, thinking)), *_ollama(files), *_others(names, files)]
    return "\n\n".join(parts)


def gguf_lora(base: Base, files: Sequence[str], system: str | None = None, thinking: bool | None = None) -> str:
    """With llama.cpp, on a GGUF of the base."""
    names = _ggufs(files)
    needs = f"`base.gguf` is {inline(base.name)} itself as GGUF: the adapter fits no other model."
    command = _llama_cpp(llama_command("base.gguf", system, names[0], thinking))
    return "\n\n".join([command, *_ollama(files), needs, *_others(names, files)])


def _named(base: Base) -> str:
    """How PEFT finds a base by itself of which only the folder's name is known: paths of a machine are not exported."""
    if not base.local:
        return ""
    return (
        f"\n\nThe base was a local folder named {inline(base.name)}; only that name is in `adapter_config.json`. The "
        "code above gives its path. Code that looks for the base by that name (`AutoPeftModelForCausalLM`) finds it if "
        "you start it next to that folder, or set `base_model_name_or_path` to its path."
    )


def _ask(system: str | None, thinking: bool | None) -> str:
    switch = "" if thinking is None else f"enable_thinking={thinking}, "
    return ASK.format(first=SYSTEM if system else "", switch=switch)


def _note(system: str | None) -> str:
    return "`SYSTEM` is the system prompt below.\n\n" if system else ""


def _ggufs(files: Sequence[str]) -> list[str]:
    return [name for name in files if name.endswith(".gguf") and name.isprintable()] or ["model.gguf"]


def _llama_cpp(command: str) -> str:
    return f"With llama.cpp:\n\n{fenced(command, 'bash')}"


def _ollama(files: Sequence[str]) -> list[str]:
    if "Modelfile" not in files:
        return []
    return [
        f"With Ollama:\n\n{fenced('ollama create tuned -f Modelfile && ollama run tuned', 'bash')}",
        "The `Modelfile` is made from the chat template and checked as text; it was not run in Ollama.",
    ]


def _others(names: Sequence[str], files: Sequence[str]) -> list[str]:
    return [f"Files: {inline(', '.join(files))}."] if len(names) > 1 else []
