"""Asks an exported folder as its users will: plain transformers (and PEFT), in a process of its own.

``python -m finetune.export.reload RESULT < JOB``, both JSON. Everything but the base of an adapter comes from the
folder: its tokenizer, its chat template, its generation config. Nothing is repaired here, so that a broken file shows.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.errors import ModelError
from finetune.export import privacy
from finetune.models.hub import environment
from finetune.models.template import Messages

SECONDS = 3600
AT_ONCE = 8


@dataclass(frozen=True)
class Job:
    """What the other process is to ask: files by path; with a `base`, `folder` is an adapter for it."""

    folder: str
    base: str | None
    thinking: bool
    max_tokens: int
    conversations: Sequence[Messages]


def answers(
    folder: Path, conversations: Sequence[Messages], max_tokens: int, base: Path | None = None, thinking: bool = False
) -> list[tuple[str, bool]]:
    """The greedy answer to each conversation, and whether it ended by itself: a lost end of turn leaves no other trace.

    With a `base`, `folder` holds an adapter for it.

    Raises:
        ModelError: it cannot be loaded or asked (code ``reload_failed``), or takes too long (``reload_timeout``).

    Example:
        >>> answers(Path("merged"), [[{"role": "user", "content": "2+2?"}]], max_tokens=16)
        [('4', True)]
    """
    job = Job(str(folder.resolve()), str(base.resolve()) if base else None, thinking, max_tokens, conversations)
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "finetune.export.reload", str(result)]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(asdict(job)),
                cwd=Path(__file__).parents[2],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                "Loading it again took too long.", where=folder.name, fix="Use fewer rows.", code="reload_timeout"
            ) from error
        if done.returncode or not result.is_file():
            private = privacy.of_this_machine(folder, *([base] if base else []))
            last = private.line((done.stderr.strip().splitlines() or ["no message"])[-1])[:200]
            raise ModelError(
                f"It cannot be loaded again: {last}", where=folder.name, fix="Do not use it.", code="reload_failed"
            )
        return [(text, ended) for text, ended in json.loads(result.read_text(encoding="utf-8"))]


def main(result: str) -> None:
    """Load, ask, write the answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = Job(**json.load(sys.stdin))
    tokenizer: Any = AutoTokenizer.from_pretrained(job.folder, trust_remote_code=False, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(
        job.base or job.folder,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32 if job.base else "auto",
    )
    if job.base:
        from peft import PeftModel
        from transformers import GenerationConfig

        model = PeftModel.from_pretrained(model, job.folder).eval()
        model.generation_config = GenerationConfig.from_pretrained(job.folder)
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    answered: list[tuple[str, bool]] = []
    for start in range(0, len(job.conversations), AT_ONCE):
        inputs = tokenizer.apply_chat_template(
            [list(one) for one in job.conversations[start : start + AT_ONCE]],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
            enable_thinking=job.thinking,
        )
        with torch.inference_mode():
            output = model.generate(
                **inputs, max_new_tokens=job.max_tokens, do_sample=False, generation_config=model.generation_config
            )
        answers = output[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        answered += [(text, not ends.isdisjoint(ids)) for text, ids in zip(texts, answers.tolist(), strict=True)]
    Path(result).write_text(json.dumps(answered), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
