"""The adapter as a folder that PEFT loads: weights, the base's tokenizer and template, and a generation config."""

import json
import shutil
from pathlib import Path

from finetune import models
from finetune.chat.adapters import Adapter
from finetune.errors import RunError
from finetune.export import destination, reload
from finetune.export.merged import TOKENIZER_FILES, forget_machine
from finetune.export.parity import Replay
from finetune.export.strength import scaled
from finetune.export.subject import Choices, Say, Subject

WEIGHTS = ("adapter_model.safetensors", "adapter_config.json")


def make_adapter(subject: Subject, folder: Path, choices: Choices, say: Say) -> Replay:
    """The adapter's files, with the base named by its Hub id or its folder's bare name; asked with PEFT on the base.

    Raises:
        RunError: the run has no adapter, or an incomplete one.
        ModelError: the base is not here any more.

    Example:
        >>> make_adapter(subject, Path("out"), Choices(), say=print)
        >>> PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "out")
    """
    destination.refuse_full(folder.parent, 0)
    found, source = subject.model, Adapter(subject.run).folder()
    if not all((source / name).is_file() for name in WEIGHTS):
        raise RunError(
            "The adapter is incomplete.", where=subject.run.id, fix="Train the run again.", code="adapter_damaged"
        )
    for name in WEIGHTS:
        shutil.copyfile(source / name, folder / name)
    for name in TOKENIZER_FILES:
        if (found.folder / name).is_file():
            shutil.copyfile(found.folder / name, folder / name)
    for file in folder.glob("*.json"):
        forget_machine(file)
    _settle(folder / "adapter_config.json", subject)
    _write_generation(found, folder)
    return lambda asked, most, thinking: reload.answers(folder, asked, most, found.folder, thinking)


def _settle(file: Path, subject: Subject) -> None:
    """The base by its name, and the strength: the weights are those that were trained, byte for byte."""
    config = scaled(json.loads(file.read_text(encoding="utf-8")), subject.strength)
    config["base_model_name_or_path"] = subject.base.name
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_generation(found: models.Found, folder: Path) -> None:
    """The tokens that end an answer, from the base's configuration and tokenizer, without loading its weights."""
    from transformers import GenerationConfig
    from transformers.utils import GENERATION_CONFIG_NAME

    tokenizer = models.load_tokenizer(found)
    named = found.folder / GENERATION_CONFIG_NAME
    config = json.loads((named if named.is_file() else found.folder / "config.json").read_text(encoding="utf-8"))
    ends = config.get("eos_token_id")
    known = set(ends) if isinstance(ends, list) else {ends}
    known |= {tokenizer.eos_token_id, models.end_of_turn(tokenizer)}
    stops = sorted(token for token in known if token is not None)
    GenerationConfig(eos_token_id=stops, pad_token_id=min(stops)).save_pretrained(folder)
