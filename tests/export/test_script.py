"""The exported script and notebook repeat a run: both are executed, and their losses are the run's."""

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from safetensors.torch import load_file

from finetune import data, models, train
from finetune.data.fixes import Length
from finetune.errors import RunError
from finetune.export.bundle import read_bundle, write_bundle
from finetune.export.facts import base_of
from finetune.export.script import notebook, script, write_script
from finetune.export.script import recipe as recipes
from finetune.export.script.recipe import Recipe, literal, recipe
from finetune.export.subject import gather
from finetune.models import packaged
from finetune.store import Run, Store
from finetune.train.tokenized import render_rows
from tests.conftest import conversation, run_to_end, train_tiny
from tests.zygote import python

NEAR = 1e-4
"""Between a loss of the run and the script's; measured were differences of 1e-6 and less."""

EVERY = frozenset({"packing", "4bit", "best", "early_stopping", "upper", "continues", "base_kl"})
SET = {"early_stopping": 1, "top_layers": 0.5, "base_kl": 0.5}
"""Settings of which the script speaks only if they are set."""

HOSTILE = (
    "plain",
    "two\nlines\r\n# %% cell\n!ls",
    "quotes ' \" ''' \"\"\" and \\ and \\",
    "${HOME} {0} %s %(x)s $x `ls` {{ x }}",
    '"""\nimport os; os.abort()\n"""',
    "\u2028\u2029\x85\x0c\x00\ud800 \u202e reversed \ufeff",
    "</script><img src=x onerror=alert(1)> # [x](javascript:x)",
)


def exported(store: Store, run: Run, folder: Path) -> Path:
    """The script of a run, unpacked to a folder."""
    with zipfile.ZipFile(write_script(gather(store, run), folder.with_suffix(".zip"))) as archive:
        archive.extractall(folder)
    return folder


def losses(store: Store, run: Run) -> dict[str, dict[str, float]]:
    """What the run measured, in the form in which the script writes it."""
    events = {kind: store.events_of(run.id, kind) for kind in ("step", "eval")}
    training, held_out = ({str(e.data["step"]): e.data["loss"] for e in events[kind]} for kind in ("step", "eval"))
    return {"training": training, "held_out": held_out}


def repeat(folder: Path, model: Path | str, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the script where this app cannot be imported; with `fresh`, in an interpreter of its own."""
    words, environment = ["train.py", "--model", str(model)], {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    if fresh:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    else:
        done = python(*words, folder=folder, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def same_losses(folder: Path, store: Store, run: Run) -> None:
    """Assert that the losses of the run came out again."""
    again, before = json.loads((folder / "losses.json").read_text()), losses(store, run)
    assert {kind: list(steps) for kind, steps in again.items()} == {kind: list(steps) for kind, steps in before.items()}
    apart = max(abs(again[kind][step] - loss) for kind, steps in before.items() for step, loss in steps.items())
    print("losses apart:", apart)
    assert apart < NEAR, (again, before)


def same_adapter(folder: Path, run: Run) -> None:
    """Assert that the adapter is the run's."""
    ours = load_file(train.adapter_folder(run.id) / "adapter_model.safetensors")
    theirs = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    print("weights apart:", apart)
    assert apart < 1e-3


def tokenizer_of(model: Path) -> Any:
    return models.load_tokenizer(models.find(str(model)))


def varied(folder: Path, rows: list[dict], name: str = "varied") -> data.Dataset:
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)


def questions(count: int = 20) -> list[dict]:
    """Rows of different lengths, with a system prompt, several turns, and a turn that is not learned."""
    rows = []
    for i in range(count):
        messages = [{"role": "system", "content": "Be\nbrief."}, *conversation(f"{i} + {i}?" * (1 + i % 4), f"{2 * i}")]
        messages[-1:] = [{**messages[-1], "weight": i % 2}]
        rows.append({"messages": [*messages, *conversation("And?" + "!" * i, f"\nAlso {i}.")]})
    return rows


def test_the_script_repeats_the_run(store: Store, tiny: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 9, "batch_size": 4, "micro_batch": 2, "dropout": 0.1, "weight_decay": 0.1, "seed": 7}
    run = train_tiny(store, tiny, varied(tmp_path, questions()), **settings)
    assert run.state == "succeeded", run.reason
    assert (run.step < run.steps) == ("early_stopping" in settings)
    folder = exported(store, run, tmp_path / "out")
    said = repeat(folder, tiny, fresh=True).stdout
    same_losses(folder, store, run)
    same_adapter(folder, run)
    assert "Learned: '" in said
    assert "Base:    " in said
    assert "Tuned:   " in said


def test_a_script_without_its_local_base_asks_for_it(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    folder = exported(store, train_tiny(store, tiny, small_dataset, max_steps=1), tmp_path / "out")
    done = python("train.py", folder=folder)
    assert done.returncode == 1
    told = f"The base was a local folder, and there is none at {tiny.name}. Use: train.py --model PATH"
    assert done.stderr.strip().splitlines()[-1] == told
    (folder / tiny.name).symlink_to(tiny)  # beside the script it is found by its name
    assert python("train.py", folder=folder).returncode == 0


def test_the_notebook_repeats_the_run(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_tiny(store, tiny, small_dataset, batch_size=8)
    folder = exported(store, run, tmp_path / "out")
    monkeypatch.setenv("BASE_MODEL", str(tiny))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    book = nbformat.read(folder / "train.ipynb", as_version=4)
    nbformat.validate(book)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    same_losses(folder, store, run)
    same_adapter(folder, run)
    assert "Tuned:" in str(book.cells[-1].outputs)


@pytest.mark.parametrize(
    "settings",
    [
        {"packing": True, "max_length": 128, "max_steps": 3, "batch_size": 2},
        {"early_stopping": 1, "learning_rate": 0.03, "max_steps": 16, "eval_every": 1, "neftune_alpha": 5},
        {
            "best": True,
            "epochs": 1.5,
            "max_steps": "",
            "rslora": True,
            "schedule": "linear",
            "target_modules": "q_proj",
        },
        {"gradient_checkpointing": True, "max_length": 130, "schedule": "constant", "held_out": 0.4, "eval_rows": 3},
        {"top_layers": 0.5, "epochs": 3, "max_steps": "", "learning_rate": 0.01},
        {"base_kl": 1, "max_steps": 6, "learning_rate": 0.01, "batch_size": 4, "micro_batch": 2, "dropout": 0.1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_are_repeated(store: Store, tiny: Path, tmp_path: Path, settings: dict) -> None:
    run = train_tiny(store, tiny, varied(tmp_path, questions()), **settings)
    assert run.state == "succeeded", run.reason
    assert (run.step < run.steps) == ("early_stopping" in settings)
    folder = exported(store, run, tmp_path / "out")
    repeat(folder, tiny)
    same_losses(folder, store, run)
    same_adapter(folder, run)


def test_a_run_that_continues_another_begins_with_its_adapter(store: Store, tiny: Path, tmp_path: Path) -> None:
    parent = train_tiny(store, tiny, varied(tmp_path, questions()), max_steps=6, learning_rate=0.01)
    config = train.TrainConfig.parse({**parent.config, "max_steps": 3, "dropout": 0.1})
    run = run_to_end(store, train.start(store, config, store.dataset(parent.dataset), parent=parent))
    folder = exported(store, run, tmp_path / "out")
    repeat(folder, tiny)
    same_losses(folder, store, run)
    same_adapter(folder, run)
    there = read_bundle(store, write_bundle(gather(store, run), tmp_path / "full.zip", with_data=True), model=str(tiny))
    with pytest.raises(RunError, match="began with stayed on the machine where it was trained"):
        write_script(gather(store, there), tmp_path / "there.zip")


def thoughts() -> list[dict]:
    return [
        {"messages": conversation(f"{i} + {i}?", f"<think>\n{i} twice\n</think>\n\n{2 * i}")} for i in range(1, 13)
    ] + [{"messages": conversation(f"Just {i}?", f"{i}, <|im_end|> yes")} for i in range(8)]


def texts() -> list[dict]:
    return [{"text": f"Once there were {i} of them. " * (1 + i % 3)} for i in range(20)]


def tools() -> list[dict]:
    """Rows with tools among others: the tiny model's template cannot show those, so they are left out."""
    offered = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
    return [{"messages": conversation(f"{i}?", f"{i}!")} | ({"tools": offered} if i % 3 else {}) for i in range(30)]


def alone() -> list[dict]:
    """One row, so none is held out."""
    return [{"messages": conversation("Hi", "Hello")}]


@pytest.mark.parametrize("rows", [thoughts, texts, tools, alone])
def test_other_kinds_of_data_are_repeated(store: Store, tiny: Path, tmp_path: Path, rows) -> None:
    run = train_tiny(store, tiny, varied(tmp_path, rows()))
    folder = exported(store, run, tmp_path / "out")
    repeat(folder, tiny)
    same_losses(folder, store, run)
    same_adapter(folder, run)


@pytest.mark.model
def test_a_run_of_the_default_model_is_repeated(store: Store, default_model: str, home: Path, tmp_path: Path) -> None:
    config = train.TrainConfig(
        model=default_model, max_steps=1, batch_size=4, warmup=0, samples=0, r=4, learning_rate=2e-4
    )
    record = data.save_dataset(store, varied(tmp_path, questions(10)))
    run = run_to_end(store, train.start(store, config, record), seconds=300)
    assert run.state == "succeeded", run.reason
    folder = exported(store, run, tmp_path / "out")
    assert f'"{default_model}")' in (folder / "train.py").read_text()
    repeat(folder, packaged.folder(home / "models"))
    same_losses(folder, store, run)
    same_adapter(folder, run)


def test_a_run_that_was_stopped_is_repeated_up_to_there(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    run = train_tiny(store, tiny, small_dataset, max_steps=4)
    store.update(run.id, state="cancelled", step=2, result=run.result.model_copy(update={"adapter_step": 2}))
    folder = exported(store, store.run(run.id), tmp_path / "out")
    repeat(folder, tiny)
    again = json.loads((folder / "losses.json").read_text())["training"]
    assert again == {step: pytest.approx(losses(store, run)["training"][step], abs=NEAR) for step in ("1", "2")}


def test_a_run_that_the_server_capped_is_repeated_with_its_steps(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its schedule, and when it was measured, follow from the steps that it made."""
    monkeypatch.setenv("FINETUNE_MAX_STEPS", "4")
    run = train_tiny(store, tiny, small_dataset, max_steps=40, batch_size=4)
    assert (run.state, run.code, run.steps) == ("succeeded", "steps_limited", 4)
    monkeypatch.delenv("FINETUNE_MAX_STEPS")
    folder = exported(store, run, tmp_path / "out")
    assert "\nSTEPS = 4\n" in (folder / "train.py").read_text()
    assert len(json.loads((folder / "order.json").read_text())) == 1
    repeat(folder, tiny)
    same_losses(folder, store, run)
    same_adapter(folder, run)


def test_the_script_trains_where_the_run_did() -> None:
    """On Apple's GPU the Trainer would otherwise train, though the model is loaded for the CPU."""
    assert "use_cpu=not gpu," in script(Recipe(train.TrainConfig()))


def test_what_is_in_the_folder(store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path) -> None:
    run = train.start(store, train.TrainConfig(model=str(tiny)), data.save_dataset(store, small_dataset))
    folder = exported(store, run, tmp_path / "out")
    names = {"requirements.txt", "settings.yaml", "train.ipynb", "train.py"}
    names |= {"train.jsonl", "validation.jsonl", "train.tokens.jsonl", "validation.tokens.jsonl", "order.json"}
    names |= {"known.tokens.jsonl"}
    assert {file.name for file in folder.iterdir()} == names
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    assert settings == {"data": "train.jsonl", "model": tiny.name, "validation": "validation.jsonl"}
    rows = [len((folder / f"{part}.jsonl").read_text().splitlines()) for part in ("train", "validation")]
    assert rows == [17, 3]
    assert re.search(r"^transformers==[\d.]+$", (folder / "requirements.txt").read_text(), re.M)
    everything = b"".join(file.read_bytes() for file in folder.iterdir()).decode()
    for place in (str(tiny.parent), str(tmp_path), str(Path.home()), os.environ["FINETUNE_HOME"]):
        assert place not in everything
    assert "finetune" not in (folder / "train.py").read_text().replace("fine-tune", "")
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out", "out.zip"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_people_stays_text(text: str) -> None:
    model = "/somewhere/" + text.replace("/", " ").replace("\ud800", "")
    hostile = Recipe(train.TrainConfig(), model, dataset=text, system=text * 20)
    for code in (
        script(hostile),
        "\n".join(c["source"] for c in notebook(hostile)["cells"] if c["cell_type"] == "code"),
    ):
        code.encode("utf-8")
        names = {
            node.targets[0].id: node.value
            for node in ast.parse(code).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        assert ast.literal_eval(names["DATASET"]) == text
        assert ast.literal_eval(names["SYSTEM"]) == text * 20
    assert script(hostile).count("\n# %%") == script(Recipe(train.TrainConfig())).count("\n# %%")
    assert [c for c in notebook(hostile)["cells"] if c["cell_type"] == "markdown"] == [
        c for c in notebook(Recipe(train.TrainConfig()))["cells"] if c["cell_type"] == "markdown"
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_literal_is_one_printable_line(text: str) -> None:
    assert ast.literal_eval(literal(text)) == text
    assert literal(text).isprintable()


@pytest.mark.parametrize(
    ("model", "source", "name"),
    [
        ("owner/model", None, "owner/model"),
        ("owner/model", "hub", "owner/model"),
        ("owner/model", "local", "model"),
        ("/home/someone/my model/", None, "my model"),
        (r"C:\Users\someone\tiny", None, "tiny"),
        ("/", None, "model_"),
    ],
)
def test_a_model_is_called_by_its_name_only(model: str, source: str | None, name: str) -> None:
    assert base_of(model, source).name == name


def test_every_setting_is_in_the_script_or_named() -> None:
    written = script(Recipe(train.TrainConfig(**SET), conditions=EVERY))
    for name in train.TrainConfig.model_fields:
        named = f"#   {name}: " in written
        used = len(re.findall(rf"\b{name.upper()}\b", written)) > 1
        chosen = name in recipes.CELLS
        assert named + used + chosen == 1, name


@pytest.mark.parametrize(
    "true", [frozenset(), EVERY, *(frozenset({one}) for one in sorted(EVERY))], ids=lambda true: "-".join(sorted(true))
)
def test_the_script_is_clean(true: frozenset[str], tmp_path: Path) -> None:
    named = {"early_stopping": "early_stopping", "upper": "top_layers"}
    config = train.TrainConfig(**{name: SET[name] for word, name in named.items() if word in true})
    (tmp_path / "train.py").write_text(
        script(Recipe(config, system="Be brief.", measured={0: 1.5, 4: 1.25}, conditions=true))
    )
    root = Path(__file__).parents[2]
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(root / "pyproject.toml")]
        done = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_what_the_settings_need(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    record = data.save_dataset(store, small_dataset)
    for settings, true in (
        ({}, {"base_kl"}),
        ({"packing": True, "early_stopping": 2}, {"packing", "early_stopping", "best", "base_kl"}),
        ({"top_layers": 0.5, "base_kl": 0}, {"upper"}),
    ):
        run = train.start(store, train.TrainConfig(model=str(tiny), **settings), record)
        assert recipe(gather(store, run), 1, 1, 2).conditions == true


@pytest.mark.parametrize("rows", [questions, thoughts, texts, tools, alone])
def test_the_ids_are_those_the_run_reads(store: Store, tiny: Path, tmp_path: Path, rows) -> None:
    record = data.save_dataset(store, varied(tmp_path, rows()))
    for most in (None, 130):
        run = train.start(store, train.TrainConfig(model=str(tiny), max_length=most), record)
        folder = exported(store, run, tmp_path / f"out-{most}")
        learned, held = train.rows_of_run(store, run)
        read = render_rows(learned, held, tokenizer_of(tiny), train.TrainConfig(max_length=most), lambda line: None)
        for name, ids in (("train", read.train), ("validation", read.held_out)):
            assert [json.loads(line) for line in (folder / f"{name}.tokens.jsonl").open()] == ids
            assert len((folder / f"{name}.jsonl").read_text().splitlines()) == len(ids)


def test_ids_hold_nothing_that_the_rows_beside_them_do_not(store: Store, tiny: Path, tmp_path: Path) -> None:
    """Of three rows with an address, one had it masked, one is left out by a fix, and one by the template."""
    tokenizer = tokenizer_of(tiny)
    address, tool = "ann@example.org", {"type": "function", "function": {"name": "f", "parameters": {}}}
    rows = [{"messages": conversation(f"Who is {i}?", f"Number {i}.")} for i in range(20)]
    rows.append({"messages": conversation("Who wrote (address)?", "The owner of (address).")})
    rows.append({"messages": conversation(f"Who wrote {address}? " * 40, f"The owner of {address}.")})
    rows.append({"messages": conversation("Who?", f"{address}!"), "tools": [tool]})
    checked = data.apply(varied(tmp_path, rows), ["drop_too_long"], Length(tokenizer, 300))
    record = data.save_dataset(store, checked)
    run = train.start(store, train.TrainConfig(model=str(tiny), held_out=0.1), record)
    folder = exported(store, run, tmp_path / "out")
    texts, ids = (
        [json.loads(line) for name in ("train", "validation") for line in (folder / f"{name}{kind}.jsonl").open()]
        for kind in ("", ".tokens")
    )
    assert len(texts) == len(ids) == 21
    for row, tokens in zip(texts, ids, strict=True):
        said = tokenizer.decode(tokens["input_ids"])
        assert "example.org" not in said + tokenizer.decode([label for label in tokens["labels"] if label != -100])
        assert all(message["content"] in said for message in row["messages"])
    assert all(b"example.org" not in file.read_bytes() for file in folder.iterdir())


def test_the_exported_rows_can_be_trained_on_here(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    """settings.yaml names them for this app."""
    run = train.start(store, train.TrainConfig(model=str(tiny)), data.save_dataset(store, small_dataset))
    folder = exported(store, run, tmp_path / "out")
    again = data.load(folder / "train.jsonl")
    assert not again.rejected
    assert [row.messages for row in again.examples] == [row.messages for row in train.rows_of_run(store, run)[0]]


def test_the_notebook_explains_every_step() -> None:
    book = nbformat.from_dict(notebook(Recipe(train.TrainConfig())))
    nbformat.validate(book)
    assert [cell.cell_type for cell in book.cells] == ["markdown", "code"] * (len(book.cells) // 2)
    for cell in book.cells[::2]:
        text = cell.source.split("\n\n", 1)[-1].replace("\n", " ").replace(".jsonl", "").replace(".json", "")
        assert len(re.findall(r"[.!?](?: |$)", text.replace(".txt", ""))) <= 2, cell.source
