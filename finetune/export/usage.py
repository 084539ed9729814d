"""How an exported run is used, as code to copy: transformers, PEFT, llama.cpp and Ollama as fits the format."""

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


def usage(
    base: Base, format: str, files: Sequence[str], system: str | None = None, thinking: bool | None = None
) -> str:
    """Markdown with the code blocks of a format; `files` are the names beside the card.

    It asks as the check does: in its precision (a merged model's own, else float32), and with its prompt: `thinking`
    is the template's switch (`facts.thinking`).

    Example:
        >>> "llama-cli -m model-f16.gguf" in usage(base, "gguf", ["model-f16.gguf"])
        True
    """
    if format in ("gguf", "gguf-lora"):
        return _gguf(base, format, files, system, thinking)
    switch = "" if thinking is None else f"enable_thinking={thinking}, "
    ask = ASK.format(first=SYSTEM if system else "", switch=switch)
    where = f"path/to/{base.name}" if base.local else base.name
    note = "`SYSTEM` is the system prompt below.\n\n" if system else ""
    if format == "merged":
        code = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
{ask}"""
        return f"With transformers:\n\n{note}{fenced(code, 'python')}"
    code = f"""import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
base = AutoModelForCausalLM.from_pretrained("{where}", dtype=torch.float32)
model = PeftModel.from_pretrained(base, "path/to/this/folder")
model.generation_config = GenerationConfig.from_pretrained("path/to/this/folder")
{ask}"""
    return f"With transformers and PEFT:\n\n{note}{fenced(code, 'python')}"


def _gguf(base: Base, format: str, files: Sequence[str], system: str | None, thinking: bool | None) -> str:
    names = [name for name in files if name.endswith(".gguf") and name.isprintable()]
    first = names[0] if names else "model.gguf"
    model, lora = (first, None) if format == "gguf" else ("base.gguf", first)
    parts = [f"With llama.cpp:\n\n{fenced(llama_command(model, system, lora, thinking), 'bash')}"]
    if "Modelfile" in files:
        parts.append(f"With Ollama:\n\n{fenced('ollama create tuned -f Modelfile && ollama run tuned', 'bash')}")
        parts.append("The `Modelfile` was not run in Ollama: it is made from the chat template, and checked as text.")
    if format == "gguf-lora":
        parts.append(f"`base.gguf` is {inline(base.name)} itself as GGUF: the adapter fits no other model.")
    if len(names) > 1:
        parts.append(f"Beside it: {inline(', '.join(files))}.")
    return "\n\n".join(parts)
