"""The six functions for programs, asked by Gradio's own client and by the real MCP client, of the real server."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from gradio_client import Client
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from finetune.ledger import Ledger
from finetune.store import Store
from tests.conftest import conversation
from tests.serving import answering, free_port, serving
from tests.zygote import ROOT

NAMES = {"check_data", "plan", "train", "status", "verdict", "chat"}
ROWS = "".join(
    f"{json.dumps({'messages': conversation(f'What is {i} plus {i}?', f'It is {2 * i}.')})}\n" for i in range(40)
)
SMALL = {"max_steps": 2, "samples": 0}

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Iterator[str]:
    """A server at home."""
    folder = tmp_path_factory.mktemp("tools")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(packaged_models)
    with serving(folder / "home", folder / "log", forks=True) as address:
        yield address


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Iterator[tuple[str, Store]]:
    """A shared server, and its record."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(packaged_models)
    with serving(folder / "home", folder / "log", forks=True, FINETUNE_SHARED="1") as address:
        yield address, Store(folder / "home")


def of_gradio(address: str, key: str = "") -> Ask:
    """Calls a function through Gradio's client."""
    client = Client(address, verbose=False, headers={"Authorization": f"Bearer {key}"} if key else None)

    def ask(name: str, **given: Any) -> Any:
        return json.loads(client.predict(**given, api_name=f"/{name}"))

    return ask


@asynccontextmanager
async def session(address: str, key: str = "") -> AsyncGenerator[ClientSession]:
    """An MCP client that has introduced itself."""
    headers = {"Authorization": f"Bearer {key}"} if key else None
    async with (
        httpx.AsyncClient(headers=headers, timeout=120) as http,
        streamable_http_client(f"{address}/gradio_api/mcp/", http_client=http) as (read, write, _),
        ClientSession(read, write) as opened,
    ):
        await opened.initialize()
        yield opened


def of_mcp(address: str, key: str = "") -> Ask:
    """Calls a tool through the MCP client, in a session of its own; a refusal is raised as Gradio's client does."""

    async def call(name: str, given: dict[str, Any]) -> CallToolResult:
        async with session(address, key) as opened:
            return await opened.call_tool(name, given)

    def ask(name: str, **given: Any) -> Any:
        result = anyio.run(call, name, given)
        said = result.content[0].text  # type: ignore[union-attr]
        if result.isError:
            raise RuntimeError(said)
        return json.loads(said)

    return ask


@pytest.mark.parametrize("client", [of_gradio, of_mcp], ids=["gradio_client", "mcp"])
def test_the_whole_journey(address: str, tiny: Path, client: Callable[[str], Ask]) -> None:
    ask = client(address)
    checked = ask("check_data", source=ROWS)
    assert (checked["rows"], checked["accepted"], checked["trainable"]) == (40, 40, True)
    small = {**SMALL, "model": str(tiny)}
    planned = ask("plan", dataset=checked["dataset"], settings=small)
    assert planned["steps"] == 2
    begun = ask("train", dataset=checked["dataset"], preset="quick", settings=small)
    run, until = begun["run"], time.monotonic() + 120
    while (now := ask("status", run=run))["state"] not in ("succeeded", "failed"):
        assert time.monotonic() < until, now
        time.sleep(0.3)
    assert (now["state"], now["step"]) == ("succeeded", 2)
    assert now["loss"] > 0
    assert run in [one["run"] for one in ask("status")["runs"]]
    said = ask("chat", run=run, prompt="What is 2 plus 2?", max_tokens=6)
    assert said["base"]["tokens"] <= 6
    assert {"text", "stop"} <= said["tuned"].keys()
    calls = 0
    while (found := ask("verdict", run=run, rows=4, seconds=0.1))["state"] == "measuring":
        calls += 1
        assert calls < 200
    assert calls, "it goes on where the call before it ended"
    assert found["verdict"]["code"] == "too_few_rows"
    assert ask("verdict", run=run, rows=4)["arms"].keys() == found["arms"].keys()


@pytest.mark.parametrize("client", [of_gradio, of_mcp], ids=["gradio_client", "mcp"])
def test_what_goes_wrong_is_said(address: str, client: Callable[[str], Ask]) -> None:
    ask = client(address)
    dataset = ask("check_data", source="recipes")["dataset"]
    for name, given, told in (
        ("check_data", {"source": "nothing.jsonl"}, "There is no such file"),
        ("check_data", {"source": " "}, "There is nothing to check"),
        ("check_data", {"source": "a,b\n1,2\n", "answer": "c"}, "no column"),
        ("plan", {"dataset": "d00000000"}, "d00000000"),
        ("train", {"dataset": dataset, "settings": {"epocs": 1}}, "Did you mean 'epochs'?"),
        ("train", {"dataset": dataset, "preset": "fast"}, "fast"),
        ("status", {"run": "r00000000"}, "r00000000"),
        ("verdict", {"run": "r00000000"}, "r00000000"),
        ("chat", {"run": "r00000000", "prompt": "Hi"}, "r00000000"),
    ):
        with pytest.raises(Exception, match=told.replace("?", r"\?")):
            ask(name, **given)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("check_data", {"source": 5}, "Invalid type for 'source'"),
        ("train", {"dataset": "d00000000", "settings": [1]}, "Invalid type for 'settings'"),
        ("verdict", {"run": "r00000000", "rows": "many"}, "Invalid type for 'rows'"),
        ("chat", {"run": "r00000000", "prompt": ["Hi"]}, "Invalid type for 'prompt'"),
        ("chat", {"run": "r00000000", "prompt": "Hi", "temperature": "hot"}, "Invalid type for 'temperature'"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(address: str, name: str, given: dict[str, Any], expected: str) -> None:
    with pytest.raises(Exception, match=expected):
        of_gradio(address)(name, **given)
    with pytest.raises(Exception, match="validation error"):
        of_mcp(address)(name, **given)


def test_rows_come_as_text_or_by_name(address: str) -> None:
    ask = of_gradio(address)
    assert ask("check_data", source="tickets")["rows"] > 300
    mapped = ask("check_data", source="mail,team\n" + "one,a\ntwo,b\n" * 9, prompt="Mail: {mail}", answer="team")
    assert mapped["mapping"]["user"] == "Mail: {mail}"
    again = ask("check_data", source=mapped["dataset"])
    assert (again["dataset"], again["rows"]) == (mapped["dataset"], 18)


def test_only_the_six_are_public_and_each_is_described(address: str) -> None:
    with urllib.request.urlopen(f"{address}/gradio_api/info") as answer:
        told = json.load(answer)
    assert set(told["named_endpoints"]) == {f"/{name}" for name in NAMES}
    assert told["unnamed_endpoints"] == {}
    with urllib.request.urlopen(f"{address}/config") as answer:
        config = json.load(answer)
    public = {one["api_name"] for one in config["dependencies"] if one["api_visibility"] != "private"}
    assert public == NAMES
    assert "api" in config["footer_links"]

    async def tools() -> list[Any]:
        async with session(address) as opened:
            return (await opened.list_tools()).tools

    listed = {tool.name: tool for tool in anyio.run(tools)}
    assert set(listed) == NAMES
    for tool in listed.values():
        assert len(tool.description) > 40
        assert "Returns: " in tool.description
        for name, schema in tool.inputSchema["properties"].items():
            assert schema["description"], (tool.name, name)
            assert {"type", "oneOf"} & schema.keys(), (tool.name, name)
    assert listed["chat"].inputSchema["required"] == ["run", "prompt"]
    assert listed["status"].inputSchema.get("required", []) == []


@pytest.mark.parametrize("client", [of_gradio, of_mcp], ids=["gradio_client", "mcp"])
def test_on_a_shared_server_everybody_needs_a_key_and_sees_only_their_own(
    shared: tuple[str, Store], client: Callable[..., Ask]
) -> None:
    address, store = shared
    keys = [Ledger(store).new_key(letter * 32) for letter in "ab"]
    mine, theirs = (client(address, key) for key in keys)
    checked = mine("check_data", source=ROWS)
    for name, given in (
        ("check_data", {"source": ROWS}),
        ("plan", {"dataset": checked["dataset"]}),
        ("train", {"dataset": checked["dataset"]}),
        ("status", {}),
        ("verdict", {"run": "r1"}),
        ("chat", {"run": "r1", "prompt": "Hi"}),
    ):
        for stranger in (client(address), client(address, "sk-wrong")):
            with pytest.raises(Exception, match="this needs your key"):
                stranger(name, **given)
    for name in ("plan", "train"):
        with pytest.raises(Exception, match=checked["dataset"]):
            theirs(name, dataset=checked["dataset"])
    with pytest.raises(Exception, match="cannot be read"):
        mine("check_data", source="/etc/passwd")
    run = store.add_run(owner="a" * 32, name="first", dataset=checked["dataset"], config={"model": "owner/model"})
    assert [one["run"] for one in mine("status")["runs"]][:1] == [run.id]
    assert theirs("status")["runs"] == []
    for name, more in (("status", {}), ("verdict", {}), ("chat", {"prompt": "Hi"})):
        with pytest.raises(Exception, match=run.id):
            theirs(name, run=run.id, **more)


WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "mcp" else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from finetune.cli import main
main(["serve", "--port", sys.argv[1]])
"""


def test_without_the_package_the_app_starts_all_the_same(home: Path, packaged_models: Path, tmp_path: Path) -> None:
    (home / "models").symlink_to(packaged_models)
    port = str(free_port())
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen([sys.executable, "-c", WITHOUT, port], cwd=ROOT, stdout=log, stderr=log) as app,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            answering(address, app)
            assert of_gradio(address)("status") == {"runs": []}
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{address}/gradio_api/mcp/", timeout=10)
        finally:
            app.terminate()
    assert "Traceback" not in (tmp_path / "log").read_text()
