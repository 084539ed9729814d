"""The doors open quickly: nothing heavy is imported before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate"}
LIBRARIES = HEAVY | {"gradio", "numpy", "pydantic", "huggingface_hub", "jinja2", "tokenizers"}

RUN = """
import contextlib, sys
from finetune.cli import main
with contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
"""


def said(*words: str) -> tuple[str, set[str]]:
    """What a command line prints, and the modules it has imported when it ends."""
    result = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=True)
    return result.stdout, set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--help"], []], ids=["help", "nothing"])
def test_help_imports_no_library(words: list[str]) -> None:
    _, imported = said(*words)
    assert imported & LIBRARIES == set()


def test_a_check_counts_tokens_without_pytorch(tiny: Path) -> None:
    printed, imported = said("check", "sample_data/tickets", "--model", str(tiny))
    assert "Tokens per row" in printed
    assert imported & (HEAVY | {"gradio", "huggingface_hub.hf_api"}) == set()


@pytest.mark.model
def test_a_check_with_the_default_model_imports_nothing_heavy(default_model: str) -> None:
    printed, imported = said("check", "sample_data/tickets", "--model", default_model)
    assert "Tokens per row" in printed
    assert imported & (HEAVY | {"gradio", "huggingface_hub.hf_api"}) == set()


@pytest.mark.parametrize("module", ["finetune.cli", "finetune.api", "finetune.ui.page", "finetune.server"])
def test_importing_a_door_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {sorted(HEAVY)!r} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_the_page_is_built_without_stubs_for_editors_and_without_scipy(home: Path) -> None:
    """Each is a second or more of the app's start; Gradio's components must be whole all the same."""
    code = """
import sys
from finetune.ui.stubs import skip_stubs
skip_stubs()
import gradio, gradio.component_meta
from finetune import services, settings, store, chat
from finetune.ui import page
built = page.build(services.Services(store.Store(settings.read().home), chat.Engine()))
written = gradio.component_meta.create_or_modify_pyi(gradio.Button, "Button", gradio.Button.EVENTS)
print(written, len(built.blocks) > 100, callable(gradio.Button.click), {"scipy.stats", "torch"} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["None", "True", "True", "set()"]


def test_no_library_calls_home() -> None:
    code = (
        "import finetune.cli, gradio.analytics, huggingface_hub.constants as hub;"
        " print(gradio.analytics.analytics_enabled(), hub.HF_HUB_DISABLE_TELEMETRY)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]
