"""A Space is made and updated from a checkout: what goes up, what does not, what it costs, and every refusal."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.checkout import app_files, refuse_secrets
from finetune.cli import main
from finetune.deploy import FREE, TITLE, Deployment
from finetune.errors import ConfigError, FinetuneError
from tests.export.hub_server import ATTRIBUTES, Hub, serving

ROOT = Path(__file__).parents[1]
MINE = "hf_" + "m" * 34
README = b"---\ntitle: Before & After\nsdk: gradio\nsdk_version: 6.31.0\n---\n# Before & After\n"
APP = {
    "README.md": README,
    "LICENSE": b"Apache",
    "app.py": b"print('app')\n",
    "requirements.txt": b"gradio\n",
    "finetune/__init__.py": b"",
    "finetune/ui/page.css": b"a {}",
    "sample_data/tickets/train.jsonl": b"{}\n",
}
NOT_THE_APPS = {
    "finetune/.env.json": b"HF_TOKEN=x",
    "finetune/__pycache__/page.py": b"old",
    "finetune/weights.safetensors": b"\0",
    "tests/test_app.py": b"",
    "notes.md": b"mine",
    "kept/finetune.db": b"SQLite",
    "kept/rows.jsonl": b"{}",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with serving() as served:
        served.token = MINE
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", MINE)
        yield served


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    for name, content in {**APP, **NOT_THE_APPS}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (tmp_path / "outside.py").write_text("elsewhere")
    (folder / "finetune" / "linked.py").symlink_to(tmp_path / "outside.py")
    (folder / "sample_data" / "linked").symlink_to(folder / "kept")
    return folder


def deployed(folder: Path, repo: str = "me/space", **more: object) -> str:
    """The address of a deployment that goes well."""
    deployment = Deployment(repo, folder, **more)
    deployment.look()
    return deployment.carry_out()


def refused(folder: Path, repo: str = "me/space", **more: object) -> FinetuneError:
    """The error of a deployment, after a look at it for the token."""
    with pytest.raises(FinetuneError) as caught:
        deployed(folder, repo, **more)
    assert caught.value.__context__ is None
    assert MINE not in str(caught.value)
    return caught.value


def calls(server: Hub) -> list[str]:
    return [name for name, _ in server.asked]


def test_a_new_space_holds_what_the_app_needs_and_nothing_else(server: Hub, checkout: Path) -> None:
    deployment = Deployment("me/space", checkout)
    said = deployment.look()
    assert server.repos == {}
    assert said[0] == "A new public Space, me/space, with the 7 files of this checkout (0 MB)."
    lines: list[str] = []
    assert deployment.carry_out(lines.append) == f"{server.address}/spaces/me/space"
    assert lines == ["Creating the Space me/space on cpu-basic.", "Uploading 7 files."]
    space = server.repos["spaces/me/space"]
    assert space["files"] == ATTRIBUTES | APP
    assert (space["private"], space["sdk"], space["hardware"]) == (False, "gradio", FREE)
    assert space["titles"] == ["initial commit", TITLE]
    assert {token for _, token in server.asked} == {f"Bearer {MINE}"}


def test_a_bare_name_is_ones_own_and_private_is_private(server: Hub, checkout: Path) -> None:
    assert deployed(checkout, "space", private=True).endswith("/spaces/me/space")
    assert server.repos["spaces/me/space"]["private"] is True


def test_what_it_costs_is_what_the_hub_says(server: Hub, checkout: Path) -> None:
    cost = Deployment("me/space", checkout, "t4-small").look()[-1]
    assert cost.startswith("t4-small (Nvidia T4 - small, 4 vCPU, 15 GB): $0.40 an hour, according to the Hub")
    assert "free, according to the Hub" in Deployment("me/space", checkout).look()[-1]
    assert "no hourly price" in Deployment("me/space", checkout, "zero-a10g").look()[-1]
    server.fail["prices"] = 500
    cost = Deployment("me/space", checkout, "t4-small").look()[-1]
    assert cost == "t4-small: the Hub did not say what it costs; see huggingface.co/pricing#spaces"


def test_hardware_that_the_hub_does_not_have_is_refused(server: Hub, checkout: Path) -> None:
    error = refused(checkout, hardware="t5-huge")
    assert (error.code, error.where) == ("no_hardware", "t5-huge")
    assert "cpu-basic, t4-small, zero-a10g" in error.fix
    server.fail["prices"] = 500
    assert "cpu-upgrade" in refused(checkout, hardware="t5-huge").fix
    assert server.repos == {}


def test_an_update_is_one_commit_and_removes_what_the_app_no_longer_has(server: Hub, checkout: Path) -> None:
    deployed(checkout)
    (checkout / "finetune/new.py").write_text("new")
    (checkout / "finetune/ui/page.css").unlink()
    server.repos["spaces/me/space"]["files"]["notes.txt"] = b"the owner's"
    deployment = Deployment("me/space", checkout)
    said = deployment.look()
    assert said[0].startswith("The public Space me/space is updated with the 7 files")
    assert "lost" in said[1]
    assert said[2] == "Deleted there, because the app no longer has it: finetune/ui/page.css."
    assert said[3] == "Its hardware stays as it is: cpu-basic."
    deployment.carry_out()
    space = server.repos["spaces/me/space"]
    held = {name: content for name, content in APP.items() if name != "finetune/ui/page.css"}
    assert space["files"] == ATTRIBUTES | held | {"finetune/new.py": b"new", "notes.txt": b"the owner's"}
    assert space["titles"] == ["initial commit", TITLE, TITLE]
    assert "hardware" not in calls(server)


def test_hardware_changes_only_when_asked(server: Hub, checkout: Path) -> None:
    deployed(checkout, hardware="t4-small")
    deployed(checkout)
    assert "$0.40 an hour" in Deployment("me/space", checkout).look()[-1], "it goes on costing"
    deployed(checkout, hardware="t4-small")
    assert server.repos["spaces/me/space"]["hardware"] == "t4-small"
    assert "hardware" not in calls(server)
    deployed(checkout, hardware="cpu-basic")
    assert server.repos["spaces/me/space"]["hardware"] == "cpu-basic"


def test_hardware_that_is_refused_changes_no_file(server: Hub, checkout: Path) -> None:
    deployed(checkout)
    (checkout / "app.py").write_text("changed")
    server.fail["hardware"], server.message = 402, "Add a payment method"
    error = refused(checkout, hardware="t4-small")
    assert error.code == "hub_payment"
    assert "Add a payment method" in error.what
    assert server.repos["spaces/me/space"]["files"]["app.py"] == APP["app.py"]


def test_hardware_that_is_offered_no_more_does_not_stop_an_update(server: Hub, checkout: Path) -> None:
    deployed(checkout)
    server.repos["spaces/me/space"]["hardware"] = "t3-ancient"
    deployment = Deployment("me/space", checkout)
    assert deployment.look()[-1] == "Its hardware stays as it is: t3-ancient."
    assert deployment.as_dict() == {"repo": "me/space", "new": False, "private": False, "hardware": "t3-ancient"}


def test_other_work_is_left_alone_unless_asked(server: Hub, checkout: Path) -> None:
    server.add("spaces/me/space", private=False, titles=("initial commit", "My own words"), files={"app.py": b"mine"})
    server.repos["spaces/me/space"] |= {"sdk": "docker", "hardware": "cpu-basic"}
    assert refused(checkout).code == "hub_taken"
    assert server.repos["spaces/me/space"]["files"] == {"app.py": b"mine"}
    deployed(checkout, replace=True)
    assert server.repos["spaces/me/space"]["files"]["app.py"] == APP["app.py"]


def test_what_was_to_be_private_does_not_go_to_a_public_space(server: Hub, checkout: Path) -> None:
    deployed(checkout)
    assert refused(checkout, private=True).code == "hub_public"


def test_what_somebody_commits_meanwhile_is_not_overwritten(server: Hub, checkout: Path) -> None:
    deployed(checkout)
    deployment = Deployment("me/space", checkout)
    deployment.look()
    server.repos["spaces/me/space"]["titles"].append("My own words")
    with pytest.raises(FinetuneError) as caught:
        deployment.carry_out()
    assert caught.value.code == "hub_busy"


@pytest.mark.parametrize(
    ("where", "status", "message", "code"),
    [
        ("whoami", 401, "", "hub_token"),
        ("whoami", "hang up", "", "hub_unreachable"),
        ("create", 402, "Subscribe to PRO", "hub_payment"),
        ("create", 403, "You don't have the rights to create a space under the namespace them", "hub_forbidden"),
        ("create", 403, "Private repository storage limit reached", "hub_quota"),
        ("create", 409, "", "hub_taken"),
        ("preupload", 503, "", "hub_busy"),
        ("commit", 400, f"odd {MINE}", "hub_refused"),
        ("commit", "hang up", "", "hub_unreachable"),
    ],
)
def test_refusals_are_sentences_and_a_second_try_goes_well(
    server: Hub, checkout: Path, where: str, status: int | str, message: str, code: str
) -> None:
    server.fail[where], server.message = status, message
    error = refused(checkout)
    assert error.code == code, error
    assert error.fix
    assert "\n" not in str(error)
    assert server.repos.get("spaces/me/space", {"files": ATTRIBUTES})["files"] == ATTRIBUTES
    server.fail.clear()
    deployed(checkout)
    assert server.repos["spaces/me/space"]["files"] == ATTRIBUTES | APP
    assert server.repos["spaces/me/space"]["hardware"] == FREE


def test_a_silent_hub_is_given_up(server: Hub, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.deploy.SECONDS", 0.5)
    server.fail["whoami"] = waited = threading.Event()
    try:
        assert str(refused(checkout)).startswith("The Hub did not answer within 0.5 s.")
    finally:
        waited.set()


def test_no_token_is_one_sentence(server: Hub, checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert refused(checkout).code == "hub_login"
    assert server.asked == []


def test_a_token_that_may_only_read_is_refused_before_anything_is_made(server: Hub, checkout: Path) -> None:
    server.who |= {"auth": {"type": "access_token", "accessToken": {"role": "read"}}}
    assert refused(checkout).code == "hub_forbidden"
    assert calls(server) == ["whoami"]


def test_a_space_does_not_lend_its_owners_token(server: Hub, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "them/space")
    assert refused(checkout).code == "hub_login"
    assert server.asked == []


def test_only_what_git_tracks_goes_up(checkout: Path) -> None:
    """Rows that somebody laid beside the samples are theirs, not the Space's."""
    (checkout / "sample_data/mine").mkdir()
    (checkout / "sample_data/mine/train.jsonl").write_text('{"patient": "…"}')
    files, others = app_files(checkout)
    assert ("sample_data/mine/train.jsonl" in files, others) == (True, []), "without git nobody can tell"
    git = ["git", "-C", str(checkout)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "--", *APP, "notes.md"], check=True)
    files, others = app_files(checkout)
    assert set(files) == set(APP)
    assert others == ["sample_data/mine/train.jsonl"]


def test_what_the_app_keeps_does_not_go_up(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = checkout / "finetune" / "home"
    (home / "runs").mkdir(parents=True)
    (home / "runs" / "result.json").write_text("{}")
    monkeypatch.setenv("FINETUNE_HOME", str(home))
    assert set(app_files(checkout)[0]) == set(APP)


def test_a_token_in_a_file_stops_everything(server: Hub, checkout: Path) -> None:
    (checkout / "finetune/key.py").write_text(f"KEY = {MINE!r}")
    error = refused(checkout)
    assert (error.code, error.where) == ("secret_in_file", "finetune/key.py")
    assert server.asked == []


def test_another_folder_is_no_checkout(tmp_path: Path) -> None:
    for readme in (None, "# Something else\n"):
        if readme:
            (tmp_path / "README.md").write_text(readme)
        with pytest.raises(ConfigError, match="no checkout of the app"):
            app_files(tmp_path)


def test_the_app_runs_on_the_files_that_go_up(home: Path, tmp_path: Path) -> None:
    """Nothing of the package is missing: the page is built from what a Space would have."""
    files, _ = app_files(ROOT)
    refuse_secrets(files)
    for name, path in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(path.read_bytes())
    code = (
        "import app, finetune\n"
        "from finetune import chat, data, services, settings, store\n"
        "from finetune.evaluate import finished\n"
        "from finetune.ui import page\n"
        "page.build(services.Services(store.Store(settings.read().home), chat.Engine()))\n"
        "print(finetune.__file__, len(data.samples()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(tmp_path / "finetune" / "__init__.py"), "4"]


class Terminal:
    """Somebody who types this."""

    def __init__(self, answer: str):
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer


def called(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str, typed: str | None = None) -> int:
    monkeypatch.chdir(folder)
    if typed is not None:
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
    return main(["deploy", *words])


def test_the_command_asks_first(
    server: Hub, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(checkout, monkeypatch, "me/space", "--hardware", "t4-small", typed="\n") == 1
    said = capsys.readouterr().err
    assert said.index("$0.40 an hour") < said.index("Go on?") < said.index("Nothing was changed.")
    assert server.repos == {}
    assert called(checkout, monkeypatch, "me/space", "--hardware", "t4-small", typed="y\n") == 0
    assert capsys.readouterr().out == f"{server.address}/spaces/me/space\n"
    assert server.repos["spaces/me/space"]["hardware"] == "t4-small"


def test_the_command_is_for_scripts_too(
    server: Hub, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(checkout, monkeypatch, "me/space", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"
    assert server.asked == []
    assert called(checkout, monkeypatch, "me/space", "--private", "--yes", "--json") == 0
    printed = capsys.readouterr()
    found = {"repo": "me/space", "new": True, "private": True, "hardware": FREE}
    assert json.loads(printed.out) == {"space": f"{server.address}/spaces/me/space", **found}
    assert "free, according to the Hub" in printed.err
    assert MINE not in printed.out + printed.err


@pytest.mark.parametrize("repo", ["", "a/b/c", "me/..", "me/ü", "-x"])
def test_names_the_hub_would_not_take(server: Hub, checkout: Path, repo: str) -> None:
    assert refused(checkout, repo).code == "hub_name"
    assert server.asked == []
