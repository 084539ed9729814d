"""What a job may run on, for how long, and what that costs at most.

The prices are the Hub's own list, asked for each time. What a run takes elsewhere cannot be known before it is there;
what it takes here was measured by the plan, and both are said for what they are.

Example:
    >>> limit("30m")
    1800
    >>> offer(flavor, 1800).most
    0.2
"""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.durations import clock, roughly
from finetune.errors import ConfigError
from finetune.jobs.account import client, told
from finetune.train.plan import Plan

if TYPE_CHECKING:
    from huggingface_hub import JobHardwareInfo

FLAVOR, TIMEOUT = "cpu-upgrade", "30m"
"""What is offered first: a machine that costs little, and time enough for a small run."""

SHORTEST, LONGEST = 300, 7 * 24 * 3600
"""Seconds of a time limit. Installing PyTorch alone takes minutes, and they count."""

UNITS = {"": 60, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
TIME = re.compile(r"\s*(\d{1,6}(?:[.,]\d{1,3})?)\s*(s|m|h|d|)(?:in|inutes|ours|ays)?\s*", re.I | re.ASCII)

PER = {"second": 1.0, "minute": 60.0, "hour": 3600.0}
"""Seconds of the units of time that machines are priced by."""


@dataclass(frozen=True)
class Flavor:
    """A kind of machine. `minute` is what one costs in US dollars; None if the Hub prices it in no unit of time."""

    name: str
    title: str
    parts: str
    minute: float | None
    gpus: int = 0

    @property
    def label(self) -> str:
        """As a choice: its name and what it has.

        Example:
            >>> flavor.label
            't4-small · Nvidia T4 - small · 4 vCPU, 15 GB, 1 × T4 (16 GB) · $0.0067 a minute'
        """
        price = [] if self.minute is None else [f"${self.minute:.2g} a minute"]
        return " · ".join([self.name, self.title, self.parts, *price])


@dataclass(frozen=True)
class Offer:
    """What a job may cost: `most` is the price of its whole time limit in US dollars; None if it is not known."""

    flavor: Flavor
    seconds: int

    @property
    def most(self) -> float | None:
        """Rounded up to a cent: it is a limit."""
        if self.flavor.minute is None:
            return None
        return math.ceil(round(100 * self.flavor.minute * self.seconds / 60, 6)) / 100

    def sentences(self, plan: Plan | None) -> str:
        """Price and time, for people: what is certain, what was measured here, and what nobody knows yet."""
        name, longest = self.flavor.name, clock(self.seconds)
        price = (
            f"The price of {name} is not known."
            if self.most is None
            else f"At most ${self.most:.2f}: {longest} of {name} at ${self.flavor.minute:.2g} a minute."
        )
        here = (
            f"On this machine the run would take about {roughly(plan.seconds)}, as measured here."
            if plan
            else "How long the run would take on this machine was not measured."
        )
        there = (
            f"How long it takes on {name} is known only once it runs there; installing the software takes extra time. "
            f"You pay Hugging Face for the time used, and the job is ended after {longest} at the latest."
        )
        return " ".join([price, here, there])


def limit(text: str) -> int:
    """A time limit as typed, in seconds; a number alone is in minutes.

    Raises:
        ConfigError: it is no such time, or too short or long.

    Example:
        >>> limit("30m"), limit("1.5h"), limit("45")
        (1800, 5400, 2700)
    """
    found = TIME.fullmatch(text)
    seconds = round(float(found[1].replace(",", ".")) * UNITS[found[2].lower()]) if found else 0
    if not SHORTEST <= seconds <= LONGEST:
        raise ConfigError(
            f"{text[:40]!r} is not a time limit from 5 minutes to 7 days.",
            where="timeout",
            fix="For example: 30m, 2h.",
        )
    return seconds


def flavors(token: str) -> list[Flavor]:
    """The machines that a run can use, cheapest first: one process trains, so those with several GPUs are left out.

    Raises:
        FinetuneError: the Hub does not say.
    """
    with told(token):
        listed = [_flavor(one) for one in client(token).list_jobs_hardware()]
    return sorted((one for one in listed if one.gpus <= 1), key=lambda one: one.minute or math.inf)


def choose(known: list[Flavor], name: str) -> Flavor:
    """The machine of this name.

    Raises:
        ConfigError: there is none; those that there are are named.
    """
    if found := next((one for one in known if one.name == name.strip()), None):
        return found
    names = ", ".join(one.name for one in known)
    raise ConfigError(
        f"There is no machine {name[:40]!r} for a run: only those with at most one GPU are used.",
        where="flavor",
        fix=f"Use one of: {names}.",
        code="flavor_unknown",
    )


def _flavor(found: "JobHardwareInfo") -> Flavor:
    parts, gpus = [found.cpu, found.ram], 0
    if found.accelerator:
        one = found.accelerator
        gpus = int(one.quantity) if str(one.quantity).isdecimal() and one.type == "gpu" else 99  # nothing else trains
        parts.append(f"{one.quantity} × {one.model} ({one.vram})")
    seconds = PER.get(found.unit_label.lower().removesuffix("s"))
    price = None if seconds is None else found.unit_cost_micro_usd / 1e6 * 60 / seconds
    return Flavor(found.name, found.pretty_name, ", ".join(parts), price, gpus)
