"""An interpreter that ends right after an answer ends well, as a command line's does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

AMID_A_CALL = """
import sys
import torch
from finetune.chat import Ask, Engine, driver

def computing(self):
    for _ in range(0 if self._jobs else 2000):  # the answer is complete, and the interpreter about to end
        torch.ones(200, 200) @ torch.ones(200, 200)

driver.Driver._let_go = computing
print(Engine().answer([Ask([{"role": "user", "content": "hello"}])], sys.argv[1])[0].stop)
"""


def test_the_thread_is_out_of_pytorch_before_the_interpreter_ends(tiny: Path) -> None:
    command = [sys.executable, "-c", AMID_A_CALL, str(tiny)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "length"), done.stderr[-2000:]
