"""What `check` says will be trained is what the worker trains on, row for row and token for token."""

import json
from pathlib import Path

import pytest

from finetune import data
from finetune.data.samples import FOLDER, samples
from finetune.errors import DataError, ModelError
from finetune.models import IGNORED
from finetune.store import Store
from finetune.train import TrainConfig, start
from finetune.train.tokenized import render_rows
from tests.conftest import conversation, train_tiny
from tests.models.families import FAMILIES, ODD_FAMILIES, Family, tokenizer_of
from tests.models.test_render import CALLED, WEATHER

HERE = Path(__file__).parent
GOOD = [file for file in sorted((HERE / "good").iterdir()) if file.name != "expected.json"]
SAMPLES = [FOLDER / sample.name for sample in samples()]
READERS = [known for known in (*FAMILIES, *ODD_FAMILIES) if known.name in ("smollm2", "qwen3", "gemma", "deepseek r1")]
SETTINGS = ({}, {"max_length": 60}, {"every_answer": True}, {"held_out": 0.4, "seed": 3})
CASES = [
    *((path, known, SETTINGS) for path in GOOD for known in READERS),
    *((path, READERS[0], SETTINGS[:2]) for path in SAMPLES),
]


def checked(dataset: data.Dataset, tokenizer, config: TrainConfig) -> data.WillTrain:
    held = data.held_places(dataset, config.held_out, config.seed)
    stats = data.token_stats(dataset, tokenizer, config.max_length, held=held, every_answer=config.every_answer)
    return stats.will_train


def trained(dataset: data.Dataset, folder: Path, tokenizer, config: TrainConfig) -> tuple[int, int, int, int]:
    """Sequences, tokens, learned tokens and held-out rows, on the way that a run goes: written, split, rendered."""
    folder.mkdir(exist_ok=True)
    data.write_examples(dataset, folder)
    rows, held = data.read_split(folder, data.choose_split(folder, config.held_out, config.seed))
    try:
        made = render_rows(rows, held, tokenizer, config, lambda line: None).train
    except (DataError, ModelError):
        made = []
    learned = sum(label != IGNORED for one in made for label in one["labels"])
    return len(made), sum(len(one["input_ids"]) for one in made), learned, len(held)


@pytest.mark.parametrize(
    ("path", "known", "tried"), CASES, ids=lambda value: getattr(value, "name", None) or str(len(value))
)
def test_a_check_counts_what_is_trained(path: Path, known: Family, tried: tuple, tmp_path: Path) -> None:
    dataset, tokenizer = data.load(path), tokenizer_of(known)
    for number, settings in enumerate(tried):
        config = TrainConfig(**settings)
        said = checked(dataset, tokenizer, config)
        sequences, tokens, learned, held = trained(dataset, tmp_path / str(number), tokenizer, config)
        assert (said.sequences, said.tokens, said.learned, said.held_out) == (sequences, tokens, learned, held)
        assert said.of == dataset.rows
        assert said.rows <= said.of
        assert (said.rows > 0) == (sequences > 0)
        assert said.rows == sequences or config.every_answer


def mixed(folder: Path) -> data.Dataset:
    """Rows that are trained, are too long, call tools, or cannot be read; two answers in some."""
    rows = [{"messages": conversation(f"What is {i}?", f"It is {i}.")} for i in range(30)]
    rows += [{"messages": CALLED, "tools": [WEATHER]} for _ in range(4)]
    rows += [{"messages": conversation(f"word {i} " * 90, "yes")} for i in range(5)]
    rows += [{"messages": [*conversation(f"And {i}?", "No."), *conversation("Sure?", "Yes.")]} for i in range(6)]
    lines = [*map(json.dumps, rows), "{not json", '{"messages": []}']
    path = folder / "mixed.jsonl"
    path.write_text("\n".join(lines))
    return data.load(path)


@pytest.mark.parametrize("settings", [{}, {"max_length": 80}, {"held_out": 0.3}])
def test_a_worker_trains_on_as_many_rows_and_tokens(store: Store, tiny: Path, tmp_path: Path, settings: dict) -> None:
    from finetune import models

    dataset = mixed(tmp_path)
    tokenizer = models.counting_tokenizer(models.find(str(tiny)))
    said = checked(dataset, tokenizer, TrainConfig(**settings))
    epoch = {"max_steps": 1, "batch_size": said.rows, "micro_batch": 1, "samples": 0}
    run = train_tiny(store, tiny, dataset, **settings, **epoch)
    assert run.state == "succeeded", run.reason
    assert run.step == 1
    log = " ".join(event.data["text"] for event in store.events_of(run.id, "log"))
    assert f"{said.rows} rows to train on" in log
    assert [event.data["tokens"] for event in store.events_of(run.id, "rows")] == [said.tokens]
    assert said.of == 47
    assert said.rows < 45 - said.held_out


def test_a_sample_of_the_rows_is_said_to_be_an_estimate(tmp_path: Path) -> None:
    dataset, tokenizer = data.load(FOLDER / "recipes"), tokenizer_of(FAMILIES[0])
    whole = data.token_stats(dataset, tokenizer).will_train
    some = data.token_stats(dataset, tokenizer, most=50, seed=1).will_train
    assert (whole.estimated, some.estimated) == (False, True)
    assert some.rows == whole.rows
    assert abs(some.tokens / whole.tokens - 1) < 0.1
    assert some.sentence.startswith("About 225 of 225 rows will be trained")


@pytest.mark.parametrize("count", [1, 12, 3_000])
def test_rows_that_no_template_of_the_model_can_show_are_refused_before_the_queue(
    store: Store, tiny: Path, tmp_path: Path, count: int
) -> None:
    path = tmp_path / "tools.jsonl"
    long = [{**CALLED[0], "content": "Weather? " * 200}, *CALLED[1:]]
    path.write_text("\n".join([json.dumps({"messages": long, "tools": [WEATHER]})] * count))
    record = data.save_dataset(store, data.load(path))
    with pytest.raises(ModelError) as caught:
        start(store, TrainConfig(model=str(tiny)), record)
    assert caught.value.code == "template_without_tools"
    assert store.runs() == []


def test_what_only_a_held_out_row_could_teach_is_refused_before_the_queue(
    store: Store, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": CALLED, "tools": [WEATHER]}))
    (tmp_path / "validation.jsonl").write_text(json.dumps({"messages": conversation("2?", "2")}))
    record = data.save_dataset(store, data.load(tmp_path))
    with pytest.raises(ModelError):
        start(store, TrainConfig(model=str(tiny)), record)
    assert store.runs() == []


@pytest.mark.parametrize(
    ("shared", "said"), [(4, "All 4 held-out rows are"), (1, "1 of 4 held-out rows are"), (3, "3 of 4")]
)
def test_leaks_are_said_in_numbers_of_both_sides(tmp_path: Path, shared: int, said: str) -> None:
    words = ["apple", "tractor", "moonlight", "seventeen", "quarterly", "xylophone", "harbour", "vinegar"]
    rows = [json.dumps({"messages": conversation(f"Tell me about {word} " * 3, f"{word}!")}) for word in words]
    train, validation = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    train.write_text("\n".join(rows[: 4 + shared]))
    validation.write_text("\n".join(rows[4:]))
    leak = next(problem for problem in data.load(train, validation).problems if problem.code == "leak")
    assert leak.count == shared
    assert f"{said.removesuffix(' held-out rows are')} held-out rows are in the training data." in leak.message


def test_the_log_is_not_told_of_what_was_not_left_out(tmp_path: Path) -> None:
    lines: list[str] = []
    rows = data.load(FOLDER / "recipes").examples[:5]
    render_rows(rows, [], tokenizer_of(FAMILIES[0]), TrainConfig(max_length=999), lines.append)
    assert lines == []
