"""How fast a dataset is checked, beside what else reads a file of JSON lines, on the same files in the same run.

    python -m benchmarks.check --json
    python -m benchmarks.check --rows 20000 --rounds 5

The rows are written to a temporary folder with a fixed seed: short ones (0.7 kB, a chat of one question) and long ones
(5 kB). In each round every side takes its turn, in a process of its own, so that a busy machine slows all of them, and
peak memory is its own too. Megabytes per second of wall-clock time, and of processor time, which a busy machine
changes less; both are medians over the rounds. The check of a large file has a second process (`finetune.data.second`),
whose processor time is counted too; "one process" is the check without it.
"""

import argparse
import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.read import ours, peak_mb, plain
from benchmarks.turns import say

WORDS = {"short": 45, "long": 400}
"""Words in a question, and in an answer."""

GROWTH = (100, 1_000, 10_000, 100_000)
"""Numbers of short rows between which the time of the check is compared."""

SYSTEM = "You keep a lighthouse and answer in its voice."
LETTERS = "etaoinshrdlucmfwypvbgk"


def build(path: Path, rows: int, words: int) -> None:
    """Write chat rows of invented words; each tenth has letters beyond ASCII, each fiftieth nearly repeats another."""
    draw = random.Random(0)
    known = ["".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(5_000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            if number % 50 or not number:
                question = " ".join(draw.choices(known, k=words)).capitalize() + "?"
                answer = " ".join(draw.choices(known, k=words)).capitalize() + ("." if number % 10 else " — café.")
            else:
                question = question.upper()
            turns = (("system", SYSTEM), ("user", question), ("assistant", answer))
            row = {"messages": [{"role": role, "content": content} for role, content in turns]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def check(path: Path) -> int:
    """The whole check: `python -m finetune check` without printing."""
    from finetune.data import load

    return load(path).rows


def alone(path: Path) -> int:
    """The check where there is one core."""
    from finetune.data import second

    second.cores = lambda: 1
    return check(path)


def fastest(path: Path) -> int:
    """What a script would do that has orjson."""
    import orjson

    with path.open("rb") as file:
        return sum(bool(orjson.loads(line)) for line in file)


def tables(path: Path) -> int:
    """Hugging Face's loader: parsed with pyarrow, and written to an Arrow file. Nothing is checked."""
    from datasets import load_dataset

    return len(load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / str(os.getpid()))))


SIDES: dict[str, Callable[[Path], int]] = {
    "check": check,
    "one process": alone,
    "read": ours,
    "json.loads": plain,
    "orjson.loads": fastest,
    "datasets": tables,
}
NEEDED = {"orjson.loads": "orjson", "datasets": "datasets"}


def run_side(side: str, path: Path, warm: Path) -> dict[str, float]:
    """Time one side in this process, after it has imported what it needs for the file `warm`."""
    SIDES[side](warm)
    began, busy = time.perf_counter(), _busy()
    rows = SIDES[side](path)
    seconds, processor_seconds = time.perf_counter() - began, _busy() - busy
    return {"rows": rows, "seconds": seconds, "cpu_seconds": processor_seconds, "peak_mb": peak_mb()}


def _busy() -> float:
    """Processor time of this process, and of those that it began and that have ended."""
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + others.ru_utime + others.ru_stime


def in_turn(sides: list[str], path: Path, warm: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The medians of each side over the rounds."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            command = [sys.executable, "-m", "benchmarks.check", "--side", side, "--file", str(path), str(warm)]
            offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=offline)
            found[side].append(json.loads(done.stdout))
            say(f"{path.name}, {side}: {found[side][-1]['seconds']:.2f} s")
    size = path.stat().st_size / 1e6
    return {side: _summary(results, size) for side, results in found.items()}


def _summary(results: list[dict[str, float]], size: float) -> dict[str, float]:
    middle = {name: statistics.median(result[name] for result in results) for name in results[0]}
    return {
        "mb_per_second": round(size / middle["seconds"], 1),
        "mb_per_cpu_second": round(size / middle["cpu_seconds"], 1),
        "best_mb_per_second": round(size / min(result["seconds"] for result in results), 1),
        "us_per_row": round(middle["seconds"] / middle["rows"] * 1e6, 1),
        "peak_mb": middle["peak_mb"],
    }


def compare(rows: int, rounds: int, growth: tuple[int, ...] = GROWTH) -> dict[str, object]:
    """Everything measured, with the machine and the versions it was measured on."""
    sides = [side for side in SIDES if side not in NEEDED or importlib.util.find_spec(NEEDED[side])]
    report: dict[str, object] = {"machine": machine(), "rounds": rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(warm := folder / "warm.jsonl", 20, WORDS["short"])
        for kind, words in WORDS.items():
            build(path := folder / f"{kind}.jsonl", rows * WORDS["short"] // words, words)
            report[kind] = {"file_mb": round(path.stat().st_size / 1e6, 1), **in_turn(sides, path, warm, rounds)}
        files = {count: folder / f"{count}.jsonl" for count in growth}
        for count, path in files.items():
            build(path, count, WORDS["short"])
        report["growth"] = {count: in_turn(["check"], path, warm, rounds)["check"] for count, path in files.items()}
    return report | {"load_after": os.getloadavg()[0]}


def main() -> None:
    """Print the report, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="short rows; there are as many bytes of long ones")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options.side, *options.file)))
        return
    report = compare(options.rows, options.rounds)
    if options.json:
        print(json.dumps(report))
        return
    for title, part in report.items():
        print(f"{title}: {part}" if not isinstance(part, dict) else title)
        for key, value in part.items() if isinstance(part, dict) else ():
            print(f"  {key!s:>14}  {value}")


if __name__ == "__main__":
    main()
