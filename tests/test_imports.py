"""The doors open quickly: nothing heavy is imported before it is needed."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate"}


@pytest.mark.parametrize("module", ["finetune.cli", "finetune.api", "finetune.ui.page", "finetune.server"])
def test_importing_a_door_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {sorted(HEAVY)!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_no_library_calls_home() -> None:
    code = (
        "import finetune.cli, gradio.analytics, huggingface_hub.constants as hub;"
        " print(gradio.analytics.analytics_enabled(), hub.HF_HUB_DISABLE_TELEMETRY)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
