"""Each call of OpenAI's client, made once: the table in docs/openai.md says what came of it.

``WRITE_DOCS=1 pytest tests/api/test_table.py`` writes the table that is otherwise compared.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openai import APIStatusError, AzureOpenAI, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.api.conftest import becomes, lines
from tests.api.test_preferences import preferences

PAGE = Path(__file__).parents[2] / "docs" / "openai.md"
BEGIN, END = "<!-- table: written by tests/api/test_table.py -->\n", "<!-- end of table -->"

HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]}]
CHAT: list[dict[str, Any]] = [
    {"temperature": 0.5},
    {"top_p": 0.5},
    {"max_tokens": 4},
    {"max_completion_tokens": 4},
    {"seed": 1},
    {"n": 2},
    {"stop": ["x"]},
    {"stream": True},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"logprobs": True, "top_logprobs": 2},
    {"presence_penalty": 1},
    {"frequency_penalty": 1},
    {"logit_bias": {"5": 1}},
    {"response_format": {"type": "json_object"}},
    {"response_format": FORM},
    {"tools": TOOLS},
    {"reasoning_effort": "low"},
    {"service_tier": "auto"},
    {"service_tier": "flex"},
    {"store": False},
    {"store": True},
    {"user": "me"},
    {"modalities": ["audio"]},
    {"web_search_options": {}},
    {"messages": [{"role": "developer", "content": "Be brief."}, *HI]},
    {"messages": IMAGE},
]
SHOWN = {str(FORM): "json_schema", str(TOOLS): "[…]", str(IMAGE): "an image"}


class Calls:
    """The calls, in the order in which they are made; each may use what the ones before have made."""

    def __init__(self, client: OpenAI, azure: AzureOpenAI, job: FineTuningJob):
        self.client, self.azure, self.job = client, azure, job
        self.file, self.begun = "", ""
        self.rows: list[tuple[str, str]] = []

    def make(self) -> None:
        """All of them."""
        self._files()
        self._jobs()
        self._models()
        for keys in CHAT:
            self._chat(keys)
        self._others()

    def _files(self) -> None:
        files = self.client.files
        self.file = self("files.create(purpose='fine-tune')", lambda: self._upload("fine-tune")) or ""
        for purpose in ("evals", "batch", "assistants"):
            self(f"files.create(purpose='{purpose}')", lambda purpose=purpose: self._upload(purpose))
        self("files.list", files.list)
        self("files.retrieve", lambda: files.retrieve(self.file))
        self("files.content", lambda: files.content(self.file))
        kind: Any = {"filename": "x.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
        uploads, rows = self.client.uploads, lines(20)
        self("uploads.upload_file_chunked", lambda: uploads.upload_file_chunked(file=rows, bytes=len(rows), **kind))
        self("uploads.cancel", lambda: uploads.cancel(uploads.create(bytes=1, **kind).id))

    def _upload(self, purpose: Any) -> str:
        return self.client.files.create(file=("sums.jsonl", lines(60)), purpose=purpose).id

    def _preferences(self) -> str:
        return self.client.files.create(file=("pairs.jsonl", preferences(60)), purpose="fine-tune").id

    def _jobs(self) -> None:
        jobs = self.client.fine_tuning.jobs
        create = {"training_file": self.file, "model": "gpt-4o-mini"}
        name = "fine_tuning.jobs.create"
        for keys in (
            {"suffix": "x", "seed": 1, "metadata": {"a": "b"}},
            {"hyperparameters": {"n_epochs": 1, "batch_size": "auto", "learning_rate_multiplier": 2}},
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 1}}}},
        ):
            shown = ", ".join(keys)
            self.begun = self(f"{name}({shown})", lambda keys=keys: jobs.create(**create, **keys).id) or ""
            if "method" not in keys:
                jobs.cancel(self.begun)
        self(f"{name}(validation_file)", lambda: jobs.cancel(jobs.create(**create, validation_file=self.file).id))  # type: ignore[arg-type]
        pairs: Any = {**create, "training_file": self._preferences()}
        self(f"{name}(method=dpo)", lambda: jobs.cancel(jobs.create(**pairs, method={"type": "dpo"}).id))
        self(f"{name}(method=reinforcement)", lambda: jobs.create(**create, method={"type": "reinforcement"}))  # type: ignore[arg-type]
        wandb: Any = [{"type": "wandb", "wandb": {"project": "x"}}]
        self(f"{name}(integrations)", lambda: jobs.create(**create, integrations=wandb))  # type: ignore[arg-type]
        becomes(self.client, self.begun, "queued", "running")
        self("fine_tuning.jobs.list", jobs.list)
        self("fine_tuning.jobs.list(metadata)", lambda: jobs.list(metadata={"a": "b"}))
        self("fine_tuning.jobs.retrieve", lambda: jobs.retrieve(self.begun))
        self("fine_tuning.jobs.list_events", lambda: jobs.list_events(self.begun, limit=2))
        self("fine_tuning.jobs.pause", lambda: jobs.pause(self.begun))
        becomes(self.client, self.begun, "paused")
        self("fine_tuning.jobs.resume", lambda: jobs.resume(self.begun))
        self("fine_tuning.jobs.cancel", lambda: jobs.cancel(self.begun))
        self("fine_tuning.jobs.checkpoints.list", lambda: jobs.checkpoints.list(self.job.id))
        path = f"/fine_tuning/jobs/{self.job.id}/verdict"
        self("post('/fine_tuning/jobs/{id}/verdict'), which is ours", lambda: self.client.post(path, cast_to=object))
        self(
            "post('/fine_tuning/jobs/{id}/verdict/cancel')", lambda: self.client.post(f"{path}/cancel", cast_to=object)
        )
        self("get('/fine_tuning/jobs/{id}/verdict')", lambda: self.client.get(path, cast_to=object))
        self("files.content(result_files[0])", lambda: self.client.files.content(self.job.result_files[0]))
        self("files.delete", lambda: self.client.files.delete(self.file))

    def _models(self) -> None:
        self("models.list", self.client.models.list)
        self("models.retrieve", lambda: self.client.models.retrieve(self.job.fine_tuned_model or ""))
        run = becomes(self.client, self.begun, "cancelled")
        assert run.id
        self("models.delete(a base model)", lambda: self.client.models.delete("gpt-4o-mini"))

    def _chat(self, keys: dict[str, Any]) -> None:
        shown = ", ".join(f"{key}={SHOWN.get(str(value), value)}" for key, value in keys.items())
        asked = {"model": self.job.fine_tuned_model, "messages": HI, "max_tokens": 4, **keys}
        if "max_completion_tokens" in keys:
            del asked["max_tokens"]

        def ask() -> None:
            answer = self.client.chat.completions.create(**asked)
            if keys.get("stream"):
                list(answer)

        self(f"chat.completions.create({shown})", ask)

    def _others(self) -> None:
        client, model = self.client, self.job.fine_tuned_model or ""
        self("completions.create", lambda: client.completions.create(model=model, prompt="Hi", max_tokens=4))
        self("responses.create", lambda: client.responses.create(model=model, input="Hi", max_output_tokens=16))
        self("embeddings.create", lambda: client.embeddings.create(model=model, input="Hi"))
        self("moderations.create", lambda: client.moderations.create(input="Hi"))
        self("batches.list", client.batches.list)
        self("evals.list", client.evals.list)
        azure = self.azure
        name = "AzureOpenAI: "
        self(f"{name}files.create", lambda: azure.files.create(file=("x.jsonl", lines(3)), purpose="fine-tune"))
        self(f"{name}fine_tuning.jobs.retrieve", lambda: azure.fine_tuning.jobs.retrieve(self.job.id))
        self(
            f"{name}chat.completions.create",
            lambda: azure.chat.completions.create(model=model, messages=HI, max_tokens=4),
        )  # type: ignore[arg-type]

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        """Make one call, and note what came of it."""
        try:
            made, outcome = call(), "works"
        except APIStatusError as error:
            made, outcome = None, f"refused: `{error.param}`" if error.param else f"not there ({error.status_code})"
        self.rows.append((name, outcome))
        return made

    def table(self) -> str:
        """What came of each."""
        rows = "".join(f"| `{name}` | {outcome} |\n" for name, outcome in self.rows)
        return f"| call | |\n|---|---|\n{rows}"


def test_the_table_says_what_comes_of_each_call(client: OpenAI, azure: AzureOpenAI, job: FineTuningJob) -> None:
    calls = Calls(client, azure, job)
    calls.make()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    written, _, after = rest.partition(END)
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(before + BEGIN + calls.table() + END + after, encoding="utf-8")
    else:
        assert written == calls.table(), "run: WRITE_DOCS=1 pytest tests/api/test_table.py"
