"""A run can be held to what its base says of general questions, and those by which that is measured stay unseen."""

import json
import os
import shutil
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from finetune import data, models, train
from finetune.evaluate.measure import general
from finetune.export.script import write_script
from finetune.export.subject import gather
from finetune.store import Store
from finetune.train.build import adapted
from finetune.train.config import TrainConfig
from finetune.train.known import Known, beside, known
from finetune.train.plan import plan
from finetune.train.probe import probe
from finetune.train.trainer import REFUSED
from tests.conftest import conversation, run_to_end, train_tiny


def test_the_questions_by_which_forgetting_is_measured_are_other_ones() -> None:
    ours, theirs = (
        {" ".join(one.prompt[-1]["content"].lower().split()) for one in some} for some in (known(), general())
    )
    assert len(ours) == len(known()) >= 64
    assert not ours & theirs
    assert not {one.answer for one in known()} & {one.answer for one in general()}


@pytest.fixture
def tuned(tiny: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    return adapted(models.load_model(models.find(str(tiny))), TrainConfig())


def moved(model: torch.nn.Module) -> None:
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)


def test_a_fresh_adapter_is_where_the_base_is(tiny: Path, tuned: torch.nn.Module) -> None:
    held = Known(tuned, models.load_tokenizer(models.find(str(tiny))), seed=0)
    assert float(held.divergence([0, 1]).detach()) == pytest.approx(0, abs=1e-5)


def test_it_is_the_divergence_from_the_base(tiny: Path, tuned: torch.nn.Module) -> None:
    tokenizer = models.load_tokenizer(models.find(str(tiny)))
    moved(tuned)
    held = Known(tuned, tokenizer, seed=3)
    tuned.train()
    found = held.divergence([5])
    assert tuned.training
    question = held._questions[5]
    ids, learned = torch.tensor([question["input_ids"]]), torch.tensor(question["labels"][1:]) != -100
    with torch.no_grad():
        mine = tuned(input_ids=ids).logits[0, :-1][learned].log_softmax(-1)
        with tuned.disable_adapter():
            base = tuned(input_ids=ids).logits[0, :-1][learned].log_softmax(-1)
    expected = (base.exp() * (base - mine)).sum(-1).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    found.backward()
    assert all(weight.grad is not None for weight in tuned.parameters() if weight.requires_grad)
    assert float(held.divergence([5])) == pytest.approx(float(found), rel=1e-5)  # the second time from what is kept


def test_another_seed_asks_in_another_order(tiny: Path, tuned: torch.nn.Module) -> None:
    tokenizer = models.load_tokenizer(models.find(str(tiny)))
    orders = [[tuple(one["input_ids"]) for one in Known(tuned, tokenizer, seed)._questions] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_held_to_the_base_a_run_moves_less_from_it(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    def apart(weight: float) -> float:
        run = train_tiny(store, tiny, small_dataset, max_steps=24, learning_rate=0.02, base_kl=weight)
        assert run.state == "succeeded", run.reason
        found = models.find(str(tiny))
        model = PeftModel.from_pretrained(models.load_model(found), train.adapter_folder(run.id))
        held = Known(model, models.load_tokenizer(found), seed=0)
        with torch.no_grad():
            return float(held.divergence(range(len(known()))))

    free, held = apart(0), apart(3)
    assert held < free / 2


def test_the_loss_that_is_reported_is_that_of_the_rows(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    """At step 1 nothing has moved yet: with and without, the rows have the same loss."""
    losses = []
    for weight in (0, 3):
        run = train_tiny(store, tiny, small_dataset, max_steps=2, base_kl=weight)
        losses.append([event.data["loss"] for event in store.events_of(run.id, "step")])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)


def test_a_killed_run_goes_on_alike(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    settings = {"max_steps": 40, "save_every": 1, "batch_size": 4, "base_kl": 1}
    whole = train_tiny(store, tiny, small_dataset, **settings)
    config = train.TrainConfig.parse({"model": str(tiny), **settings})
    run = train.start(store, config, data.save_dataset(store, small_dataset))
    supervisor, give_up = train.Supervisor(store), time.monotonic() + 120
    while not store.events_of(run.id, "checkpoint"):
        supervisor.tick()
        time.sleep(0.02)
        assert time.monotonic() < give_up
    pid = store.run(run.id).pid
    assert pid, "it has ended before it could be killed"
    os.kill(pid, signal.SIGKILL)
    run = run_to_end(store, run, supervisor=supervisor)
    assert (run.state, run.attempt) == ("succeeded", 2)
    assert run.result.eval_loss == pytest.approx(whole.result.eval_loss, rel=1e-5)


def test_a_template_that_refuses_them_stops_nothing(store: Store, tiny: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "strict")
    template = model / "chat_template.jinja"
    poem = "{% if 'haiku' in one.content %}{{ raise_exception('No poems.') }}{% endif %}"
    strict = f"{{% for one in messages %}}{poem}{{% endfor %}}"
    template.write_text(strict + template.read_text())
    rows = [{"messages": conversation(f"{i} + {i}?", f"{2 * i}")} for i in range(20)]
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    run = train_tiny(store, model, data.load(path), max_steps=3)
    assert run.state == "succeeded", run.reason
    assert REFUSED in [event.data["text"] for event in store.events_of(run.id, "log")]
    with zipfile.ZipFile(write_script(gather(store, run), tmp_path / "script.zip")) as script:
        assert "known.tokens.jsonl" not in script.namelist()
        assert "BASE_KL" not in script.read("train.py").decode()


@pytest.mark.parametrize("batch", [1, 3, 8, 16, 40])
def test_every_sixteen_rows_have_a_question_beside_them(batch: int) -> None:
    read = [number for step in range(64) for number in beside(step, batch)]
    assert read == list(range(64 * batch // 16))


def test_the_plan_counts_the_questions(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    record = data.save_dataset(store, small_dataset)
    config = TrainConfig(model=str(tiny), base_kl=0.5, samples=0)
    measured = probe(config, Path(record.folder))
    assert measured.known > 20
    steps = plan(config, measured).steps
    more = plan(config, measured).seconds - plan(config.model_copy(update={"base_kl": 0}), measured).seconds
    assert more == pytest.approx((steps * config.batch_size // 16) * measured.known * measured.token)
