"""What the command line, the library and programs ask of both models: numbers out of range are refused.

The page's sliders and the API's models have bounds of their own.
"""

import secrets

from finetune.chat.reply import Sampling
from finetune.chat.talk import Column, Talk, refuse_untuned
from finetune.errors import ConfigError
from finetune.store import Facts, Run


def both(run: Run, facts: Facts, system: str | None = None, step: int | None = None, strength: float = 1.0) -> Talk:
    """Base and tuned beside each other; `system` None is the system prompt that the data has.

    Raises:
        ConfigError: the strength is out of range.
        RunError: the run has no adapter, or no checkpoint of this step; seen before a base is loaded.

    Example:
        >>> both(run, store.dataset(run.dataset).facts).asks("Title: Toast")
    """
    if not 0 <= strength <= 10:
        raise ConfigError(f"{strength:g} is out of range.", where="strength", fix="Use 0 to 10; 1 is normal.")
    refuse_untuned(run, step)
    tuned = Column("tuned", "Tuned", run, step, strength)
    return Talk(run, (Column("base", "Base"), tuned), (facts.system if system is None else system) or "", facts.thinks)


def sampling(max_tokens: int, temperature: float, seed: int | None = None) -> Sampling:
    """What was asked for, with another seed each time unless one is given.

    Raises:
        ConfigError: a number is out of range.

    Example:
        >>> sampling(64, 0.0, seed=1)
        Sampling(max_tokens=64, temperature=0.0, seed=1)
    """
    seed = secrets.randbits(62) if seed is None else seed
    for name, fits, allowed in (
        ("max_tokens", max_tokens >= 1, "a whole number above 0"),
        ("temperature", 0 <= temperature <= 2, "0 to 2"),
        ("seed", 0 <= seed < 2**63, "a whole number from 0 on"),
    ):
        if not fits:
            raise ConfigError("This is out of range.", where=name, fix=f"Use {allowed}.")
    return Sampling(max_tokens, temperature, seed)
