"""The two GGUF exports: the merged model, and the adapter for a GGUF of its base, with what to run them with."""

import json
from pathlib import Path

from finetune import models
from finetune.export import destination, facts, llamacpp
from finetune.export.gguf.howto import llama_command, modelfile
from finetune.export.gguf.lora import write_gguf_lora
from finetune.export.gguf.model import refuse_inexpressible, write_gguf
from finetune.export.merged import write_merged
from finetune.export.parity import Replay
from finetune.export.subject import Choices, Say, Subject


def make_gguf(subject: Subject, folder: Path, choices: Choices, say: Say) -> Replay:
    """The merged model as GGUF, a Modelfile and a llama.cpp command; asked with llama.cpp."""
    scratch = folder.parent
    destination.refuse_full(scratch, 6 * destination.parameters(subject.model.folder))  # float32 merged, and f16
    refuse_inexpressible(subject.model.folder)
    gguf = folder / f"{_name(subject)}-tuned-{choices.quant}.gguf"
    merged = write_merged(subject, scratch / "merged", "float32", say)
    say("Writing the GGUF.")
    write_gguf(merged, gguf, choices.quant)
    thinking, system = facts.thinking(subject), subject.system
    ends = json.loads((merged / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    tokenizer = models.load_tokenizer(subject.model)
    recipe = modelfile(gguf.name, tokenizer, system, ends if isinstance(ends, list) else [ends], bool(thinking))
    (folder / "Modelfile").write_text(recipe, encoding="utf-8")
    _write_command(folder, llama_command(gguf.name, system, None, thinking))
    return lambda asked, most, thinks: llamacpp.answers(gguf, asked, most, None, thinks)


def make_gguf_lora(subject: Subject, folder: Path, choices: Choices, say: Say) -> Replay:
    """The adapter as GGUF and a llama.cpp command; asked with llama.cpp on the base's own f16."""
    scratch = folder.parent
    destination.refuse_full(scratch, 2 * choices.check * destination.parameters(subject.model.folder))
    base, lora = scratch / "base.gguf", folder / f"{_name(subject)}-lora.gguf"
    write_gguf_lora(subject, lora)
    _write_command(folder, llama_command("base.gguf", subject.system, lora.name, facts.thinking(subject)))
    if choices.check:
        write_gguf(subject.model.folder, base, "f16")
    return lambda asked, most, thinks: llamacpp.answers(base, asked, most, lora, thinks)


def _name(subject: Subject) -> str:
    return subject.base.name.rsplit("/", 1)[-1]


def _write_command(folder: Path, command: str) -> None:
    (folder / "llama.cpp.txt").write_text(command + "\n", encoding="utf-8")
