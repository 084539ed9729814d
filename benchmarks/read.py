"""How fast rows are read, beside plain ``json.loads`` a line on the same file in the same run.

    python -m benchmarks.read --json
    python -m benchmarks.read --mb 500 --kind csv

Each side runs in a process of its own, so that peak memory is its own too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

KINDS = ("jsonl", "json", "csv")
TURNS = [
    {"role": "system", "content": "You keep a lighthouse and answer in its voice."},
    {"role": "user", "content": "What did the night bring? " * 8},
    {"role": "assistant", "content": "Fog — thick as wool — and a ship that trusted the lamp. " * 8},
]


def build(path: Path, mb: int, kind: str) -> None:
    """Write about `mb` megabytes of chat rows of about 900 bytes each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            file.write("number,question,answer\n")
        if kind == "json":
            file.write("[\n")
        number = 0
        while file.tell() < mb * 1_000_000:
            for _ in range(1000):
                number += 1
                _write(file, number, kind)
        if kind == "json":
            file.write('{"number": 0, "messages": []}\n]\n')


def _write(file: TextIO, number: int, kind: str) -> None:
    if kind == "csv":
        file.write(f'{number},"{TURNS[1]["content"]}","{TURNS[2]["content"]}"\n')
        return
    row = json.dumps({"number": number, "messages": TURNS}, ensure_ascii=False)
    file.write(row + (",\n" if kind == "json" else "\n"))


def ours(path: Path) -> int:
    from finetune.data.read import read

    return sum(row.error is None for row in read(path).rows)


def plain(path: Path) -> int:
    """What a script would do: no line numbers, no limits, and a stop at the first bad line."""
    with path.open(encoding="utf-8") as file:
        return sum(bool(json.loads(line)) for line in file)


def measure(side: str, path: Path) -> dict[str, float]:
    """Run one side in a child process: rows, seconds, and peak memory in MB."""
    command = [sys.executable, "-m", "benchmarks.read", "--side", side, "--file", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def run_side(side: str, path: Path) -> dict[str, float]:
    start = time.perf_counter()
    rows = {"ours": ours, "plain": plain}[side](path)
    seconds = time.perf_counter() - start
    return {"rows": rows, "seconds": round(seconds, 3), "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Linux's high-water mark; a child's ``ru_maxrss`` would begin at its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def compare(mb: int, kind: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{kind}"
        build(path, mb, kind)
        size = path.stat().st_size / 1_000_000
        sides = {side: measure(side, path) for side in (["ours", "plain"] if kind == "jsonl" else ["ours"])}
    for result in sides.values():
        result["mb_per_second"] = round(size / result["seconds"], 1)
    report: dict[str, object] = {"kind": kind, "file_mb": round(size, 1), **sides}
    if "plain" in sides:
        report["ours_over_plain_seconds"] = round(sides["ours"]["seconds"] / sides["plain"]["seconds"], 2)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mb", type=int, default=100, help="size of the file to build, in megabytes")
    parser.add_argument("--kind", choices=KINDS, default="jsonl", help="format of the file to build")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options.side, options.file)))
        return
    report = compare(options.mb, options.kind)
    if options.json:
        print(json.dumps(report))
    else:
        print("\n".join(f"{key:>26}  {value}" for key, value in report.items()))


if __name__ == "__main__":
    main()
