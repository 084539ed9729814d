"""How an answer is asked for, and what comes back."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy: the same prompt gives the same answer."""

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


GREEDY = Sampling()


@dataclass(frozen=True)
class Reply:
    """An answer so far. `stop` is None while it grows, then ``end_of_turn``, ``length`` or ``stopped``.

    `seconds` counts from the start of generation to the column's last token, `first` to its first. `dropped` counts
    the oldest turns left out because the conversation outgrew the model's context.
    """

    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0
    first: float | None = None
    stop: str | None = None
    dropped: int = 0
