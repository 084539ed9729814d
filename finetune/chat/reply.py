"""How an answer is asked for, and what comes back."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy: the same prompt gives the same answer.

    `top_p` keeps the likeliest tokens that have this share of the probability together;
    `repetition_penalty` divides the score of tokens that were said before (1 changes nothing).
    """

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


GREEDY = Sampling()


@dataclass(frozen=True)
class Reply:
    """An answer so far. `stop` is None while it grows, then ``end_of_turn``, ``length`` or ``stopped``.

    `prompt` holds the token ids that the model was given. `seconds` counts from the start of generation to the
    column's last token, `first` to its first. `dropped` counts the oldest messages left out because the
    conversation outgrew the model's context; `ahead` the answers that others get before this one begins.
    `difference` is the largest found so far between the base's logits before and beside its adapters.
    """

    text: str = ""
    tokens: int = 0
    prompt: tuple[int, ...] = ()
    seconds: float = 0.0
    first: float | None = None
    stop: str | None = None
    dropped: int = 0
    ahead: int = 0
    difference: float | None = None

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)

    def as_dict(self) -> dict[str, Any]:
        """For programs: how many prompt tokens, not which."""
        names = ("text", "tokens", "prompt_tokens", "seconds", "first", "stop", "dropped")
        return {name: getattr(self, name) for name in names}
