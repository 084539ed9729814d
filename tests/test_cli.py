"""The command line's contracts: one JSON object on stdout, logs on stderr, exit codes 0, 1 and 2."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from finetune import data
from finetune.cli import main
from finetune.export import hub, make, parity
from finetune.store import Store
from tests.conftest import train_tiny
from tests.zygote import python

ROOT = Path(__file__).parents[1]


def call(*arguments: str) -> tuple[int, dict, str]:
    """Run the command line as a person does; its exit code, its one JSON object, its stderr."""
    result = python("-m", "finetune", *arguments, "--json")
    assert "Traceback" not in result.stderr
    assert result.stdout.count("\n") == 1
    return result.returncode, json.loads(result.stdout), result.stderr


def test_check_counts_every_row(tmp_path: Path, tiny: Path) -> None:
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    lines = [json.dumps(good), "{not json", '{"messages": []}', json.dumps(good)]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(lines))
    code, answer, _ = call("check", str(path), "--model", str(tiny))
    assert code == 0
    assert (answer["rows"], answer["accepted"], answer["rejected"]) == (4, 2, 2)
    assert answer["trainable"] is True
    found = {problem["code"]: problem for problem in answer["problems"]}
    assert found["invalid_json"]["lines"] == [2]
    assert found["missing_messages_list"]["lines"] == [3]
    assert all(problem["message"] and problem["hint"] for problem in answer["problems"])
    assert answer["tokens"]


def test_check_says_no_when_nothing_can_be_trained(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"messages": []}\n')
    code, answer, _ = call("check", str(path), "--model", str(tiny))
    assert (code, answer["trainable"], answer["rejected"]) == (1, False, 1)


def test_unreadable_input_exits_with_2(tmp_path: Path) -> None:
    code, answer, errors = call("check", str(tmp_path / "nothing.jsonl"))
    assert code == 2
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"code", "message", "where", "fix"}
    assert answer["error"]["where"].endswith("nothing.jsonl")
    assert "There is no such file" in errors


@pytest.mark.parametrize("arguments", [[], ["fly"], ["check"], ["chat", "r1"], ["preview", "x.jsonl", "--row", "one"]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["message"]
    assert "error: " in printed.err


def test_preview_shows_what_is_trained(tmp_path: Path, tiny: Path, small_dataset: data.Dataset) -> None:
    code, answer, _ = call("preview", str(small_dataset.path), "--row", "2", "--model", str(tiny))
    assert code == 0
    assert "".join(part["text"] for part in answer["segments"] if part["trained"]) == "It is 2.<|im_end|>"
    assert call("preview", str(small_dataset.path), "--row", "99", "--model", str(tiny))[0] == 2


def test_train_then_runs_then_chat(tiny: Path, small_dataset: data.Dataset) -> None:
    code, answer, errors = call(
        "train", str(small_dataset.path), "--set", f"model={tiny}", "max_steps=3", "eval_every=3"
    )
    assert code == 0, errors
    assert (answer["state"], answer["steps"]) == ("succeeded", 3)
    assert {"run", "seconds", "train_loss", "eval_loss", "tokens_per_second", "adapter"} <= answer.keys()
    assert (Path(answer["adapter"]) / "adapter_model.safetensors").is_file()
    code, listed, _ = call("runs")
    assert code == 0
    assert [run["run"] for run in listed["runs"]] == [answer["run"]]
    [row] = listed["runs"]
    assert {"name", "state", "step", "steps", "model", "created"} <= row.keys()
    assert row["seconds"] == answer["seconds"] > 0
    assert 0 < row["best_eval_loss"] <= answer["eval_loss"]
    code, said, _ = call("chat", answer["run"], "--prompt", "What is 2 plus 2?", "--max-tokens", "8")
    assert code == 0
    assert {"text", "tokens", "stop", "prompt_tokens"} <= said["base"].keys() == said["tuned"].keys()
    code, said, _ = call("chat", answer["run"], "--prompt", "What is 2 plus 2?", "--max-tokens", "8", "--strength", "0")
    assert said["tuned"]["text"] == said["base"]["text"]
    code, said, _ = call("chat", answer["run"], "--prompt", "Hi", "--max-tokens", "8", "--checkpoint", "3")
    assert code == 0
    code, said, _ = call("chat", answer["run"], "--prompt", "Hi", "--checkpoint", "2")
    assert code == 2
    assert "checkpoint from step 2 no longer exists" in said["error"]["message"]
    for wrong in (["--strength", "nan"], ["--strength", "-1"], []):
        assert call("chat", answer["run"], *wrong)[0] == 2


def test_a_conversation_can_be_piped(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tiny, small_dataset)
    asked = "What is 1 plus 1?\n\nAnd 2 plus 2?\n"
    done = python("-m", "finetune", "chat", run.id, "--max-tokens", "6", text=asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--- base (") == done.stdout.count("--- tuned (") == 2


def test_train_from_yaml_and_what_is_set_wins(tmp_path: Path, tiny: Path, small_dataset: data.Dataset) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"data: {small_dataset.path.name}\nmodel: {tiny}\nmax_steps: 9\n")
    code, answer, _ = call("train", str(path), "--set", "max_steps=2")
    assert (code, answer["steps"]) == (0, 2)


def test_a_run_is_continued(tmp_path: Path, tiny: Path, small_dataset: data.Dataset) -> None:
    place, first = str(small_dataset.path), ("--set", f"model={tiny}", "max_steps=6", "r=4", "learning_rate=0.01")
    _, before, _ = call("train", place, *first)
    code, after, errors = call("train", place, "--from", before["run"], "--set", "max_steps=2")
    assert code == 0, errors
    assert (after["parent"], after["steps"], after["base_eval_loss"]) == (before["run"], 2, None)
    assert after["start_eval_loss"] == pytest.approx(before["eval_loss"], abs=1e-4)
    code, more, _ = call("train", place, "--from", after["run"], "--preset", "quick", "--set", "max_steps=1")
    assert code == 0, "of a preset not the shape of the adapter"
    code, listed, _ = call("runs")
    assert [run["parent"] for run in listed["runs"]] == [after["run"], before["run"], None]
    code, whole, _ = call("train", place, "--from", before["run"], "--set", "epochs=1")
    assert whole["steps"] == 3, "17 rows once: settings but those of the adapter's shape are this run's own"
    recipe = tmp_path / "run.yaml"
    recipe.write_text(f"data: {place}\nr: 16\n")  # the default, but said
    for said in ((place, "--set", "r=8"), (str(recipe),)):
        code, answer, _ = call("train", *said, "--from", before["run"])
        assert (code, answer["error"]["code"]) == (2, "config_invalid")
        assert "was made with 4, and can only be continued with the same" in answer["error"]["message"]
    code, answer, _ = call("train", place, "--from", "r0000000")
    assert (code, answer["error"]["code"]) == (2, "run_unknown")


def test_a_failed_run_says_why(small_dataset: data.Dataset, tiny: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(tiny, torn)
    (torn / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:5000])
    code, answer, _ = call("train", str(small_dataset.path), "--set", f"model={torn}")
    assert code == 1
    assert (answer["state"], answer["code"]) == ("failed", "model_unavailable")
    assert "weights cannot be loaded" in answer["reason"]
    error = answer["error"]
    assert (error["code"], error["message"], error["where"]) == (answer["code"], answer["reason"], answer["run"])
    assert error["fix"].startswith("Use --set model=")


@pytest.mark.parametrize("verb", ["train", "plan"])
@pytest.mark.parametrize("layers", ["nope", "embed_tokens", "q_proj,lm_head"])
def test_a_run_that_nothing_could_use_does_not_begin(
    small_dataset: data.Dataset, tiny: Path, verb: str, layers: str
) -> None:
    code, answer, _ = call(verb, str(small_dataset.path), "--set", f"model={tiny}", f"target_modules={layers}")
    assert code == 2
    assert answer["error"]["where"] == "target_modules"
    assert answer["error"]["fix"].startswith("Use all-linear, or some of: q_proj, k_proj")


def test_training_cannot_begin(small_dataset: data.Dataset, tmp_path: Path) -> None:
    code, answer, _ = call("train", str(small_dataset.path), "--set", "epocs=1")
    assert (code, answer["error"]["code"], answer["error"]["where"]) == (2, "config_invalid", "epocs")
    code, answer, _ = call("train", str(tmp_path / "nothing.jsonl"))
    assert (code, answer["error"]["code"]) == (2, "no_such_file")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": []}\n')
    code, answer, _ = call("train", str(bad))
    assert (code, answer["error"]["code"]) == (1, "data_not_trainable")


def test_nothing_is_planned_without_a_row_to_train_on(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": []}\n')
    answers = []
    for verb in ("train", "plan"):
        code = main([verb, str(bad), "--set", f"model={tiny}", "--json"])
        answers.append((code, json.loads(capsys.readouterr().out)["error"]))
    assert answers[0] == answers[1]
    code, error = answers[1]
    assert (code, error["code"], error["where"]) == (1, "data_not_trainable", "bad.jsonl")


def test_an_unknown_run_exits_with_2() -> None:
    code, answer, _ = call("chat", "r0", "--prompt", "Hi")
    assert (code, answer["error"]["code"]) == (2, "run_unknown")


def test_runs_are_printed_for_people(
    store: Store, tiny: Path, small_dataset: data.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_tiny(store, tiny, small_dataset, max_steps=1)
    assert main(["runs"]) == 0
    assert run.id in capsys.readouterr().out


def test_check_fetches_no_model(small_dataset: data.Dataset, home: Path) -> None:
    code, answer, errors = call("check", str(small_dataset.path))
    assert (code, answer["rows"], answer["tokens"]) == (0, 20, {})
    assert "is not downloaded yet" in errors
    assert not (home / "models").exists()


def test_evaluate_export_and_import(store: Store, tiny: Path, tmp_path: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tiny, small_dataset)
    code, found, errors = call("evaluate", run.id, "--limit", "3")
    assert code == 0
    assert "answers, about" in errors
    assert set(found) >= {"run", "data", "n", "excluded", "metric", "arms", "difference", "forgetting", "verdict"}
    assert found["verdict"]["code"] == "too_few_rows"
    arm = {"score", "ci", "correct", "loss", "prompt_tokens", "seconds"}
    assert all(set(one) >= arm for one in found["arms"].values())
    schema = tmp_path / "schema.json"
    schema.write_text("{")
    code, answer, _ = call("evaluate", run.id, "--schema", str(schema))
    assert (code, answer["error"]["code"]) == (2, "usage")
    code, made, _ = call("export", run.id, "--to", "adapter", "--out", str(tmp_path / "out"), "--rows", "2")
    assert code == 0
    assert made["parity"]["status"] == "green"
    assert set(made["parity"]) >= {"n", "same", "score_before", "score_after", "status"}
    assert Path(made["path"]).stat().st_size == made["bytes"]
    code, made, _ = call("export", run.id, "--to", "bundle", "--out", str(tmp_path / "out"), "--with-data")
    assert (code, made["parity"]) == (0, None)
    code, answer, _ = call("import", made["path"], "--model", str(tiny))
    assert code == 0
    assert store.run(answer["run"]).state == "succeeded"
    code, answer, _ = call("export", run.id, "--to", "hub")
    assert (code, answer["error"]["code"]) == (2, "usage")
    code, answer, _ = call("import", str(schema))
    assert (code, answer["error"]["code"]) == (2, "bundle_refused")


def test_strengths_are_measured_chosen_and_exported(
    store: Store, tiny: Path, tmp_path: Path, small_dataset: data.Dataset
) -> None:
    run = train_tiny(store, tiny, small_dataset)
    code, found, errors = call("strength", run.id)
    assert (code, found["run"], found["chosen"], found["best"]) == (0, run.id, 1.0, None), "three rows tell nothing"
    assert [point["strength"] for point in found["points"]] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    assert "of 469 answers" in errors
    assert "general loss" in errors
    assert "Too few rows to tell which strength is best" in errors
    export = ["export", run.id, "--to", "adapter", "--out", str(tmp_path), "--rows", "2"]
    code, made, _ = call(*export, "--strength", "0.5")
    assert (code, made["strength"], Path(made["path"]).name) == (0, 0.5, f"{run.id}-adapter-strength-0.5.zip")
    assert call("strength", run.id, "--use", "0.75")[1] == {"run": run.id, "chosen": 0.75}
    code, made, errors = call(*export)
    assert (code, made["strength"], made["parity"]["status"]) == (0, 0.75, "green")
    assert "exported at strength 0.75; the verdict is about strength 1" in errors
    for wrong in (
        ["strength", run.id, "--use", "nan"],
        ["strength", run.id, "--use", "-1"],
        [*export, "--strength", "3"],
    ):
        code, answer, _ = call(*wrong)
        assert (code, answer["error"]["where"]) == (2, "strength")
    code, answer, _ = call("export", run.id, "--to", "bundle", "--strength", "0.5")
    assert (code, answer["error"]["where"]) == (2, "--strength")
    assert call("strength", "r0")[1]["error"]["code"] == "run_unknown"


@pytest.mark.parametrize("verb", ["check", "train", "preview"])
@pytest.mark.parametrize("path", ["a" * 300, "a" * 300 + "/train.jsonl", "a\0b"])
def test_a_path_that_cannot_be_looked_at_is_a_sentence(
    verb: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, path, "--json"]) == 2
    told = capsys.readouterr().out
    assert json.loads(told)
    assert '"no_such_file"' in told
    if verb == "train":
        assert main(["train", "sample_data/voice", "--validation", path, "--json"]) == 2
        assert '"no_such_file"' in capsys.readouterr().out


def test_a_folder_without_data_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path), "--json"]) == 2
    assert "no training file" in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "finetune", "check", "sample_data/recipes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # type: ignore[union-attr]
        assert "Traceback" not in process.stderr.read()  # type: ignore[union-attr]
    assert process.returncode == 141


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = python("-m", "finetune", "serve", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 2
    assert "the port is taken" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def exported(store: Store, tiny: Path, small_dataset: data.Dataset) -> list[str]:
    """The command that pushes a finished run."""
    return ["export", train_tiny(store, tiny, small_dataset, max_steps=1).id, "--to", "hub", "--json"]


def test_token_and_name_are_looked_at_before_the_work(
    exported: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make, "export", lambda *_, **__: pytest.fail("something was exported first"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    for token, repo, code in (("", "me/x", "hub_login"), ("hf_abc", "a b", "hub_name")):
        monkeypatch.setenv("HF_TOKEN", token)
        assert main([*exported, "--repo", repo]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_what_answers_otherwise_is_not_pushed_and_the_evidence_is_given(
    exported: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    red = parity.compare([("a", True)] * 9, [("b", True)] * 9, ["a"] * 9, ["no"] * 9, "label")
    monkeypatch.setattr(make, "export", lambda *_, **__: make.Exported("adapter", tmp_path, 1, "0", red))
    monkeypatch.setattr(hub, "push", lambda *_, **__: pytest.fail("it was pushed"))
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    assert main([*exported, "--repo", "me/x"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["path"], answer["parity"]["status"]) == (None, "red")


def test_a_push_replaces_only_when_told(
    exported: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(make, "export", lambda *_, **__: make.Exported("adapter", tmp_path, 1, "0"))
    monkeypatch.setattr(hub, "push", lambda *_, **chosen: seen.append(chosen["replace"]) or "https://hub/me/x")
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    for more in ([], ["--replace"]):
        assert main([*exported, "--repo", "me/x", *more]) == 0
        assert json.loads(capsys.readouterr().out)["path"] == "https://hub/me/x"
    assert seen == [False, True]
    assert main(["export", exported[1], "--to", "adapter", "--replace", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["where"] == "--replace"
