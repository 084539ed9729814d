"""The verb `sweep`: it prints what was tried, and a command that trains with the best."""

import shlex
from pathlib import Path

import pytest
import yaml

from finetune import cli, data
from finetune.cli import source
from finetune.store import Store
from tests.test_cli import call
from tests.train.sums import sums
from tests.zygote import python


def test_a_sweep_prints_the_command_that_trains_with_what_it_found(tiny: Path, tmp_path: Path) -> None:
    rows = sums(tmp_path / "sums.jsonl")
    printed = python(
        *("-m", "finetune", "sweep", str(rows), "--minutes", "30", "--set", f"model={tiny}", "epochs=2", "seed=3")
    )
    assert printed.returncode == 0, printed.stderr
    assert "as set" in printed.stdout
    assert "compared on 13 rows that were set apart" in printed.stderr
    [command] = [line for line in printed.stdout.splitlines() if line.startswith("python -m finetune train ")]
    words = shlex.split(command)[3:]
    assert words[1] == str(rows)
    wanted, config = source.asked(cli._parser().parse_args(words))
    assert (config.seed, config.model) == (3, str(tiny))
    found = yaml.safe_load(printed.stdout.partition("As YAML:\n")[2])
    assert found == {"data": str(rows), **config.changed()}
    assert wanted.changed == config.changed()


def test_as_json_every_candidate_has_its_losses(store: Store, tiny: Path, tmp_path: Path) -> None:
    rows = sums(tmp_path / "sums.jsonl")
    code, answer, errors = call("sweep", str(rows), "--minutes", "30", "--set", f"model={tiny}", "max_steps=6")
    assert code == 0, errors
    assert (answer["state"], answer["minutes"], answer["rows_apart"]) == ("succeeded", 30.0, 13)
    assert answer["candidates"][0]["set"] == {}
    assert [step for step, _ in answer["candidates"][0]["losses"]][-1] == answer["steps_each"] == 6
    assert answer["loss"] <= answer["loss_as_set"]
    assert answer["set"]["max_steps"] == 6
    code, listed, _ = call("runs")
    assert [run["name"] for run in listed["runs"]] == [f"Sweep: sums · {tiny.name}"]
    assert call("export", answer["run"], "--to", "adapter")[0] == 2, "it has no adapter"
    assert call("runs", "delete", answer["run"])[0] == 0


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--minutes", "0"], 2, "is not a number of minutes"),
        (["--minutes", "soon"], 2, "invalid float value"),
        ([], 1, "Only 3 of 17 training rows can be set apart"),
        (["--set", "epochs=0"], 2, "epochs"),
    ],
)
def test_what_cannot_begin_is_said(
    tiny: Path, small_dataset: data.Dataset, more: list[str], code: int, said: str
) -> None:
    words = ["--set", f"model={tiny}", *more] if "--set" not in more else [*more, f"model={tiny}"]
    found, answer, errors = call("sweep", str(small_dataset.path), *words)
    assert (found, set(answer)) == (code, {"error"})
    assert said in errors
