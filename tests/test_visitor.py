"""Which address a request comes from: never one that the visitor has written."""

import hashlib
import hmac
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from finetune import visitor
from finetune.api.validate import Validator
from finetune.guard import Guard
from finetune.ledger import Ledger, Upload
from finetune.store import Store
from finetune.ui.languages import door
from tests.api.conftest import lines


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_of_a_customer_of_ipv6_all_addresses_are_one(host: str, address: str) -> None:
    assert visitor.of_request(host, {}) == address


def test_a_header_names_the_address_only_on_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"x-forwarded-for": "198.51.99.7"}
    assert visitor.of_request("10.0.0.3", told) == "10.0.0.3"
    monkeypatch.setenv("SPACE_ID", "me/app")
    assert visitor.of_request("10.0.0.3", told) == "198.51.99.7"


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("1.2.3.4, 198.51.99.7", "198.51.99.7"),  # the first was written by the visitor
        ("1.2.3.4, 198.51.99.7, 10.1.2.3", "198.51.99.7"),  # then proxies of the Hub's own network
        ("nonsense, ,", "10.0.0.3"),
        ("127.0.0.1", "10.0.0.3"),
        ("", "10.0.0.3"),
        ("8.8.8.8" + "," * 3000, "10.0.0.3"),
        ("2a00:1450:4001::5", "2a00:1450:4001::/64"),
    ],
)
def test_of_several_the_last_public_one_counts(header: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/app")
    assert visitor.of_request("10.0.0.3", {"x-forwarded-for": header}) == address


def test_an_address_is_worked_for_until_the_block_ends() -> None:
    assert visitor.address() == ""
    with visitor.at("a"), visitor.at("b"):
        assert visitor.address() == "b"
    assert visitor.address() == ""
    assert visitor.mark() == ""


def test_a_mark_is_made_with_a_secret_that_the_page_does_not_tell(home: Path) -> None:
    """Whoever has the secret can try all addresses until one has the mark."""
    told = visitor.browser_secret()
    with visitor.at("203.0.113.9"):
        mark = visitor.mark()
        assert mark == visitor.mark() != hmac.new(told.encode(), b"203.0.113.9", hashlib.sha256).hexdigest()[:16]
    assert told == visitor.browser_secret()
    for name in ("browser-secret", "address-secret"):
        assert (home / name).stat().st_mode & 0o777 == 0o600


def test_an_event_of_the_page_works_for_its_visitor() -> None:
    with door.Blocks() as blocks:
        gr.Button().click(visitor.address, None, gr.Textbox())
    request: Any = SimpleNamespace(headers={}, client=SimpleNamespace(host="203.0.113.9"))
    for asked, told in ((request, "203.0.113.9"), (SimpleNamespace(headers={}), "")):
        assert anyio.run(lambda asked=asked: blocks.process_api(0, [], request=asked))["data"] == [told]


def test_a_request_to_the_api_does_too() -> None:
    app = Starlette(routes=[Route("/v1/x", lambda request: PlainTextResponse(visitor.address()))])
    client = TestClient(Guard(app, shared=True, max_upload=1), client=("203.0.113.9", 1))
    assert client.get("/v1/x").text == "203.0.113.9"
    assert client.get("/v1/x", headers={"X-Forwarded-For": "198.51.99.7"}).text == "203.0.113.9"


def test_so_does_the_run_of_a_job_that_is_checked_in_the_background(store: Store, tiny: Path, home: Path) -> None:
    ledger = Ledger(store)
    file = Upload("file-1", "local", "rows.jsonl", "fine-tune", 1, 0.0)
    ledger.add_upload(file)
    (home / "files" / file.id).mkdir(parents=True)
    (home / "files" / file.id / file.name).write_bytes(lines(20))
    job = ledger.add_job("local", {"model": str(tiny), "training_file": file.id}, [])
    with visitor.at("203.0.113.9"):
        Validator(ledger).check(job)
        mark = visitor.mark()
    give_up = time.monotonic() + 60
    while not store.runs():
        assert time.monotonic() < give_up, ledger.job("local", job.id)
        time.sleep(0.1)
    assert store.runs()[0].address == mark
