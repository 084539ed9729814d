"""Whose login it is, that it is kept nowhere, and what is refused before a job begins."""

import importlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from finetune import jobs, owners, settings, train
from finetune.chat import Engine
from finetune.errors import ConfigError, FinetuneError, NotAllowed, RunError
from finetune.jobs import account, follow
from finetune.services import Services
from finetune.store import Run, Store
from tests.jobs import machines
from tests.jobs.conftest import TOKEN, an_offer, the_job, to_end, until
from tests.jobs.server import Hub

OWNER, OFFER = "a" * 32, jobs.Offer(jobs.Flavor("cpu-upgrade", "", "", 0.0005), 1800)


def whole_home() -> bytes:
    return b"\0".join(file.read_bytes() for file in settings.read().home.rglob("*") if file.is_file())


def test_the_token_is_kept_nowhere(
    send: Callable[..., Run], hub: Hub, store: Store, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    """Not in the home, the repository, a log or the arguments of a process; only as the job's secret."""
    caplog.set_level("DEBUG")
    run, supervisor = send(max_steps=20), train.Supervisor(store)
    seen: list[str] = []

    def look() -> None:
        supervisor.tick()
        for one in psutil.process_iter(["cmdline"]):
            seen.extend(one.info["cmdline"] or [])

    hub.jobs[the_job(hub).id].lines.append(f"HF_TOKEN={TOKEN}")  # as a careless library prints its environment
    until(lambda: store.run(run.id).step >= 1, tick=look)
    ended = to_end(store, run, hub, supervisor=supervisor)
    assert ended.state == "succeeded"
    assert the_job(hub).asked["secrets"] == {"HF_TOKEN": TOKEN}
    assert TOKEN not in str(the_job(hub).asked | {"secrets": ""})
    assert TOKEN.encode() not in whole_home()
    for tree in hub.trees[f"me/before-after-{run.id}"]:
        assert not [name for name, content in tree.items() if TOKEN.encode() in content]
    assert not [word for word in seen if TOKEN in word]
    out = capfd.readouterr()
    assert TOKEN not in caplog.text + out.out + out.err
    assert TOKEN not in str(store.events(run.id)) + str(ended)


def test_a_visitor_pays_for_their_own_job(
    send: Callable[..., Run], hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a shared server the login of this machine is no help; after a restart the visitor has to come back."""
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    jobs.remember(OWNER, TOKEN)  # was here, and has signed out: that pays for nothing more
    with pytest.raises(NotAllowed, match="Sign in with Hugging Face first."):
        send(OFFER, {"owner": OWNER})
    with pytest.raises(NotAllowed):
        jobs.machines(OWNER)
    run, supervisor = send(OFFER, {"owner": OWNER, "token": TOKEN}), train.Supervisor(store)
    account._logins.clear()  # the server was started anew
    supervisor.tick()
    assert "Sign in with Hugging Face to keep following the job" in (store.run(run.id).reason or "")
    assert store.run(run.id).state == "queued"
    jobs.remember(OWNER, TOKEN)
    ended = to_end(store, run, hub, supervisor=supervisor)
    assert (ended.state, ended.reason) == ("succeeded", None)
    there = {file.name for folder in train.run_folder(run.id).glob("checkpoints/*") for file in folder.iterdir()}
    assert "adapter_model.safetensors" in there
    assert not there & {"optimizer.pt", "rng_state.pth", "training_args.bin", "scheduler.pt"}
    with pytest.raises(RunError, match="not resumed on a shared server"):
        train.resume(store, run.id)


def test_a_shared_server_leaves_its_operators_job_to_the_command_line(
    send: Callable[..., Run], hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has forgotten the login of its machine; the command line beside it has not."""
    hub.machine.clear()
    run = send()
    monkeypatch.setattr(follow, "FORGOTTEN", -1e6)
    with monkeypatch.context() as served:
        served.setenv("FINETUNE_SHARED", "1")
        train.Supervisor(store).tick()
        assert store.run(run.id) == run
    hub.machine.set()
    assert to_end(store, run, hub).state == "succeeded"


def test_only_so_many_logins_are_remembered(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Visitors can be made up, each with a login that is theirs."""
    monkeypatch.setattr(account, "MOST_LOGINS", 2)
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    for owner in "abac":
        jobs.remember(owner * 32, TOKEN)
    assert list(account._logins) == ["a" * 32, "c" * 32], "who was here last stays"
    jobs.forget("a" * 32)
    assert list(account._logins) == ["c" * 32]


@pytest.mark.parametrize("signed_in", [True, False])
def test_who_deletes_everything_waits_for_no_job(
    send: Callable[..., Run], hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch, signed_in: bool
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    hub.machine.clear()
    send(OFFER, {"owner": OWNER, "token": TOKEN})
    if not signed_in:
        account._logins.clear()
    owners.forget(Services(store, Engine()), OWNER)
    assert (store.runs(), store.datasets(), account._logins) == ([], [], {})
    assert list(settings.read().runs.glob("r*")) == []
    if signed_in:
        until(lambda: the_job(hub).stage == "CANCELED")
    else:
        assert the_job(hub).stage == "SCHEDULING", "nobody may cancel it; its time limit will end it"


def test_what_was_deleted_while_it_was_sent_is_no_job(
    send: Callable[..., Run], hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = importlib.import_module("finetune.jobs.submit")  # the package has a function of this name

    monkeypatch.setenv("FINETUNE_SHARED", "1")
    hub.machine.clear()
    begin = submit._begin

    def deleted(*arguments: object) -> object:
        info = begin(*arguments)  # type: ignore[arg-type]
        owners.forget(Services(store, Engine()), OWNER)
        return info

    monkeypatch.setattr(submit, "_begin", deleted)
    with pytest.raises(RunError, match="There is no such run."):
        send(OFFER, {"owner": OWNER, "token": TOKEN})
    until(lambda: the_job(hub).stage == "CANCELED")
    assert [name for name in hub.repos if "before-after" in name] == []


def test_what_a_job_left_waits_until_there_is_room(
    send: Callable[..., Run], hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    run, supervisor = send(OFFER, {"owner": OWNER, "token": TOKEN}), train.Supervisor(store)
    monkeypatch.setenv("FINETUNE_MAX_OWNER_MB", "0.01")
    said = until(lambda: store.run(run.id).reason, tick=supervisor.tick)
    assert "that this server keeps for each visitor" in said
    assert said.endswith("Delete data or runs that you no longer need.")
    assert store.run(run.id).state == "running"
    monkeypatch.delenv("FINETUNE_MAX_OWNER_MB")
    ended = to_end(store, run, hub, supervisor=supervisor)
    assert (ended.state, ended.reason) == ("succeeded", None)


def test_a_job_is_not_waited_for_without_end(
    send: Callable[..., Run], hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    run = send(OFFER, {"owner": OWNER, "token": TOKEN})
    monkeypatch.setenv("FINETUNE_MAX_OWNER_MB", "0.01")
    monkeypatch.setattr(follow, "FORGOTTEN", -1e6)
    ended = to_end(store, run, hub)
    assert (ended.state, ended.code) == ("failed", "job_lost")
    assert f"It is in the private repository me/before-after-{run.id}." in (ended.reason or "")


def test_the_login_of_another_account_does_not_end_a_run(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    hub.machine.clear()
    run, supervisor = send(), train.Supervisor(store)
    kept, hub.jobs, hub.who = hub.jobs, {}, hub.who | {"name": "somebody"}
    until(lambda: "another account, me" in (store.run(run.id).reason or ""), tick=supervisor.tick)
    assert store.run(run.id).state == "queued"
    supervisor.close()
    hub.jobs = kept


# What is refused


@pytest.mark.parametrize(
    ("fail", "code", "words"),
    [
        ({"run_job": 402}, "jobs_payment", "This account cannot pay for jobs."),
        ({"run_job": 403}, "jobs_forbidden", "This login may not start jobs"),
        ({"run_job": 429}, "hub_busy", "too many requests"),
        ({"create": 403}, "jobs_forbidden", "or not create a private repository"),
        ({"commit": 400}, "jobs_refused", "Hugging Face refused (status 400"),
        ({"hardware": 401}, "hub_token", "Sign in again."),
    ],
)
def test_a_refusal_is_a_sentence_and_leaves_nothing(
    send: Callable[..., Run], hub: Hub, store: Store, fail: dict[str, int], code: str, words: str
) -> None:
    offer = an_offer()
    hub.fail = dict(fail)
    with pytest.raises(FinetuneError) as refused:
        send(offer)
    assert (refused.value.code, words in str(refused.value)) == (code, True), str(refused.value)
    assert store.runs() == []
    assert list(settings.read().runs.glob("*")) == []
    assert [name for name in hub.repos if "before-after" in name] == []


def test_nobody_is_logged_in(send: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    offer = an_offer()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(NotAllowed, match="Run hf auth login"):
        send(offer)


def test_a_machine_that_there_is_not_is_told_those_there_are(hub: Hub) -> None:
    with pytest.raises(ConfigError, match=r"Use one of: cpu-basic, cpu-upgrade, t4-small\.$") as refused:
        an_offer("h1000")
    assert refused.value.code == "flavor_unknown"
    with pytest.raises(ConfigError, match="at most one GPU"):
        an_offer("l4x4")


@pytest.mark.parametrize("settings", [{"load_in_4bit": True}, {"report_to": "trackio"}])
def test_settings_that_no_job_can_do(send: Callable[..., Run], store: Store, settings: dict) -> None:
    with pytest.raises(ConfigError):
        send(**settings)
    assert store.runs() == []


def test_a_folder_of_this_machine_is_no_model_for_a_job(send: Callable[..., Run], tiny: Path) -> None:
    with pytest.raises(ConfigError, match="A job cannot read a folder of this machine."):
        send(model=str(tiny))


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("45", 2700), ("600s", 600), ("10 min", 600)]
)
def test_time_limits(text: str, seconds: int) -> None:
    assert jobs.limit(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5m", "1s", "30 years", "8d", "nan", "1e9", "٣0m"])
def test_what_is_no_time_limit(text: str) -> None:
    with pytest.raises(ConfigError, match="5 minutes to 7 days"):
        jobs.limit(text)


def test_price_and_time_are_said_for_what_they_are() -> None:
    offer = jobs.Offer(jobs.Flavor("t4-small", "Nvidia T4", "4 vCPU", 0.4 / 60, 1), 1800)
    plan = train.Plan(steps=87, seconds=700, evaluating=0, memory=1, machine=2)
    said = offer.sentences(plan)
    assert said.startswith("At most $0.20: 30 min 00 s of t4-small at $0.0067 a minute.")
    assert "On this machine the run would take about 12 min, as measured here." in said
    assert "is known only once it runs there" in said
    assert "was not measured" in offer.sentences(None)
    assert jobs.Offer(jobs.Flavor("cpu-basic", "", "", 0.000167), 300).most == 0.01, "never nothing"


# The script


def test_the_script_names_what_it_needs_as_requirements_does(send: Callable[..., Run], hub: Hub) -> None:
    """PEP 723, each pinned to the version of requirements.txt, and no more than the runtime has."""
    run = send()
    files = hub.trees[f"me/before-after-{run.id}"][-1]
    told = machines.script_metadata(files["train.py"].decode())
    pinned = {line for line in Path("requirements.txt").read_text().splitlines() if "==" in line}
    assert set(told["dependencies"]) <= pinned
    assert told["requires-python"] == ">=3.11"
    assert hub.repos[f"me/before-after-{run.id}"]["private"]
    assert sorted(files) == [".gitattributes", "run.zip", "train.py"]
