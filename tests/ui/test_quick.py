"""Gradio imported the quick way is the same Gradio."""

import subprocess
import sys

IMPORT = """
import sys
opened = []
def hear(event, told):
    if event == "open" and str(told[0]).endswith(".pyi"):
        opened.append(told[0])
sys.addaudithook(hear)
from finetune.ui.quick import import_gradio
import_gradio()
import inspect
import gradio
print(len(opened), inspect.getfile(gradio.Button).endswith("button.py"), callable(gradio.Button.click))
print(*sorted(name for name, one in vars(gradio.Button).items() if callable(one)))
"""


def printed(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


def test_no_stub_is_written_and_nothing_else_changes() -> None:
    stubs, quick = printed(IMPORT)
    assert stubs == "0 True True"
    plain = printed(IMPORT.replace("import_gradio()\n", "\n", 1))
    assert plain[0] != stubs, "Gradio no longer renders stubs: quick.py can go"
    assert plain[1] == quick
