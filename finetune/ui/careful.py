"""Gradio's blocks, closed where they trust whoever sends an event: they would fetch any address, and wait for anybody.

An event may name a file by its address, which Gradio downloads, whole, into memory and onto the disk. And all events
wait in one queue, which a single visitor could fill.
"""

from typing import Any

import gradio as gr
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse

from finetune import settings, visitor

PER_WAITING = 25
"""A network address that may send so many requests a minute may have one event waiting: 60 of 300 by default."""


class Careful(gr.Blocks):
    """Blocks that fetch nothing, and leave room in the queue for others.

    Example:
        >>> with Careful() as page: ...
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **named: Any) -> Any:
        """What comes with an event, as the functions get it.

        Raises:
            gr.Error: a file is named by its address instead of being uploaded.
        """
        if remote(inputs):
            raise gr.Error("A file is uploaded here, not fetched from an address.")
        return await super().preprocess_data(block_fn, inputs, *more, **named)

    def queue(self, *values: Any, **named: Any) -> Any:
        """As Gradio's, but for the events of one network address."""
        made = super().queue(*values, **named)
        push = self._queue.push

        async def push_fairly(body: Any, request: Any, username: str | None) -> Any:
            most, mine = settings.read().requests_per_minute, visitor.address()
            if most and mine and sum(place == mine for place in self._waiting()) >= max(1, most / PER_WAITING):
                return False, "Too many events from your network address are waiting.", "queue_full"
            return await push(body, request, username)

        self._queue.push = push_fairly  # type: ignore[method-assign]
        return made

    def _waiting(self) -> list[str]:
        """The network address of each event that waits."""
        events = [event for queue in self._queue.event_queue_per_concurrency_id.values() for event in queue.queue]
        clients = [(event.request.client, event.request.headers) for event in events]
        return [visitor.of_request(client.host, headers) for client, headers in clients if client]


def remote(inputs: Any) -> bool:
    """Whether any file in what an event brings is named by its address.

    Example:
        >>> remote([{"path": "https://example.com/large.bin", "meta": {"_type": "gradio.FileData"}}])
        True
    """
    files: list[dict[str, Any]] = []
    traverse(inputs, lambda one: files.append(one) or one, is_file_obj_with_meta)  # type: ignore[func-returns-value]
    return any(is_http_url_like(one["path"]) for one in files)
