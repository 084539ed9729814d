"""Two strangers on one server: no function and no route gives one what is the other's, whatever it is asked for.

Functions and routes are those of the running app: a new one is asked as well, and fails if it does not ask whose the
thing is. See `tests.matrix` for what each is given.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, _IncludedRouter
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from finetune import models, people, server, settings, train, trial
from finetune.api.app import Under
from finetune.services import Services
from finetune.store import Store
from finetune.ui import page as whole
from finetune.workshop import Wanted, Workshop
from tests.matrix import CANARY, Stranger, Unknown, answer, belongings, calls, rows, shared, stranger

MINE = "my own words"


@dataclass
class Two:
    """A shared server, me, and somebody else."""

    services: Services
    me: Stranger
    other: Stranger
    file: Path


@pytest.fixture
def two(store: Store, tiny: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr(trial, "MOST", 0)  # a try computes for minutes, and on nothing but a sample
    (home / "models").mkdir()
    (home / "models" / "SmolLM2-135M-Instruct-packaged").symlink_to(tiny)  # a base that strangers may use
    services = shared(store)
    other = stranger(services, tiny, tmp_path, "a" * 32, CANARY)
    me = stranger(services, tiny, tmp_path, "b" * 32, "mine")
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    yield Two(services, me, other, rows(tmp_path, "brought").path)
    services.engine.close()


def functions(page: gr.Blocks) -> list[Any]:
    """Those that do anything on the server; those last that delete everything of whoever asks."""
    found = [one for one in page.fns.values() if one.fn is not None]
    return sorted(found, key=lambda one: "ui.mine" in str(getattr(one.fn, "__module__", "")))


def asked(page: gr.Blocks, function: Any, two: Two, ids: list[str], other: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What I asked of a function, and what it said, for each way to ask."""

    async def all_of_them() -> list[tuple[str, str]]:
        found = []
        for given, event in calls(function, two.me, ids, other, two.file):
            said = await answer(page, function, given, event, two.me.key)
            found.append((f"{function.name} {given} {event and event._data}", said))
        return found

    yield from asyncio.run(all_of_them())


def test_no_function_of_the_page_gives_or_changes_what_is_anothers(two: Two) -> None:
    page, other, before = whole.build(two.services), two.other, belongings(two.services.store, two.other)
    count, leaks = 0, []
    for function in functions(page):
        for how, said in asked(page, function, two, other.ids, {"run": other.run.id, "dataset": other.dataset}):
            count += 1
            if CANARY in said:
                leaks.append(f"{how}: {said[:2000]}")
        if (now := belongings(two.services.store, other)) != before:
            leaks.append(f"{function.name} changed something")
            before = now
    assert not leaks, "\n\n".join(leaks)
    assert count > 2000


def test_in_a_workshop_what_nobody_shows_is_as_hidden(two: Two) -> None:
    """A class may look at the example and at what is shown to it (`Services.seen`), and at nothing besides."""
    store = two.services.store
    room = Workshop(store, Wanted(sample=str(two.file), people=2))
    for who, nickname in ((two.me, "Plum"), (two.other, CANARY)):
        people.join(store, who.owner, nickname)
    page, before = whole.build(replace(two.services, workshop=room)), belongings(store, two.other)
    count, leaks = 0, []
    for function in functions(page):
        for how, said in asked(page, function, two, two.other.ids[:1], {"run": two.other.run.id}):
            count += 1
            if CANARY in said:
                leaks.append(f"{how}: {said[:2000]}")
    assert not leaks, "\n\n".join(leaks)
    assert belongings(store, two.other) == before
    assert not people.is_shown(store, two.other.run.id)
    assert count > 300


GIVING = {"_look", "_open", "_remember", "_show", "_tick", "status", "made"}
"""Functions that show the rows, the names and the votes, or hand them over as files."""


def test_asked_by_its_owner_the_same_functions_do_give_it(two: Two) -> None:
    """The test of the test: what is asked for is there to be had."""
    page, mine = whole.build(two.services), Two(two.services, two.other, two.me, two.file)
    gave: set[str] = set()
    for function in functions(page):
        name, module = str(function.name), str(function.fn.__module__)
        if name not in GIVING - gave or (name == "made" and not module.endswith("download")):
            continue  # exports are made of one's own run, for minutes
        if any(CANARY in said for _, said in asked(page, function, mine, [mine.me.run.id, mine.me.dataset], {})):
            gave.add(name)
    assert gave == GIVING


def test_a_function_without_an_owner_check_is_caught(two: Two) -> None:
    """The test of the test: a door that nobody watches."""
    with gr.Blocks() as page:
        run, shown = gr.Dropdown([]), gr.HTML()
        run.change(lambda run_id: two.services.store.run(run_id).name, run, shown)
    [function] = functions(page)
    assert [said for _, said in asked(page, function, two, two.other.ids, {}) if CANARY in said]
    with gr.Blocks() as page:
        strange = gr.ColorPicker()
        strange.change(lambda colour: colour, strange, strange)
    [function] = functions(page)
    with pytest.raises(Unknown, match="ColorPicker"):
        list(asked(page, function, two, two.other.ids, {}))


# Routes


@pytest.fixture
def app(two: Two) -> Iterator[FastAPI]:
    """The app with all that the server puts around it."""
    built = whole.build(two.services).queue(api_open=False)
    app, _, _ = built.launch(prevent_thread_lock=True, quiet=True, **server.options(two.services, settings.read()))
    yield app
    gr.close_all(verbose=False)


def every(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Routes, those of included routers among them."""
    for route in routes:
        if isinstance(route, _IncludedRouter):
            yield from every(route.original_router.routes)
        else:
            yield route


def api_routes(app: FastAPI) -> list[tuple[str, APIRoute]]:
    """The routes of the API, each with what stands before its path."""
    found = []
    for mounted in app.routes:
        if isinstance(mounted, Under):
            assert isinstance(mounted.app, FastAPI)
            found += [(mounted.path, route) for route in every(mounted.app.routes) if isinstance(route, APIRoute)]
    return found


HI = [{"role": "user", "content": "Hi"}]
NAMED = {"model", "deployment", "job_id", "file_id", "upload_id"}
"""Parameters of paths, which take any of the ids."""

BODIES: dict[str, Any] = {
    "/files": "form",
    "/uploads": lambda given: {"filename": "a", "purpose": "evals", "bytes": 3, "mime_type": "x"},
    "/uploads/{upload_id}/parts": "form",
    "/uploads/{upload_id}/complete": lambda given: {"part_ids": [given]},
    "/fine_tuning/jobs": lambda given: {"model": models.DEFAULT, "training_file": given, "validation_file": given},
    "/fine_tuning/jobs/{job_id}/verdict": lambda given: {"file_id": given},
    "/fine_tuning/jobs/{job_id}/verdict/cancel": lambda given: {"file_id": given},
    "/chat/completions": lambda given: {"model": given, "messages": HI, "max_tokens": 2},
    "/deployments/{deployment:path}/chat/completions": lambda given: {"messages": HI, "max_tokens": 2},
    "/completions": lambda given: {"model": given, "prompt": "Hi", "max_tokens": 2},
    "/responses": lambda given: {"model": given, "input": "Hi", "max_output_tokens": 2},
}
"""What is sent to a route that takes a body."""


def requests(prefix: str, route: APIRoute, given: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, address and body for each way to ask a route of the API for what an id names."""
    names = {one.name for one in route.dependant.path_params}
    if unknown := names - NAMED:
        raise Unknown(f"Nobody has said what {unknown} of {route.path} is given: see tests/test_matrix.py.")
    if names and "/" in given and ":path" not in route.path:
        return  # a name with a slash is another address
    path = prefix + re.sub(r"\{\w+(:path)?\}", given, route.path)
    for method in sorted(route.methods or ()):
        more: dict[str, Any] = {}
        if route.dependant.body_params:
            if route.path not in BODIES:
                raise Unknown(f"Nobody has said what {route.path} is sent: see BODIES in tests/test_matrix.py.")
            body = BODIES[route.path]
            if body == "form":
                name = "data" if "parts" in route.path else "file"
                more = {"files": {name: ("a.jsonl", b"x")}, "data": {} if name == "data" else {"purpose": "evals"}}
            else:
                more = {"json": body(given)}
        yield method, path, more


def test_no_route_of_the_api_gives_or_changes_what_is_anothers(two: Two, app: FastAPI) -> None:
    client, before = TestClient(app), belongings(two.services.store, two.other)
    mine, theirs = ({"Authorization": f"Bearer {who.key}"} for who in (two.me, two.other))
    asked, leaks, gave = 0, [], set()
    routes = api_routes(app)
    assert len(routes) > 40
    for prefix, route in routes:
        for given in two.other.ids:
            for method, path, more in requests(prefix, route, given):
                query = {"after": given} if "after" in {one.name for one in route.dependant.query_params} else {}
                query |= {"api-version": "2024-10-21"} if prefix == "/openai" else {}
                asked += 1
                said = client.request(method, path, params=query, headers=mine, **more)
                if CANARY in said.text or said.status_code >= 500:
                    leaks.append(f"{method} {path} {more}: {said.status_code} {said.text[:1000]}")
                if method == "GET" and CANARY in client.get(path, headers=theirs).text:
                    gave.add(route.path)
                if route.path != "/docs":
                    assert client.request(method, path, params=query, **more).status_code == 401, path
        if (now := belongings(two.services.store, two.other)) != before:
            leaks.append(f"{route.path} changed something")
            before = now
    assert not leaks, "\n\n".join(leaks)
    assert asked > 300
    assert {"/files", "/files/{file_id}", "/files/{file_id}/content", "/fine_tuning/jobs"} <= gave, gave


GRADIOS = """
/ /assets/{path:path} /config /favicon.ico /login /logout /manifest.json /monitoring /monitoring/summary
/monitoring/{key} /openapi.json /pwa_icon /pwa_icon/{size} /robots.txt /static/{path:path} /svelte/{path:path}
/theme.css /gradio_api/api/{api_name} /gradio_api/app_id /gradio_api/call/v2/{api_name}
/gradio_api/call/v2/{api_name}/{event_id} /gradio_api/call/{api_name} /gradio_api/call/{api_name}/{event_id}
/gradio_api/cancel /gradio_api/component_server
/gradio_api/custom_component/{id}/{environment}/{type}/{file_name} /gradio_api/deep_link /gradio_api/dev/reload
/gradio_api/file/{path:path} /gradio_api/file={path_or_url:path} /gradio_api/heartbeat/{session_hash} /gradio_api/info
/gradio_api/login_check /gradio_api/mcp /gradio_api/openapi.json /gradio_api/process_recording
/gradio_api/proxy={url_path:path} /gradio_api/queue/data /gradio_api/queue/join /gradio_api/queue/status
/gradio_api/reset /gradio_api/run/{api_name} /gradio_api/runs /gradio_api/startup-events /gradio_api/stream/{event_id}
/gradio_api/stream/{event_id}/close /gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file
/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8
/gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext} /gradio_api/theme.css /gradio_api/token
/gradio_api/undo-vibe-edit /gradio_api/upload /gradio_api/upload_progress /gradio_api/user /gradio_api/vibe-code
/gradio_api/vibe-edit /gradio_api/vibe-starter-queries
"""
"""Gradio's own routes. What the page's functions answer comes through its queue, and they are asked above; those that
serve files are asked for files below; a new one is to be looked at."""


def test_every_other_route_is_known_and_serves_no_file_of_anybodys(two: Two, app: FastAPI) -> None:
    client = TestClient(app)
    paths = {route.path.rstrip("/") or "/" for route in every(app.routes) if isinstance(route, Route | Mount)}
    unknown = paths - set(GRADIOS.split()) - {route.path for route in app.routes if isinstance(route, Under)}
    assert not unknown, f"Nobody has said who may ask for {unknown}: see tests/test_matrix.py."
    home, mine = settings.read().home, {"Authorization": f"Bearer {two.me.key}"}
    files = [file for file in home.rglob("*") if file.is_file()]
    assert len(files) > 20
    for file in files:
        for way in ("file=", "file/", "proxy=", "stream/", "static/"):
            said = client.get(f"/gradio_api/{way}{file}", headers=mine)
            assert said.status_code in (400, 403, 404, 405), (way, file, said.status_code)
    for name in ("vibe-code", "vibe-edit", "undo-vibe-edit", "vibe-starter-queries"):  # they would edit the app itself
        said = client.post(f"/gradio_api/{name}", json={"code": "x", "prompt": "x", "hash": "x"})
        assert said.status_code in (403, 404, 422), (name, said.status_code)


def test_the_operators_things_need_the_operators_key(two: Two) -> None:
    """The one owner whom every function serves: by the key that the server prints, and by nothing of a visitor's."""
    page = whole.build(two.services)
    admins = [one for one in functions(page) if "admin" in str(getattr(one.fn, "__module__", ""))]
    assert len(admins) >= 5
    run = two.other.run.id
    assert train.run_folder(run).is_dir()
    for function in admins:
        for how, said in asked(page, function, two, [run, two.me.key, two.other.key], {}):
            assert "not the key" in said or "Too many keys" in said, (how, said)
