"""A push: the bytes arrive, as asked for, with the visitor's token, and nobody else learns it."""

import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.errors import FinetuneError, NotAllowed, RunError
from finetune.export import hub
from finetune.export.hub.checks import pushable, usable, valid
from finetune.export.hub.errors import scrubbed
from finetune.ui.progress import Abandoned
from tests.export.hub_server import ATTRIBUTES, Hub, serving

ROOT = Path(__file__).parents[2]
MINE, SERVERS = "hf_vis" + "itor", "hf_ser" + "ver"  # in pieces: a traceback shows lines of this file
SECRETS = (MINE, SERVERS, "signed" + "-secret")

FILES = {
    "README.md": b"---\nlicense: mit\n---\n# A card\n",
    "adapter_config.json": b"{}",
    "adapter_model.safetensors": bytes(range(256)) * 500,  # 128 kB: in three parts
    "small.gguf": b"GGUF" * 100,
    "Modelfile": b"FROM ./small.gguf\n",
    "chat_template.jinja": b"{{ messages }}",
    "notes/train.ipynb": b"{}",
}
OTHERS = {".env": b"SECRET=1", ".git/config.json": b"{}", "optimizer.pt": b"\x80", "train.jsonl": b"{}", "log": b"."}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with serving() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", SERVERS)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "adapter"
    for name, content in {**FILES, **OTHERS}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    outside = tmp_path / "outside.json"
    outside.write_text("elsewhere")
    (place / "linked.json").symlink_to(outside)
    return place


def refused(folder: Path, repo: str = "me/new", **more: object) -> FinetuneError:
    """The error of a push, after a look at its whole chain for tokens."""
    with pytest.raises(FinetuneError) as caught:
        hub.push(folder, repo, MINE, **more)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.args)
    assert not any(secret in shown for secret in SECRETS)
    return caught.value


def test_every_byte_arrives_in_one_private_commit(
    server: Hub, folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    address = hub.push(folder, "me/new", MINE, say=said.append)
    assert address == f"{server.address}/me/new"
    held = ATTRIBUTES | FILES
    assert server.repos == {"me/new": {"private": True, "titles": ["initial commit", hub.TITLE], "files": held}}
    sent = {token for name, token in server.asked if name not in ("put", "complete")}
    assert sent == {f"Bearer {MINE}"}
    assert {token for name, token in server.asked if name in ("put", "complete")} == {None}
    assert said[0] == "6 other files are not pushed."
    assert said[2] == "Creating the private repository me/new."
    assert any("adapter_model.safetensors (0.1 MB)" in line for line in said)
    assert said[-1] == "Committing 7 files to me/new."
    everything = caplog.text + "".join(said) + "".join(capfd.readouterr())
    assert "Request" in caplog.text  # huggingface_hub did log its requests
    assert not any(secret in everything for secret in SECRETS)


def test_a_bare_name_is_the_users_own_and_public_only_when_asked(server: Hub, folder: Path) -> None:
    assert hub.push(folder, "recipes", MINE, private=False).endswith("/me/recipes")
    assert server.repos["me/recipes"]["private"] is False


def test_pushing_again_brings_it_up_to_date(server: Hub, folder: Path) -> None:
    hub.push(folder, "me/new", MINE)
    (folder / "README.md").write_text("changed")
    said: list[str] = []
    hub.push(folder, "me/new", MINE, say=said.append)
    assert server.repos["me/new"]["files"]["README.md"] == b"changed"
    assert "Updating me/new, which stays private." in said
    assert said[-1] == "Committing 7 files to me/new."


def test_files_that_somebody_else_began_with_stay(server: Hub, folder: Path) -> None:
    """People, too, call their first commit so."""
    server.add("me/mine", files=ATTRIBUTES | {"notes.md": b"mine"})
    hub.push(folder, "me/mine", MINE)
    hub.push(folder, "me/mine", MINE)
    assert server.repos["me/mine"]["files"]["notes.md"] == b"mine"
    assert server.repos["me/mine"]["titles"] == ["initial commit", hub.TITLE, hub.TITLE]


@pytest.mark.parametrize("replace", [False, True])
def test_what_an_earlier_push_left_goes_in_the_same_commit(
    server: Hub, folder: Path, tmp_path: Path, replace: bool
) -> None:
    """An adapter_config.json beside merged weights would win: transformers would load the adapter."""
    hub.push(folder, "me/new", MINE)
    merged = tmp_path / "merged"
    merged.mkdir()
    files = {"README.md": b"# Merged\n", "config.json": b"{}", "model.safetensors": b"\1" * 9}
    for name, content in files.items():
        (merged / name).write_bytes(content)
    said: list[str] = []
    hub.push(merged, "me/new", MINE, replace=replace, say=said.append)
    assert server.repos["me/new"]["files"] == ATTRIBUTES | files
    assert server.repos["me/new"]["titles"] == ["initial commit", hub.TITLE, hub.TITLE]
    assert said[-1] == "Committing 3 files to me/new, removing 6 of an earlier push."


def test_other_peoples_work_is_left_alone_unless_asked(server: Hub, folder: Path) -> None:
    server.add("me/old", titles=("initial commit", hub.TITLE, "My own words"))
    assert refused(folder, "me/old").code == "hub_taken"
    assert server.repos["me/old"]["files"] == ATTRIBUTES
    server.repos["me/old"]["files"] |= {"README.md": b"mine", "thesis.txt": b"mine"}
    said: list[str] = []
    assert hub.push(folder, "me/old", MINE, replace=True, say=said.append)
    assert server.repos["me/old"]["files"] == ATTRIBUTES | FILES | {"thesis.txt": b"mine"}
    assert "1 other file stays in me/old." in said


@pytest.mark.parametrize("replace", [False, True])
def test_what_somebody_commits_meanwhile_is_not_overwritten(server: Hub, folder: Path, replace: bool) -> None:
    hub.push(folder, "me/new", MINE)

    def say(line: str) -> None:
        if line.startswith("Updating"):
            server.repos["me/new"]["titles"].append("My own words")
            server.repos["me/new"]["files"]["README.md"] = b"mine"

    error = refused(folder, "me/new", say=say, replace=replace)
    assert error.code == "hub_busy"
    assert "in the meantime" in str(error)
    assert server.repos["me/new"]["files"]["README.md"] == b"mine"


def test_what_was_to_be_private_does_not_go_to_a_public_repository(server: Hub, folder: Path) -> None:
    server.add("me/open", private=False)
    assert refused(folder, "me/open").code == "hub_public"
    assert refused(folder, "me/open", replace=True).code == "hub_public"
    assert hub.push(folder, "me/open", MINE, private=False)


@pytest.mark.parametrize(
    ("where", "status", "message", "code"),
    [
        ("whoami", 401, "", "hub_token"),
        ("create", 403, "", "hub_forbidden"),
        ("create", 409, "", "hub_taken"),
        ("create", 500, "", "hub_busy"),
        ("info", 503, "", "hub_busy"),
        ("whoami", 429, "", "hub_busy"),
        ("batch", 403, "Private repository storage limit reached", "hub_quota"),
        ("batch", 402, "", "hub_quota"),
        ("put", 413, "", "hub_quota"),
        ("put", 403, "", "hub_forbidden"),
        ("commit", 400, f"odd {MINE}", "hub_refused"),
        ("whoami", "hang up", "", "hub_unreachable"),
    ],
)
def test_refusals_are_sentences(
    server: Hub, folder: Path, where: str, status: int | str, message: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail[where], server.message = status, message
    error = refused(folder)
    assert error.code == code, error
    assert error.fix
    assert "\n" not in str(error)
    assert server.repos.get("me/new", {"files": ATTRIBUTES})["files"] == ATTRIBUTES
    assert not any(secret in caplog.text for secret in SECRETS)


def test_a_silent_hub_is_given_up(server: Hub, folder: Path) -> None:
    server.fail["info"] = "silence"
    error = refused(folder, seconds=0.6)
    assert str(error) == "The Hub did not answer within 0.6 s. Nothing was uploaded to the repository. Try again."
    server.fail = {"commit": "silence"}
    assert "whether the commit arrived" in str(refused(folder, "me/other", seconds=1.5))
    server.fail = {"whoami": "silence"}
    assert "did not answer within 0.3 s" in str(refused(folder, "me/third", seconds=0.3))


def test_stopping_commits_nothing(server: Hub, folder: Path) -> None:
    server.fail["batch"] = "silence"
    said: list[str] = []
    uploading = lambda: any("Uploading adapter_model" in line for line in said)  # noqa: E731
    assert refused(folder, say=said.append, stop=uploading).code == "hub_stopped"
    assert server.repos["me/new"]["titles"] == ["initial commit"]
    assert "commit" not in [name for name, _ in server.asked]


def abandoned(folder: Path, at: str) -> list[threading.Thread]:
    """Push, and have nobody listen any more from a line on, as when a page is closed; what still runs of it."""
    before = threading.enumerate()

    def say(line: str) -> None:
        if line.startswith(at):
            raise Abandoned

    with pytest.raises(Abandoned):
        hub.push(folder, "me/new", MINE, say=say)
    return [one for one in threading.enumerate() if one.name == "hub-push" and one not in before]


def test_an_abandoned_push_commits_nothing(server: Hub, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail["batch"] = uploading = threading.Event()
    pushing = abandoned(folder, "Uploading adapter_model")
    uploading.set()
    for thread in pushing:
        thread.join(20)
    asked = [name for name, _ in server.asked]
    assert "put" in asked, "it was in the midst of uploading"
    assert "commit" not in asked
    assert server.repos["me/new"]["titles"] == ["initial commit"]
    assert not any(secret in caplog.text for secret in SECRETS)


def test_an_abandoned_push_makes_no_repository(server: Hub, folder: Path) -> None:
    server.fail["whoami"] = asked = threading.Event()
    pushing = abandoned(folder, "Asking")
    asked.set()
    for thread in pushing:
        thread.join(20)
    assert server.repos == {}


def test_files_stay_until_a_commit_under_way_is_made(server: Hub, folder: Path) -> None:
    server.fail["commit"] = committing = threading.Event()
    threading.Timer(0.5, committing.set).start()
    abandoned(folder, "Committing")
    assert server.repos["me/new"]["files"] == ATTRIBUTES | FILES


def test_a_token_that_may_only_read_is_refused_at_once(server: Hub, folder: Path) -> None:
    server.who |= {"auth": {"type": "access_token", "accessToken": {"role": "read"}}}
    assert refused(folder).code == "hub_forbidden"
    assert [name for name, _ in server.asked] == ["whoami"]


def test_the_servers_token_is_not_for_visitors(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    for token in (None, "", "  "):
        with pytest.raises(NotAllowed, match="Sign in with Hugging Face first") as caught:
            hub.push(folder, "me/new", token)
        assert caught.value.code == "hub_login"
    assert server.asked == []
    assert hub.push(folder, "me/new", MINE)


def test_the_local_token_is_for_the_one_at_the_machine(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    server.token = SERVERS
    assert hub.push(folder, "me/new", None)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "none"))
    with pytest.raises(NotAllowed, match="hf auth login"):
        usable(None)


def test_offline_is_said(server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused(folder).code == "hub_offline"


def test_no_hub_is_one_sentence_in_a_fresh_process(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from finetune.errors import FinetuneError\n"
        "from finetune.export import hub\n"
        "print('torch' in sys.modules, 'huggingface_hub' in sys.modules)\n"
        "try: hub.push(Path(sys.argv[1]), 'me/new', 'hf_visitor', say=print)\n"
        "except FinetuneError as error: print(error)"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "False False"
    assert lines[-1] == "The Hub cannot be reached. Check the connection and try again; nothing was committed."
    assert MINE not in done.stdout + done.stderr


@pytest.mark.parametrize("token", ["hf_a b", "hf_a\nX-Evil: 1", "hf_é"])
def test_what_is_no_token_is_not_sent_or_shown(server: Hub, folder: Path, token: str) -> None:
    with pytest.raises(NotAllowed, match="This is not a Hub token") as caught:
        hub.push(folder, "me/new", token)
    assert token not in str(caught.value)
    assert server.asked == []


@pytest.mark.parametrize(
    "repo", ["", "a/b/c", "../x", "me/..", "me/x.git", "-x", "me/ü", "me/" + "x" * 97, "a\nb", "~"]
)
def test_names_the_hub_would_not_take(repo: str) -> None:
    with pytest.raises(RunError) as caught:
        valid(repo)
    assert caught.value.code == "hub_name"


def test_only_what_was_exported_is_pushed(folder: Path, tmp_path: Path) -> None:
    assert sorted(pushable(folder)) == sorted(FILES)
    (tmp_path / "empty").mkdir()
    (folder / "inner").symlink_to(tmp_path)
    assert sorted(pushable(folder)) == sorted(FILES)
    with pytest.raises(RunError, match="nothing to push"):
        pushable(tmp_path / "empty")


def test_scrubbing() -> None:
    text = "PUT https://store/x?X-Signature=signed with Bearer " + MINE
    assert scrubbed(text, MINE) == "PUT https://store/x with Bearer …"


def test_a_space_never_lends_its_own_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it was told not to be shared: its HF_TOKEN is its owner's, and who asks is anybody."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    assert usable(None) == "hf_" + "a" * 34
    monkeypatch.setenv("SPACE_ID", "me/space")
    with pytest.raises(NotAllowed) as told:
        usable(None)
    assert told.value.code == "hub_login"
    assert usable("hf_own") == "hf_own"
