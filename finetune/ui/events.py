"""What most events of the page have in common, as keyword arguments of Gradio's listeners."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.events import EventListenerMethod

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""No route of the server's public API."""

QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
"""And no spinner over what is shown."""

FILLING = "(...given) => { window.baFilling = true; return given; }"
FILLED = "() => { window.baFilling = false; }"
SETTLED = """() => new Promise((go) => {
    const look = () => (window.baFollowed && !window.baFilling ? go([]) : setTimeout(look, 30));
    look();
})"""

STATUS = "element.setAttribute('role', 'status');"
"""For the `js_on_load` of what changes by itself: a screen reader says it, when it has said what it was saying."""


def once_settled(*triggers: Callable[..., Any]) -> Any:
    """What happens on these triggers, once the page is what its visitor takes it for: use it as ``.then(...)``.

    Who is quicker than the server would otherwise choose data that then gives way to that of the last visit, or train
    with the settings of before a card was chosen. A page is settled once it is as its visitor left it, and while no
    event fills in the form (between `FILLING` and `FILLED`).

    Example:
        >>> once_settled(upload.upload).then(read, upload, dataset)
    """
    return gr.on([*triggers], None, None, None, js=SETTLED, **PRIVATE)


def keep_quick(page: gr.Blocks) -> None:
    """Let each event show its progress on one piece of HTML at most, if it shows any.

    Gradio's page updates, at the beginning and the end of each event, every component on which progress was ever
    shown, looks each up in the whole page, and takes a copy of what is in it: of everything, for the tabs. With
    progress on all outputs, which is Gradio's default, each event of ours took the browser a third of a second.
    """
    for event in page.fns.values():
        places = () if event.show_progress == "hidden" else event.show_progress_on or event.outputs
        event.show_progress_on = [place for place in places if isinstance(place, gr.HTML)][:1]


def listen_apart(page: gr.Blocks) -> None:
    """Let the listeners of one event start again each by itself.

    What listens to changes, and is still at work when there is another one (Gradio's ``always_last``), runs once more
    when it has ended. But Gradio's page then lets *all* listeners of that event run again; two of them that overlap
    start each other for ever, twenty times a second, until the page is closed. So such a listener stands behind a step
    that only the browser takes, and that alone is repeated for it.

    Raises:
        AssertionError: a listener wants to know what happened, which it would not be told behind such a step.
    """
    heard = Counter(target for event in page.fns.values() for target in set(event.targets))
    for event in list(page.fns.values()):
        shared = any(heard[target] > 1 for target in event.targets if target[0] is not None)
        if event.trigger_mode != "always_last" or event.fn is None or not shared:
            continue
        assert not event.collects_event_data, event.name
        places = [EventListenerMethod(page.blocks[place], name) for place, name in event.targets if place is not None]
        _, number = page.default_config.set_event_trigger(
            places, None, None, None, js="() => []", show_progress="hidden", trigger_mode="multiple", **PRIVATE
        )
        event.targets, event.trigger_after = [(None, "then")], number
