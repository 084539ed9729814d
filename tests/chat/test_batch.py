"""The decoding loop says what transformers' `generate` says, whoever else is in the batch, and reads nothing twice."""

import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune.chat.adapters import Adapter, Resident
from finetune.chat.batch import Batch, PlainBatch, Row, Stopped
from finetune.chat.cache import RoomyCache
from finetune.chat.per_row import BASE, PerRow
from finetune.chat.prefixes import Prefixes, alike
from finetune.models import find
from finetune.store import Store
from tests.chat.test_base import drawn

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
KINDS = {
    "llama": ("llama", SIZES),
    "qwen2": ("qwen2", SIZES),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 16}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 300, "initializer_range": 0.3}),
    "gemma3": ("gemma3_text", {**SIZES, "head_dim": 16, "sliding_window": 8}),
    "mistral": ("mistral", {**SIZES, "sliding_window": 8}),
    "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300, "state_size": 4}),
}


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    name, sizes = KINDS[kind]
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes)).eval()


def prompts(count: int, seed: int = 0, beginning: int = 0) -> list[list[int]]:
    chance = random.Random(seed)
    first = [chance.randrange(3, 250) for _ in range(beginning)]
    return [first + [chance.randrange(3, 250) for _ in range(chance.randrange(3, 40))] for _ in range(count)]


def alone(model: Any, prompt: list[int], tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def started(model: Any) -> Batch | PlainBatch:
    return Batch(model, PerRow(), Prefixes()) if RoomyCache.fits(model) else PlainBatch(model, PerRow())


def go_on(batch: Batch | PlainBatch, tokens: int) -> None:
    with torch.inference_mode():
        for _ in range(tokens):
            for row in batch.rows:
                row.ids.append(int(row.logits.argmax()))
            batch.step()


def join(batch: Batch | PlainBatch, rows: list[Row]) -> list[Row]:
    with torch.inference_mode():
        batch.join(rows, asked=lambda: False)
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beginning", [0, 30])
def test_every_row_continues_as_it_would_alone(kind: str, beginning: int) -> None:
    model, asked = model_of(kind), prompts(5, beginning=beginning)
    batch = started(model)
    rows = join(batch, [Row(prompt, BASE) for prompt in asked])
    go_on(batch, 12)
    assert [row.ids for row in rows] == [alone(model, prompt, 12) for prompt in asked]


def test_rows_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer and shorter ones than those present, with room that is used up, and gaps that close again."""
    monkeypatch.setattr("finetune.chat.cache.ROOM", 1)
    model, asked = model_of("llama"), prompts(9, seed=1)
    batch = started(model)
    first = join(batch, [Row(prompt, BASE) for prompt in asked[:3]])
    go_on(batch, 5)
    second = join(batch, [Row(prompt, BASE) for prompt in asked[3:7]])
    go_on(batch, 5)
    batch.leave(lambda row: row in (first[0], first[2], second[1]))
    go_on(batch, 3)
    third = join(batch, [Row(prompt, BASE) for prompt in asked[7:]])
    go_on(batch, 4)
    batch.leave(lambda row: row in first or row in second)
    go_on(batch, 4)
    lengths = [10, 17, 10, 12, 5, 12, 12, 8, 8]
    for row, prompt, tokens in zip([*first, *second, *third], asked, lengths, strict=True):
        assert row.ids == alone(model, prompt, tokens)
    batch.leave(lambda row: True)
    again = join(batch, [Row(asked[0], BASE)])
    go_on(batch, 3)
    assert again[0].ids == alone(model, asked[0], 3)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3", "mamba"])
def test_the_loss_of_an_expected_answer_is_the_plain_one(kind: str) -> None:
    model, asked = model_of(kind), prompts(4, seed=2, beginning=25)
    answers = [[7], [8, 9, 10], [11, 12], [5] * 9]
    labels = [[7], [8, -100, 10], [-100, 12], [5] * 9]
    batch = started(model)
    rows = [
        Row(*one, expected=a, labels=b) for one, a, b in zip([(p, BASE) for p in asked], answers, labels, strict=True)
    ]
    join(batch, rows)
    for row, prompt, answer, wanted in zip(rows, asked, answers, labels, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(wanted), reduction="sum")
        assert row.loss == pytest.approx(float(loss), rel=1e-4)
    go_on(batch, 8)
    assert [row.ids for row in rows] == [alone(model, prompt, 8) for prompt in asked], "the loss left nothing behind"


def test_a_long_answer_is_judged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.chat.batch.LOGITS", 300 * 4 * 2 * 5)  # five tokens of two rows
    model, answers = model_of("llama"), [[*range(7, 20)], [9, 10, 11, 12, 13, 14, 15]]
    rows = [Row(prompt, BASE, expected=a, labels=a) for prompt, a in zip(prompts(2), answers, strict=True)]
    join(started(model), rows)
    for row, answer in zip(rows, answers, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row.prompt + answer])).logits[0, len(row.prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum")
        assert row.loss == pytest.approx(float(loss), rel=1e-4)


def test_a_row_that_is_over_may_stay_past_the_context() -> None:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 300, "n_positions": 64, "initializer_range": 0.3}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes)).eval()
    batch = started(model)
    full, short = join(batch, [Row(list(range(3, 65)), BASE), Row([5, 6, 7], BASE)])
    go_on(batch, 6)
    assert short.ids == alone(model, [5, 6, 7], 6)
    assert len(full.ids) == 6


def counted(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each forward pass of the model reads."""
    read: list[int] = []
    model.register_forward_pre_hook(
        lambda module, inputs, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    return read


def test_a_shared_beginning_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    read, asked = counted(model, monkeypatch), [[*range(100, 160), 3, n] for n in range(4, 12)]
    batch = started(model)
    join(batch, [Row(prompt, BASE) for prompt in asked[:4]])
    assert sum(read) == 61 + 4
    join(batch, [Row(prompt, BASE) for prompt in asked[4:]])
    assert sum(read) == 61 + 4 + 4, "and it is still known"


def test_a_conversation_goes_on_from_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    batch = started(model)
    [first] = join(batch, [Row(list(range(50, 90)), BASE, remember=True)])
    go_on(batch, 6)
    batch.leave(lambda row: True)
    read, longer = counted(model, monkeypatch), [*range(50, 90), *first.ids, 3, 4, 5]
    [second] = join(batch, [Row(longer, BASE)])
    assert sum(read) == 3
    go_on(batch, 5)
    assert second.ids == alone(model, longer, 5)


def test_what_was_read_with_one_adapter_is_not_known_with_another(store: Store, tiny: Path) -> None:
    resident, run = Resident(find(str(tiny))), drawn(store, tiny)
    resident.load([Adapter(run)])
    batch = Batch(resident.base, resident.per_row, resident.prefixes)
    prompt = list(range(20, 60))
    for name in (BASE, Adapter(run).name, BASE):
        [row] = join(batch, [Row(prompt, name, remember=True)])
        go_on(batch, 4)
        batch.leave(lambda row: True)
        with resident.per_row.using([name]):
            assert row.ids == alone(resident.base, prompt, 4)


def test_adapters_beside_each_other_do_not_mix(store: Store, tiny: Path) -> None:
    runs = [drawn(store, tiny, seed) for seed in range(3)]
    resident = Resident(find(str(tiny)))
    resident.load([Adapter(run) for run in runs])
    names = [BASE, *(Adapter(run).name for run in runs)] * 2
    batch = Batch(resident.base, resident.per_row, resident.prefixes)
    rows = join(batch, [Row(prompt, name) for prompt, name in zip(prompts(8), names, strict=True)])
    go_on(batch, 8)
    for row in rows:
        with resident.per_row.using([row.adapter]):
            assert row.ids == alone(resident.base, row.prompt, 8)


def test_a_long_prompt_is_given_up_between_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.chat.batch.CHUNK", 10)
    model, stop = model_of("llama"), threading.Event()
    read = counted(model, monkeypatch)
    batch = started(model)
    with pytest.raises(Stopped), torch.inference_mode():
        batch.join([Row(list(range(3, 203)), BASE)], asked=lambda: len(read) >= 3)
    assert (sum(read), batch.rows, stop.is_set()) == (30, [], False)


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    batch = started(model)
    for start in range(5):
        join(batch, [Row(list(range(start * 50, start * 50 + 40)), BASE, remember=True)])
        batch.leave(lambda row: True)
        if not start:
            monkeypatch.setattr("finetune.chat.prefixes.REMEMBERED", 2 * batch.prefixes._kept[0][2].bytes)  # type: ignore[union-attr]
    known = [batch.prefixes.find(BASE, list(range(start * 50, start * 50 + 40)))[0] for start in range(5)]  # type: ignore[union-attr]
    assert known == [0, 0, 0, 40, 40]


def test_tokens_in_common() -> None:
    assert [alike([[1, 2], [1, 3]]), alike([[1, 2]]), alike([[], [1]]), alike([[1], [1, 2]])] == [1, 2, 0, 1]
