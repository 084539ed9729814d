"""The quicker product is the same product, and is only taken where it was quicker."""

import pytest
import torch
from torch import nn

from finetune.chat import thin
from tests.chat.test_batch import alone, model_of, prompts


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 1, 24), (1, 3, 24), (4, 24), (1, 24), (3, 3, 24), (0, 1, 24)])
def test_both_ways_give_the_same_numbers(bias: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "_quicker", lambda layers, rows: True)
    layer, x = nn.Linear(24, 40, bias=bias), torch.randn(*shape)
    plain = layer(x)
    assert thin.quicken(nn.Sequential(layer)) == max(thin.CANDIDATES)
    torch.testing.assert_close(layer(x), plain)


def test_a_model_says_the_same_whichever_way_it_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = model_of("llama"), prompts(3)
    plain = [alone(model, prompt, 8) for prompt in asked]
    monkeypatch.setattr(thin, "_quicker", lambda layers, rows: rows < 8)
    assert thin.quicken(model) == 4
    assert [alone(model, prompt, 8) for prompt in asked] == plain


def test_the_way_that_was_slower_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    model = nn.Sequential(nn.Linear(8, 8))
    monkeypatch.setattr(thin.time, "perf_counter", lambda: float(next(clock)))
    assert thin.quicken(model) == 0, "equally fast"
    assert thin.quicken(nn.Sequential()) == 0
