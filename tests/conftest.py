"""What the tests share: a home of their own, a tiny random model, and the real default model."""

import contextlib
import importlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest
from anyio.from_thread import start_blocking_portal

from finetune import data, models, schema, train
from finetune.models import packaged
from finetune.store import ENDED, DatasetRecord, Event, Run, Store, new_id
from tests import examples
from tests.zygote import QUICK, ForkingSupervisor, zygote

T = TypeVar("T")

WORKER = "finetune.train.worker"

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pytest_configure(config: pytest.Config) -> None:
    """Decided before the modules are imported whose decorators ask, and before PyTorch counts the processors."""
    examples.ALL = config.option.markexpr == "sweep"
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of two threads each would wait for each other
    os.nice(max(0, 10 - os.nice(0)))  # workers give way: beside tests that do not, they would crawl
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("10")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a sweep, hypothesis's tests count as part of it. Long files come first: the last one should be short."""
    items.sort(key=lambda item: [not item.get_closest_marker(name) for name in ("browser", "model")])
    for item in items if examples.ALL else []:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("sweep")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh FINETUNE_HOME for every test."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FINETUNE_HOME", str(folder))
    monkeypatch.delenv("FINETUNE_SHARED", raising=False)
    monkeypatch.setenv("FINETUNE_PRECISION", "fp32")  # runs are compared with others to the last digits
    monkeypatch.delenv("SPACE_ID", raising=False)
    return folder


@pytest.fixture(autouse=True)
def quick_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreters that measure a plan and load an export again are forked; they need not import PyTorch first."""
    for module in ("finetune.train.plan", "finetune.export.reload"):
        monkeypatch.setattr(importlib.import_module(module), "subprocess", QUICK)


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home)


def make_tokenizer(text: str = 'hello world 0123456789 {}[]",.:;!?') -> "object":
    """A byte-level BPE tokenizer with ChatML's special tokens; it can encode any text."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([text], BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[1], eos_token=special[2], pad_token=special[2]
    )
    fast.chat_template = CHATML
    return fast


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer Llama and its tokenizer: real files, real architecture, no sense."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def packaged_models(pytestconfig: pytest.Config) -> Path:
    """The real default model, prepared once and kept in pytest's cache between runs."""
    folder = pytestconfig.cache.mkdir("models")
    packaged.prepare(folder, print)
    return folder


@pytest.fixture
def default_model(packaged_models: Path, home: Path) -> str:
    """The default model's name, with its packaged copy ready in this test's home."""
    (home / "models").symlink_to(packaged_models)
    return models.DEFAULT


def conversation(question: str, answer: str) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": question}, {"role": "assistant", "content": answer})


@pytest.fixture
def small_dataset(tmp_path: Path) -> data.Dataset:
    """Twenty different little examples."""
    rows = [{"messages": conversation(f"What is {i} plus {i}?", f"It is {2 * i}.")} for i in range(20)]
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)


def said(events: AsyncGenerator[T]) -> Iterator[T]:
    """What an event of the page yields, in an event loop of its own: a browser test may have one in this thread."""
    with start_blocking_portal() as portal:
        while True:
            try:
                yield portal.call(anext, events)
            except StopAsyncIteration:
                return


def run_to_end(store: Store, run: Run, seconds: float = 180, supervisor: train.Supervisor | None = None) -> Run:
    """Supervise a run until it has ended."""
    supervisor, give_up = supervisor or ForkingSupervisor(store), time.monotonic() + seconds
    while (run := store.run(run.id)).state not in ENDED:
        assert time.monotonic() < give_up, f"still {run.state}: {store.events(run.id)[-3:]}"
        supervisor.tick()
        time.sleep(0.1)
    return run


def killed_once(store: Store, run: Run, at: int, seen: str = "step") -> Run:
    """Kill a run's worker (-9) at a step, once there is an event `seen`, and see its next try to the end."""
    supervisor, give_up = ForkingSupervisor(store), time.monotonic() + 120
    while not store.events_of(run.id, seen) or store.run(run.id).step < at:
        supervisor.tick()
        time.sleep(0.02)
        assert time.monotonic() < give_up
    pid = store.run(run.id).pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    return run_to_end(store, run, supervisor=supervisor)


def train_tiny(store: Store, tiny: Path, dataset: data.Dataset, **settings: object) -> Run:
    """A finished run of the tiny model, by a real worker that need not import PyTorch first.

    The same data with the same settings is trained once a session; later ones get a copy of its folder and record.
    """
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 4, **settings})
    record = data.save_dataset(store, dataset)
    told = [name for name in os.environ if name.startswith("FINETUNE_") and name != "FINETUNE_HOME"]
    key = json.dumps([Path(record.folder).name, config.model_dump(), {name: os.environ[name] for name in told}])
    if made := trained.get(key):
        return made.copy(store, record)
    run = train.start(store, config, record)
    zygote().worker(run, os.environ, WORKER).wait(180)
    run = run_to_end(store, run)
    folder = Path(tempfile.mkdtemp(prefix="trained-"))
    shutil.copytree(train.run_folder(run.id), folder, dirs_exist_ok=True)
    trained[key] = Trained(folder, run, store.events(run.id))
    return run


@dataclass(frozen=True)
class Trained:
    """A run that was trained in this session: its folder and its record, to be copied."""

    folder: Path
    run: Run
    events: list[Event]

    def copy(self, store: Store, record: DatasetRecord) -> Run:
        """The same run in another home, under an id of its own."""
        run = replace(self.run, id=new_id("r"), dataset=record.id, created=time.time())
        shutil.copytree(self.folder, train.run_folder(run.id))
        with store._write() as db:
            schema.insert(db, "runs", run)
            for event in self.events:
                schema.insert(db, "events", replace(event, run=run.id))
        return run


trained: dict[str, Trained] = {}
