"""Sampling settings and replies."""

from dataclasses import dataclass, replace

from finetune.records import Json


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. Temperature 0 is greedy: the same prompt gives the same answer.

    `top_p` restricts sampling to the most likely tokens that together have this probability;
    `repetition_penalty` lowers the scores of tokens already generated (1: off). So do OpenAI's penalties, `frequency`
    for each time and `presence` once; `bias` adds to the scores of single tokens. `top` is how many of the likeliest
    tokens are noted with each token (None: nothing is noted). `schema` is a JSON Schema, as text, that the answer keeps
    to.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    bias: tuple[tuple[int, float], ...] = ()
    top: int | None = None
    schema: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the model's scores are used as they are, and nothing is noted."""
        return replace(self, max_tokens=0, temperature=0.0, seed=0, top_p=1.0) == replace(GREEDY, max_tokens=0)


@dataclass(frozen=True)
class Mark:
    """A token of an answer with its log-probability, before any temperature or penalty; `end` is where the text is
    with it (characters). `top` are the likeliest tokens at its place: bytes and log-probability.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]
    end: int


GREEDY = Sampling()


@dataclass(frozen=True)
class Reply:
    """An answer so far. `stop` is None while it grows, then ``end_of_turn``, ``length`` or ``stopped``.

    `prompt` are the token ids given to the model. `seconds` is the time from the start of generation to the last
    token, `first` to the first one. `dropped` counts the oldest messages that were left out because the
    conversation exceeded the model's context, `ahead` the queued requests before this one. `difference` is the
    largest difference found so far between the base's logits before and after loading adapters. `by` says which other
    engine than PyTorch answered, and how it was checked. `marks` are the noted tokens, without that of the end.
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
    by: str = ""
    marks: tuple[Mark, ...] = ()

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)

    def as_dict(self) -> Json:
        """For JSON: the number of prompt tokens, not their ids."""
        names = ("text", "tokens", "prompt_tokens", "seconds", "first", "stop", "dropped", "by")
        return {name: getattr(self, name) for name in names}
