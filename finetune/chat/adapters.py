"""Load adapters onto one base model in memory, and verify that the base is unchanged by them.

An answer with the adapter off is only meaningful if the weights underneath are still the original ones. So the
base's logits on fixed probes are recorded before the first adapter is loaded, and compared with the adapter-off
logits after every load. An adapter whose method modifies the base is refused without being loaded.
"""

import json
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models, train
from finetune.chat.per_row import BASE, PerRow
from finetune.chat.prefixes import Prefixes
from finetune.errors import ModelError, RunError
from finetune.store import Run
from finetune.train.checkpoints import Checkpoints

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

ADAPTER_BYTES = 2**30
"""Bytes of adapters kept in memory; above that the least recently used are unloaded."""

PROBES = ("The capital of France is", "def add(a, b):\n    return", "Title: Toast\n1. Butter 2 slices of bread.")
"""Prompts on which the base is probed, before and after each adapter is loaded."""

TOLERANCE = 1e-3
"""Logits that differ by at most this count as equal; logits are of the order of ten."""

CHANGES_BASE = ("pissa", "olora", "corda", "eva", "loftq", "lora_ga")
"""Values of `init_lora_weights` with which PEFT modifies the base weights (see PEFT's LoraConfig)."""


@dataclass(frozen=True)
class Adapter:
    """A run's final adapter, or that of its checkpoint at `step`, scaled by `strength` (1: as trained)."""

    run: Run
    step: int | None = None
    strength: float = 1.0

    @property
    def name(self) -> str:
        """Its name in PEFT, which is used as a module name and so must not contain dots."""
        strength = str(float(self.strength)).replace(".", "_")
        return f"{self.run.id}-{'end' if self.step is None else self.step}-{strength}"

    @property
    def stamp(self) -> tuple[int, int]:
        """Changes when other weights are published.

        Raises:
            RunError: as `folder`.
        """
        return _stamp(self.folder())

    def folder(self) -> Path:
        """The folder with its files.

        Raises:
            RunError: the run has no adapter, or no complete checkpoint at this step.
        """
        if self.step is None:
            folder = train.adapter_folder(self.run.id)
            if not folder.is_dir():
                raise RunError(
                    f"The run has no adapter ({self.run.state}).", where=self.run.id, fix="Wait until it has finished."
                )
            return folder
        for checkpoint in Checkpoints(train.run_folder(self.run.id)).whole():
            if checkpoint.step == self.step:
                return checkpoint.folder
        raise RunError(
            f"The checkpoint from step {self.step} no longer exists.", where=self.run.id, fix="Choose another."
        )


class Resident:
    """A base model in memory, with adapters that are loaded and unloaded. Not thread-safe.

    `difference` is the largest difference ever found between the base's logits before and after loading adapters.
    If `whole` is False, an adapter is partly loaded or the base has changed: discard it instead of using it.

    Example:
        >>> resident = Resident(models.find(models.DEFAULT))
        >>> resident.load([Adapter(run), Adapter(run, strength=0.5)])
        >>> resident.difference
        0.0
    """

    def __init__(self, found: models.Found):
        from finetune.chat.thin import quicken

        self.found = found
        self.tokenizer: PreTrainedTokenizerBase = models.load_tokenizer(found)
        self.base: Any = models.load_model(found).eval()
        _reset_generation_config(self.base)
        quicken(self.base)
        self.per_row, self.prefixes = PerRow(), Prefixes()
        self._peft: Any = None  # PEFT's view of the base, once there is an adapter; its layers are the base's
        self._loaded: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._pristine = self._probe()
        self.difference, self.whole = 0.0, True

    @property
    def token_bytes(self) -> int:
        """Memory that the keys and values of one token take; 0 for a model without attention."""
        config = self.base.config.get_text_config()
        heads = getattr(config, "num_attention_heads", 0)
        size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
        pairs = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads)
        return int(pairs * size * self.base.dtype.itemsize)

    def replaced(self, adapter: Adapter) -> bool:
        """Whether other weights were published since this adapter was loaded."""
        return self._loaded.get(adapter.name, stamp := adapter.stamp) != stamp

    def load(self, wanted: Sequence[Adapter], in_use: Collection[str] = ()) -> None:
        """Load these adapters unless they are in memory, and verify the base after each; those `in_use` stay.

        Raises:
            RunError: an adapter is missing or damaged, or modifies the base.
            ModelError: the base's logits have changed (code ``base_changed``).
        """
        found = [(adapter, adapter.folder()) for adapter in wanted]  # find all of them before loading any
        for adapter, folder in found:
            stamp = _stamp(folder)
            if self._loaded.get(adapter.name) != stamp:
                _refuse_changing(folder, adapter.run)
                self.whole = False  # until the adapter is loaded and the base verified; an error leaves it False
                self._load(adapter, folder)
                self._loaded[adapter.name] = stamp
                self._verify()
                self.whole = True
            self._loaded.move_to_end(adapter.name)
        self._evict({*in_use, *(adapter.name for adapter in wanted)})

    def _load(self, adapter: Adapter, folder: Path) -> None:
        from peft import PeftModel
        from safetensors import SafetensorError

        place = str(self.base.device)  # left to itself, PEFT takes a GPU wherever PyTorch says that there is one
        try:
            if adapter.name in self._loaded:
                self._drop(adapter.name)
            if self._peft is not None:
                self._peft.load_adapter(str(folder), adapter.name, use_safetensors=True, torch_device=place)
            else:
                self._peft = PeftModel.from_pretrained(self.base, str(folder), adapter.name, torch_device=place)
            self._peft.eval()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise RunError(
                f"The adapter cannot be loaded ({type(error).__name__}).",
                where=adapter.run.id,
                fix="Train the run again.",
                code="adapter_damaged",
            ) from error
        finally:  # also of an adapter that was loaded in part: no row uses it, and the base's rows are the base's
            other = self.per_row.install(self.base)
        if other:
            raise RunError(
                f"The adapter is on a layer that is not linear ({other}), so it cannot be used beside the base.",
                where=adapter.run.id,
                fix="Train it again as a plain LoRA.",
                code="adapter_changes_base",
            )
        if _tensors(folder) != sum(adapter.name in key.split(".") for key, _ in self.base.named_parameters()):
            raise RunError(
                "The adapter cannot be loaded (it is incomplete).",
                where=adapter.run.id,
                fix="Train the run again.",
                code="adapter_damaged",
            )
        scale(self.base, adapter.name, adapter.strength)

    def _verify(self) -> None:
        difference = float((self._probe() - self._pristine).abs().max())
        self.difference = max(self.difference, difference)
        if not difference <= TOLERANCE:  # written so that NaN fails too
            raise ModelError(
                f"With adapters off, the base no longer answers as before (logits differ by {difference:.2g}).",
                where=self.found.name,
                fix="Ask again; the base model is reloaded first.",
                code="base_changed",
            )

    def _probe(self) -> "torch.Tensor":
        """The base's next-token logits for each probe with adapters off: (probes, vocabulary)."""
        import torch

        ids = [self.tokenizer.encode(text) for text in PROBES]
        inputs = models.left_padded(ids, min(models.end_tokens(self.base, self.tokenizer)), self.base.device)
        with torch.inference_mode(), self.per_row.using([BASE] * len(ids)):
            logits: torch.Tensor = self.base(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        return logits

    def _evict(self, needed: set[str]) -> None:
        while len(self._loaded) > 1 and sum(size for _, size in self._loaded.values()) > ADAPTER_BYTES:
            oldest = next((name for name in self._loaded if name not in needed), None)
            if oldest is None:
                return
            self._drop(oldest)

    def _drop(self, name: str) -> None:
        self._peft.delete_adapter(name)
        self.prefixes.forget(name)
        del self._loaded[name]


def _refuse_changing(folder: Path, run: Run) -> None:
    """Refuse an adapter that modifies the base or trained parts of it: there would be no base to compare with."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        start = config.get("init_lora_weights", True)
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(
            f"The adapter cannot be loaded ({type(error).__name__}).",
            where=run.id,
            fix="Train the run again.",
            code="adapter_damaged",
        ) from error
    reasons = {
        f"it was initialised with {start}, which modifies the base": str(start).lower().startswith(CHANGES_BASE),
        f"it trained the base's biases ({config.get('bias')})": config.get("bias", "none") != "none",
        "it trained entire layers of the base": bool(config.get("modules_to_save")),
        "it is not a LoRA": config.get("peft_type") != "LORA",
        "it is a DoRA, which cannot be batched with other adapters": bool(config.get("use_dora")),
    }
    for reason, holds in reasons.items():
        if holds:
            raise RunError(
                f"This adapter cannot be compared with its base: {reason}.",
                where=run.id,
                fix="Train it again as a plain LoRA.",
                code="adapter_changes_base",
            )


def scale(model: Any, name: str, strength: float) -> None:
    """Let a loaded adapter, by its name in PEFT, do so many times what it does (0: nothing, 1: as trained)."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.scaling:
            module.scaling[name] *= strength


def _tensors(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return len(list(file.keys()))


def _stamp(folder: Path) -> tuple[int, int]:
    """Modification time (ns) and size (bytes) of the weights; changes when a resumed run publishes a new adapter."""
    try:
        weights = (folder / "adapter_model.safetensors").stat()
    except OSError:
        return 0, 0  # loading will report what is wrong
    return weights.st_mtime_ns, weights.st_size


def _reset_generation_config(model: Any) -> None:
    """Drop a model's generation defaults except its end tokens: `generate` uses them for all that we leave unset."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)
