"""How right a run's estimate of the time left was: ``python -m benchmarks.eta [RUN]``.

RUN is a finished run of this home; without one, the recorded run of the tests. What was shown
right after each share of the steps is held against when the run really ended.
"""

import sys

from finetune import settings
from finetune.store import Event, Run, Store
from finetune.train.progress import progress
from tests.train.events import recorded, upto

SHARES = (0.1, 0.25, 0.5, 0.75)


def errors(run: Run, events: list[Event]) -> list[tuple[float, float, float]]:
    """(share of the steps, seconds left as estimated, seconds left in truth)

    Example:
        >>> errors(*recorded())[0]
        (0.1, 277.4, 292.4)
    """
    found = []
    for share in SHARES:
        known = upto(events, max(2, round(run.steps * share)))
        eta = progress(run, known).eta
        found.append((share, eta or 0.0, events[-1].at - known[-1].at))
    return found


def main() -> None:
    """Print a Markdown table."""
    run, events = recorded()
    if len(sys.argv) > 1:
        from dataclasses import replace

        store = Store(settings.read().home)
        run, events = replace(store.run(sys.argv[1]), state="running", ended=None), store.events(sys.argv[1])
    print("| share of the steps | estimated left | really left | error |\n|---|---|---|---|")
    for share, eta, left in errors(run, events):
        print(f"| {share:.0%} | {eta:.0f} s | {left:.0f} s | {eta / left - 1:+.0%} |")


if __name__ == "__main__":
    main()
