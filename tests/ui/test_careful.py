"""The page fetches nothing for a visitor, and one network address cannot fill its queue."""

import asyncio
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.data_classes import PredictBodyInternal

from finetune import visitor
from finetune.ui.careful import Careful, remote

PLACE = "https://example.com/large.bin"


def file(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def page() -> Careful:
    with Careful() as blocks:
        box, upload = gr.Textbox(), gr.File()
        gr.on(None, lambda text, given: text, [box, upload], box)
    return blocks


@pytest.mark.parametrize(
    ("given", "is_remote"),
    [
        ([file(PLACE)], True),
        (["text", {"deep": [file("http://127.0.0.1:1/x")]}], True),
        ([file("/tmp/gradio/a/x.csv", url=PLACE)], False),  # as the page sends what was uploaded
        ([{"path": PLACE}, PLACE, None, 3], False),
    ],
)
def test_a_file_is_named_by_its_address(given: list[Any], is_remote: bool) -> None:
    assert remote(given) is is_remote


@pytest.mark.parametrize("given", [["text", file(PLACE)], [file(PLACE), None]])
def test_no_event_fetches_anything(given: list[Any]) -> None:
    blocks = page()
    with pytest.raises(gr.Error, match="not fetched from an address"):
        asyncio.run(blocks.preprocess_data(blocks.fns[0], given, None))


def test_one_address_leaves_room_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv("FINETUNE_REQUESTS_PER_MINUTE", "75")
    blocks = page().queue()

    async def send(address: str) -> str:
        request: Any = SimpleNamespace(client=SimpleNamespace(host=address), headers={})
        body = PredictBodyInternal(fn_index=0, session_hash="s", data=["", None])
        with visitor.at(address):
            return (await blocks._queue.push(body, request, None))[2]

    async def sent() -> list[str]:
        return [await send(address) for address in ["203.0.113.1"] * 4 + ["203.0.113.2"]]

    assert asyncio.run(sent()) == ["success"] * 3 + ["queue_full", "success"]
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    monkeypatch.delenv("FINETUNE_REQUESTS_PER_MINUTE")
    assert asyncio.run(send("203.0.113.1")) == "success", "at home there is no limit"
