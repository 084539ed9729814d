"""Models and tokenizers are loaded in several threads at once, as in a server that has just started."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from finetune import models
from finetune.chat import Ask, Engine

found = models.find(sys.argv[1])
asked = [Ask([{"role": "user", "content": "hello"}])]
jobs = [
    *[lambda: models.load_tokenizer(found)] * 4,
    *[lambda: models.load_model(found)] * 2,
    *[lambda: models.load_empty(found)] * 2,
    lambda: list(Engine().stream(asked, sys.argv[1])),
]
with ThreadPoolExecutor(len(jobs)) as threads:
    for done in [threads.submit(job) for job in jobs]:
        done.result()
"""


def test_a_fresh_process_loads_in_several_threads_at_once(tiny: Path) -> None:
    command = [sys.executable, "-c", AT_ONCE, str(tiny)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
