"""How many requests a key may make in a minute, in OpenAI's headers and its error."""

import math

from finetune.api.errors import ApiError
from finetune.pace import Pace


def counted(pace: Pace, owner: str, per_minute: float) -> dict[str, str]:
    """Count one request; the headers that tell how many more there may be.

    Raises:
        ApiError: there may be none now (429), and when there may be the next.

    Example:
        >>> counted(Pace(), "local", per_minute=120)["x-ratelimit-remaining-requests"]
        '119'
    """
    turn = pace.take(owner, per_minute)
    if not turn.allowed:
        said = f"Rate limit reached: {turn.most} requests per minute. Try again in a moment."
        raise ApiError(said, status=429, code="rate_limit_exceeded", after=math.ceil(turn.next))
    return {
        "x-ratelimit-limit-requests": str(turn.most),
        "x-ratelimit-remaining-requests": str(turn.left),
        "x-ratelimit-reset-requests": f"{turn.full:.3f}s",
    }
