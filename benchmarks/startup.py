"""How soon the app and the command line are there: ``python -m benchmarks.startup [--rounds 5] [--json]``.

Every figure is the median of several fresh processes, which take turns, after one start of each that is not counted:
files are in the system's cache, and modules compiled, as on every start but the first. The bare imports beside them, in
the same run, say what of it is not ours: the app cannot answer before Gradio is imported. `without stubs` is that
import as the app does it (`finetune.ui.stubs`).
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.turns import say
from finetune import models, settings

ROOT = Path(__file__).parents[1]
SAMPLE = "sample_data/tickets/train.jsonl"
OURS = {"help": ["-m", "finetune", "--help"], "check": ["-m", "finetune", "check", SAMPLE]}
REFERENCES = {
    "python": ["-c", "pass"],
    "import transformers": ["-c", "import transformers"],
    "import AutoTokenizer": ["-c", "from transformers import AutoTokenizer"],
    "import gradio": ["-c", "import gradio"],
    "import gradio, without stubs": ["-c", "from finetune.ui.stubs import skip_stubs; skip_stubs(); import gradio"],
}
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The environment of the processes: where it forbids to keep compiled modules, each start would compile them anew."""


def until_end(arguments: list[str]) -> float:
    """Seconds that a Python process takes from its start to its end.

    Raises:
        subprocess.CalledProcessError: it fails.

    Example:
        >>> until_end(["-c", "pass"])
        0.014
    """
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=COMPILED, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def until_answer(environment: Mapping[str, str]) -> float:
    """Seconds from ``python app.py`` to the whole page, as its first answer to a request.

    Raises:
        RuntimeError: the app ends before it answers.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {**environment, "GRADIO_SERVER_PORT": str(port)}
    began = time.perf_counter()
    app = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
                return time.perf_counter() - began
            except OSError:  # nobody listens yet
                if app.poll() is not None:
                    raise RuntimeError("The app ended before it answered.") from None
                time.sleep(0.01)
    finally:
        app.terminate()
        app.wait()


@contextmanager
def own_home() -> Iterator[dict[str, str]]:
    """The environment of an app with an empty home, but with the models of this one: nothing is downloaded."""
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models").symlink_to(settings.read().models)
        yield {**COMPILED, "FINETUNE_HOME": home, "HF_HUB_OFFLINE": "1"}


def measure(rounds: int) -> dict[str, float]:
    """Median seconds by name; each round measures all of them, so that other work on the machine slows all alike."""
    with own_home() as environment:
        cases: dict[str, Callable[[], float]] = {
            name: lambda arguments=arguments: until_end(arguments) for name, arguments in (OURS | REFERENCES).items()
        }
        cases["app"] = lambda: until_answer(environment)
        found: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(rounds + 1):
            for name, case in cases.items():
                seconds = case()
                say(f"round {turn} of {rounds}, {name}: {seconds:.2f} s")
                if turn:
                    found[name].append(seconds)
    return {name: round(statistics.median(seconds), 3) for name, seconds in found.items()}


def main() -> None:
    """Print a Markdown table, or one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each figure")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    here = machine()
    seconds = measure(options.rounds)
    report = {
        "machine": here,
        "rounds": options.rounds,
        "check_counts_tokens": models.here(models.DEFAULT),
        "seconds": seconds,
        "app_over_import_gradio": round(seconds["app"] / seconds["import gradio"], 2),
    }
    if options.json:
        print(json.dumps(report))
        return
    print("\n".join(f"{name}: {value}" for name, value in report.items() if name != "seconds"))
    print("\n| | median seconds |\n|---|---|")
    for name, median in seconds.items():
        print(f"| {name} | {median:.2f} |")


if __name__ == "__main__":
    main()
