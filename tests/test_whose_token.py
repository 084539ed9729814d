"""Whose login goes with a request to the Hub: never the server's for a stranger (a stand-in records every request)."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from finetune.models.hub import environment
from tests import hub_stand_in
from tests.hub_stand_in import Hub, files_of, rows
from tests.serving import free_port
from tests.zygote import ROOT, Zygote, python

PORT = free_port()
CACHE = Path(tempfile.mkdtemp(prefix="hub-"))
READ_ONCE = {"HF_ENDPOINT": f"http://127.0.0.1:{PORT}", "HF_HOME": str(CACHE), "HF_HUB_DISABLE_XET": "1"}
"""Where the Hub and its cache are: huggingface_hub reads this once, when it is imported."""

CANARY = "hf_canary"
VISITOR = "hf_visitor"


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    shutil.rmtree(CACHE, ignore_errors=True)
    with hub_stand_in.serving(PORT) as hub:
        hub.add("models", "some/tiny", files_of(tiny))
        hub.add("models", "owner/private", files_of(tiny), readers={CANARY, VISITOR})
        hub.add("models", "owner/gated", files_of(tiny), readers={CANARY, VISITOR}, gated=True)
        hub.add("datasets", "some/sums", {"train.jsonl": rows(30)})
        hub.add("datasets", "owner/secrets", {"train.jsonl": rows(12, "secret")}, readers={CANARY})
        hub.add("datasets", "visitor/own", {"train.jsonl": rows(12, "own")}, readers={VISITOR})
        yield hub


@cache
def hubs_zygote() -> Zygote:
    return Zygote({**os.environ, **READ_ONCE})


def elsewhere(hub: Hub, tmp_path: Path, code: str, fresh: bool = False, **environment: str) -> list:
    """What another process prints, each line as JSON; with `fresh`, one that has imported nothing before."""
    environment = {**os.environ, **READ_ONCE, "HF_TOKEN": CANARY, "PYTHONPATH": str(ROOT), **environment}
    code = f"import json\ndef tell(it): print('> ' + json.dumps(it))\n{code}"
    done = (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        if fresh
        else python("-c", code, folder=tmp_path, environment=environment, timeout=400, of=hubs_zygote)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line[2:]) for line in done.stdout.splitlines() if line.startswith("> ")]


TAB = """
import gradio as gr
from finetune import settings, train
from finetune.chat import Engine
from finetune.store import Store
from finetune.ui.train import chosen as tab
from finetune.ui.data.opened import Opened
from finetune.services import Services, known, owner
from finetune.ui.data.sources import Sources
store = Store(settings.read().home)
services = Services(store, Engine())
with gr.Blocks():
    sources = Sources(Opened(services), gr.BrowserState())
def fetch(name, token=None):
    who = known(None)
    login = [gr.OAuthToken(token=token, scope="", expires_at=0)] if token else []
    _, record, why, *_ = sources._fetch(name, "", "train", who, *login)
    return (store.dataset(record) if isinstance(record, str) else None), why, who
"""

EVERYTHING = (
    TAB
    + """
from finetune import cli
tell(list(tab.locate("some/tiny"))[-1])
record, why, who = fetch("some/sums")
tell(why)
config = train.TrainConfig(model="some/tiny", max_steps=2, samples=1)
run = train.start(store, config, record, owner(who))
import time
supervisor, until = train.Supervisor(store), time.monotonic() + 200
while store.run(run.id).state in ("queued", "running") and time.monotonic() < until:
    supervisor.tick(); time.sleep(0.2)
tell([store.run(run.id).state, store.run(run.id).reason])
tell(cli.main(["chat", run.id, "--prompt", "sum 1 + 1?", "--max-tokens", "4"]))
tell(cli.main(["evaluate", run.id, "--limit", "2"]))
tell(cli.main(["export", run.id, "--to", "adapter", "--out", "out", "--no-check"]))
tell(cli.main(["export", run.id, "--to", "merged", "--out", "out", "--rows", "2"]))
"""
)


def test_nothing_a_stranger_does_sends_the_servers_login(hub: Hub, tmp_path: Path) -> None:
    located, why, ended, *codes = elsewhere(hub, tmp_path, EVERYTHING, FINETUNE_SHARED="1")
    assert "Ready" in located, located
    assert (why, ended) == ("", ["succeeded", None])
    assert codes == [0, 0, 0, 0], codes
    assert any("model.safetensors" in path for _, path, _ in hub.asked), "the model came from the stand-in"
    assert any("some/sums/resolve" in path for _, path, _ in hub.asked)
    assert hub.tokens() == {None}, [one for one in hub.asked if one[2]]


@pytest.mark.parametrize("name", ["owner/private", "owner/gated", "owner/none"])
def test_a_stranger_gets_public_models_only(hub: Hub, tmp_path: Path, name: str) -> None:
    [card] = elsewhere(hub, tmp_path, TAB + f"tell(list(tab.locate({name!r}))[-1])", FINETUNE_SHARED="1")
    assert "Not available" in card
    assert "public models" in card
    assert "hf auth login" not in card
    assert hub.tokens() == {None}
    assert not any("safetensors" in path for _, path, _ in hub.asked)


@pytest.mark.parametrize("name", ["owner/private", "owner/gated"])
def test_what_the_owner_fetched_is_not_served_to_strangers(hub: Hub, tmp_path: Path, name: str) -> None:
    """Neither looked for, trained on, nor said to be here: the owner's own cache is not the strangers'."""
    look = f"from finetune import models\ntell(models.here({name!r}))\n" + TAB + f"tell(list(tab.locate({name!r}))[-1])"
    here, card = elsewhere(hub, tmp_path, look)
    assert (here, "Ready" in card) == (False, True)
    here, _ = elsewhere(hub, tmp_path, look)
    assert here
    here, card = elsewhere(hub, tmp_path, look, FINETUNE_SHARED="1")
    assert not here
    assert "Not available" in card


def test_a_model_that_a_space_preloads_is_served(hub: Hub, tmp_path: Path, tiny: Path) -> None:
    """The standard cache counts for models of the catalogue that everybody may have."""
    look = "from finetune import models\ntell([models.here(n) for n in ('Qwen/Qwen3-0.6B', 'google/gemma-3-270m-it')])"
    for name in ("Qwen/Qwen3-0.6B", "google/gemma-3-270m-it"):
        hub.add("models", name, files_of(tiny))
        elsewhere(hub, tmp_path, f"from finetune import models\nmodels.find({name!r})")
    assert elsewhere(hub, tmp_path, look, FINETUNE_SHARED="1") == [[True, False]]


def test_only_the_dataset_is_asked_for_with_a_visitors_login(hub: Hub, tmp_path: Path) -> None:
    code = TAB + (
        f"tell(list(tab.locate('some/tiny'))[-1])\nrecord, why, _ = fetch('visitor/own', {VISITOR!r})\n"
        "tell([why, record.facts.accepted if record else None])\ntell(list(tab.locate('owner/private'))[-1])"
    )
    located, read, private = elsewhere(hub, tmp_path, code, FINETUNE_SHARED="1")
    assert "Ready" in located
    assert read == ["", 12]
    assert "Not available" in private
    assert hub.tokens("visitor/own") == {VISITOR}
    assert hub.tokens("some/tiny") == hub.tokens("owner/private") == {None}


@pytest.mark.parametrize(
    ("name", "token"), [("owner/secrets", None), ("owner/secrets", VISITOR), ("visitor/own", None)]
)
def test_a_dataset_is_read_with_the_visitors_login_or_none(
    hub: Hub, tmp_path: Path, name: str, token: str | None
) -> None:
    """Also when somebody who may read it has just done so."""
    before = f"fetch('visitor/own', {VISITOR!r})\n" if name == "visitor/own" else ""
    code = TAB + before + f"record, why, _ = fetch({name!r}, {token!r})\ntell([record is None, why])"
    [[refused, why]] = elsewhere(hub, tmp_path, code, FINETUNE_SHARED="1")
    assert refused
    assert "The Hub has no such dataset" in why
    assert CANARY not in hub.tokens()


def test_no_file_of_a_fetch_stays(hub: Hub, tmp_path: Path, home: Path) -> None:
    """What was fetched is in the visitor's kept dataset, and nowhere that the next one reads."""
    code = TAB + f"record, why, _ = fetch('visitor/own', {VISITOR!r})\ntell(record.folder)"
    [folder] = elsewhere(hub, tmp_path, code, FINETUNE_SHARED="1")
    holding = [
        path
        for place in (home, tmp_path, CACHE)
        for path in place.rglob("*")
        if path.is_file() and b"own 3 + 3?" in path.read_bytes()
    ]
    assert holding
    assert all(path.is_relative_to(folder) for path in holding), holding


@pytest.mark.parametrize("where", ["hub:owner/secrets", "hub:owner/secrets:default:train"])
def test_at_home_ones_own_login_is_used(hub: Hub, tmp_path: Path, where: str) -> None:
    [code] = elsewhere(hub, tmp_path, f"from finetune import cli\ntell(cli.main(['check', {where!r}]))")
    assert code == 0
    assert hub.tokens("owner/secrets") == {CANARY}


@pytest.mark.parametrize("imported", ["", "import huggingface_hub\n", "import datasets, transformers\n"])
def test_a_library_call_that_was_overlooked_sends_nothing(hub: Hub, tmp_path: Path, imported: str) -> None:
    code = imported + (
        "from finetune.models import hub\nhub.forget_token()\n"
        "from huggingface_hub import HfApi, hf_hub_download\nHfApi().model_info('some/tiny')\n"
        "hf_hub_download('some/tiny', 'config.json')\n"
        "import os\ntell([name in os.environ for name in hub.TOKENS])"
    )
    assert elsewhere(hub, tmp_path, code, fresh=True, FINETUNE_SHARED="1") == [[False, False]]
    assert hub.tokens() == {None}
    elsewhere(hub, tmp_path, code, fresh=True)
    assert CANARY in hub.tokens(), "at home it stays"


def test_the_server_forgets_its_login_before_anything_else(hub: Hub, tmp_path: Path) -> None:
    """And the processes that it starts never knew it; at home both have it."""
    code = (
        "import os\nfrom finetune import server as door\nfrom finetune.models import hub\n"
        "tell([name in hub.environment() for name in ('HF_TOKEN', hub.NO_TOKEN)])\n"
        "def stop(*arguments): raise SystemExit\ndoor.Store = stop\n"
        "try:\n    door.launch()\nexcept SystemExit:\n    tell('HF_TOKEN' in os.environ)\n"
    )
    assert elsewhere(hub, tmp_path, code, FINETUNE_SHARED="1") == [[False, True], False]
    assert elsewhere(hub, tmp_path, code) == [[True, False], True]
    beyond = elsewhere(hub, tmp_path, code, GRADIO_SERVER_NAME="0.0.0.0")  # shared from then on
    assert beyond[1] is False


def test_a_visitors_run_that_a_command_line_at_home_claims_has_nobodys_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    at_home, theirs = environment(), environment(stranger=True)
    assert (at_home.get("HF_TOKEN"), at_home.get("FINETUNE_SHARED")) == (CANARY, None)
    assert CANARY not in theirs.values()
    assert (theirs["FINETUNE_SHARED"], theirs["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) == ("1", "1")
