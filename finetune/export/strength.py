"""At which strength of its adapter a run is exported: chosen once, kept with the run, the same for every export.

A LoRA layer adds B·A times alpha / rank (rsLoRA: / √rank). Strength s multiplies that by s: 1 is the adapter as it was
trained and judged, less keeps more of the base. It is written into alpha, so that whatever loads the adapter gives the
same; the weights stay as they are.

    <run folder>/strength.json    the choice, with the hash of the adapter it was made for; without it, 1

Example:
    >>> choose(run, 0.75)
    0.75
    >>> chosen(run)
    0.75
"""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from finetune import train
from finetune.errors import ConfigError, RunError
from finetune.evaluate.task import adapter_hash
from finetune.files import aside
from finetune.records import Json, Record, Sha
from finetune.store import Run

if TYPE_CHECKING:
    from pathlib import Path

MOST = 2.0
DIGITS = 2
FILE = "strength.json"
AS_TRAINED = 1.0


def _coarse(strength: float) -> float:
    if round(strength, DIGITS) != strength:
        raise ValueError(f"a strength has at most {DIGITS} decimals")
    return strength


Strength = Annotated[float, Field(gt=0, le=MOST), AfterValidator(_coarse)]


class Chosen(Record):
    """The strength that was chosen for the adapter with this SHA-256."""

    strength: Strength
    adapter: Sha


def valid(strength: Any) -> float:
    """A strength that an export may have.

    Raises:
        ConfigError: it is none.

    Example:
        >>> valid(0.75)
        0.75
    """
    fix = f"Use a number above 0 and up to {MOST:g}, such as 0.75; 1 is the adapter as trained."
    if isinstance(strength, bool) or not isinstance(strength, int | float):
        raise ConfigError("The strength is not a number.", where="strength", fix=fix)
    if strength == 0:
        raise ConfigError("At strength 0 there is nothing to export but the base itself.", where="strength", fix=fix)
    if not 0 < strength <= MOST:  # false for NaN too
        raise ConfigError(f"{strength:g} is not a valid adapter strength.", where="strength", fix=fix)
    if round(strength, DIGITS) != strength:
        raise ConfigError(f"{strength} has more than {DIGITS} decimals.", where="strength", fix=fix)
    return float(strength)


def chosen(run: Run) -> float:
    """The strength at which this run is exported; 1 unless another was chosen for the adapter that it has now."""
    try:
        kept = Chosen.model_validate_json(_place(run).read_bytes())
    except (OSError, ValueError):  # none, or damaged: as good as not there
        return AS_TRAINED
    return kept.strength if kept.adapter == adapter_hash(run) else AS_TRAINED


def choose(run: Run, strength: Any) -> float:
    """Export this run at a strength from now on.

    Raises:
        ConfigError: it is none.
        RunError: the run has no adapter.
    """
    strength, adapter = valid(strength), adapter_hash(run)
    if not adapter:
        raise RunError(f"The run has no adapter ({run.state}).", where=run.id, fix="Wait until it has finished.")
    if strength == AS_TRAINED:
        _place(run).unlink(missing_ok=True)
        return strength
    with aside(_place(run)) as place:
        place.write_text(Chosen(strength=strength, adapter=adapter).model_dump_json(), encoding="utf-8")
    return strength


def _place(run: Run) -> "Path":
    return train.run_folder(run.id) / FILE


def scaled(config: Json, strength: float) -> Json:
    """An ``adapter_config.json`` with which PEFT, and whatever else reads it, applies the adapter at a strength.

    Example:
        >>> scaled({"r": 16, "lora_alpha": 32}, 0.75)
        {'r': 16, 'lora_alpha': 24}
    """
    if strength == AS_TRAINED:
        return config
    found = config | {"lora_alpha": _times(config["lora_alpha"], strength)}
    if patterns := config.get("alpha_pattern"):  # layers with an alpha of their own
        found["alpha_pattern"] = {layer: _times(alpha, strength) for layer, alpha in patterns.items()}
    return found


def _times(alpha: float, strength: float) -> float:
    """A whole number where it is one, as tools expect alpha to be."""
    product = float(f"{alpha * strength:.12g}")
    return int(product) if product.is_integer() else product


def word(strength: float) -> str:
    """Said of an export that is not as trained; "" of one that is."""
    if strength == AS_TRAINED:
        return ""
    return f"The adapter is exported at strength {strength:g}; the verdict is about strength 1, the adapter as trained."
