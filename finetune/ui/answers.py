"""The answers that pages are getting just now: one for each page and place, so that it can be ended from elsewhere."""

import threading

import gradio as gr

_going: dict[tuple[str, str], threading.Event] = {}
"""By page and place on it ("chat", "blind"): set to end the answer."""


def begin(request: gr.Request, place: str) -> threading.Event:
    """What ends the answer that is about to be given here; one that was still going on is dropped."""
    drop(request, place)
    event = _going[request.session_hash or "", place] = threading.Event()
    return event


def halt(request: gr.Request, place: str) -> None:
    """End the answer at its next token; what there is of it counts."""
    if event := current(request, place):
        event.set()


def drop(request: gr.Request, place: str) -> None:
    """End the answer, and let it change nothing any more: the page has moved on."""
    if event := _going.pop((request.session_hash or "", place), None):
        event.set()


def current(request: gr.Request, place: str) -> threading.Event | None:
    """What ends the answer that was begun last, unless it was dropped."""
    return _going.get((request.session_hash or "", place))


def counts(request: gr.Request, place: str, event: threading.Event) -> bool:
    """Whether this answer is still the one that the page waits for."""
    return current(request, place) is event


def forget(request: gr.Request) -> None:
    """A page was closed: end its answers, so that the engine is free for others."""
    for session, place in list(_going):
        if session == (request.session_hash or ""):
            drop(request, place)
