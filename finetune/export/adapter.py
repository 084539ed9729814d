"""The adapter as a folder that PEFT loads: weights, the base's tokenizer and template, what ends an answer."""

import json
import shutil
from pathlib import Path

from finetune import models
from finetune.chat.adapters import Adapter
from finetune.errors import RunError
from finetune.export import facts
from finetune.export.merged import TOKENIZER_FILES, forget_machine
from finetune.store import Run

WEIGHTS = ("adapter_model.safetensors", "adapter_config.json")


def write_adapter(run: Run, folder: Path) -> None:
    """Write the adapter's files into an empty folder; the base is named by its Hub id, or a folder's bare name.

    Raises:
        RunError: the run has no adapter, or half of one.
        ModelError: the base cannot be had any more.

    Example:
        >>> write_adapter(run, Path("out"))
        >>> PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "out")
    """
    found = models.find(run.config["model"], source=run.result.get("source"))
    source = Adapter(run).folder()
    if not all((source / name).is_file() for name in WEIGHTS):
        raise RunError("The adapter is not whole.", where=run.id, fix="Train the run again.", code="adapter_damaged")
    folder.mkdir(parents=True, exist_ok=True)
    for name in WEIGHTS:
        shutil.copyfile(source / name, folder / name)
    for name in TOKENIZER_FILES:
        if (found.folder / name).is_file():
            shutil.copyfile(found.folder / name, folder / name)
    for file in folder.glob("*.json"):
        forget_machine(file)
    _rewrite(folder / "adapter_config.json", base_model_name_or_path=facts.base(run).name)
    _write_generation(found, folder)


def _rewrite(file: Path, **values: str) -> None:
    config = json.loads(file.read_text(encoding="utf-8")) | values
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_generation(found: models.Found, folder: Path) -> None:
    """What ends an answer, from the base's configuration and tokenizer: the weights need not be loaded for it."""
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
