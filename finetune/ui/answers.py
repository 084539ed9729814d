"""The answers that pages are getting just now: one for each page and place, so that it can be ended from elsewhere."""

import threading

import gradio as gr

_going: dict[tuple[str, str], tuple[threading.Event, str]] = {}
"""By page and place on it ("chat", "blind"): set to end the answer; and the run that it is about."""


def begin(request: gr.Request, place: str, about: str = "") -> threading.Event:
    """What ends the answer (`about` a run) that is about to be given here; one that was still going on is dropped."""
    drop(request, place)
    event = threading.Event()
    _going[request.session_hash or "", place] = event, about
    return event


def halt(request: gr.Request, place: str) -> None:
    """End the answer at its next token; what there is of it counts."""
    if event := current(request, place):
        event.set()


def drop(request: gr.Request, place: str, unless: str | None = None) -> None:
    """End the answer, and let it change nothing any more: the page has moved on. Not one about the run `unless`."""
    key = request.session_hash or "", place
    if key in _going and (unless is None or _going[key][1] != unless):
        _going.pop(key)[0].set()


def current(request: gr.Request, place: str) -> threading.Event | None:
    """What ends the answer that was begun last, unless it was dropped."""
    return _going.get((request.session_hash or "", place), (None, ""))[0]


def counts(request: gr.Request, place: str, event: threading.Event) -> bool:
    """Whether this answer is still the one that the page waits for."""
    return current(request, place) is event


def forget(request: gr.Request) -> None:
    """A page was closed: end its answers, so that the engine is free for others."""
    for session, place in list(_going):
        if session == (request.session_hash or ""):
            drop(request, place)
