"""Where the page leaves for a visitor, and is put into the visitor's language: once, for all of it.

Three things leave: the page as it is first drawn (Gradio's config), what events change on it, and notices. Gradio's
own `gr.I18n` translates labels in the browser, but not HTML, choices or notices, and into none but Gradio's own
languages, among which there is no Telugu. It is told the words of Gradio's own that the page shows.
"""

import json
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any

import gradio as gr
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from finetune import visitor
from finetune.ui.careful import Careful
from finetune.ui.languages import (
    COOKIE,
    ENGLISH,
    LANGUAGES,
    asked,
    language,
    said,
    said_html,
    speak,
    spoken,
)
from finetune.ui.languages.catalogue import RIGHT_TO_LEFT

TEXTS = ("label", "info", "placeholder", "title", "submit_btn", "stop_btn")
PRESSED = {"button", "downloadbutton", "uploadbutton", "loginbutton"}
DRAWN = {"html", "markdown"}

GRADIO = {
    "upload_text.drop_file": "Drop a file here",
    "upload_text.click_to_upload": "Click to choose one",
    "common.or": "or",
    "common.clear": "Clear",
    "common.download": "Download",
    "common.loading": "Loading",
    "common.error": "Error",
    "common.remove": "Remove",
    "common.built_with_gradio": "Made with Gradio",
    "common.built_with": "Made with",
    "common.settings": "Settings",
    "common.complete": "Complete",
    "common.submit": "Submit",
    "common.undo": "Undo",
    "common.edit": "Edit",
    "radio.radio": "Choices",
    "file.uploading": "Uploading…",
    "errors.use_via_api": "Use via API",
    "errors.use_via_api_or_mcp": "Use via API or MCP",
    "blocks.waiting_for_inputs": "A file is still being uploaded; try again in a moment.",
    "blocks.connection_lost": "The connection is lost.",
}
"""Words of Gradio's own on the page, by their names in its frontend."""

HEAD = """<script>
(() => {
  const page = document.documentElement, lang = LANG, dir = DIR;
  const say = () => { if (page.lang !== lang) page.lang = lang; if (page.dir !== dir) page.dir = dir; };
  new MutationObserver(say).observe(page, {attributes: true, attributeFilter: ['lang', 'dir']});
  say();
})();
</script>"""
"""Gradio announces the browser's language, whatever the page is written in; a screen reader would then read it by the
rules of another language."""

SWITCH = """<label class='ba-language'><span class='ba-unseen'>Language</span>
<select id='language'>OPTIONS</select></label>"""
CHOOSE = """
const pick = element.querySelector('#language');
pick.value = document.documentElement.lang;
pick.addEventListener('change', () => {
  const away = location.protocol === 'https:' ? '; SameSite=None; Secure; Partitioned' : '; SameSite=Lax';
  document.cookie = 'COOKIE=' + pick.value + '; path=/; max-age=31536000' + away;
  location.reload();
});"""
"""Remembers the choice and loads the page anew. In a Space the page is a frame of another site's."""


def switch() -> gr.HTML:
    """Draws the choice of languages, each in its own name."""
    options = "".join(f"<option value='{code}' lang='{code}'>{name}</option>" for code, name in LANGUAGES.items())
    return gr.HTML(
        SWITCH.replace("OPTIONS", options), js_on_load=CHOOSE.replace("COOKIE", COOKIE), elem_id="language-switch"
    )


def of_headers(headers: Any) -> str:
    """The language of a request."""
    try:
        chosen = SimpleCookie(headers.get("cookie") or "").get(COOKIE)
    except CookieError:
        chosen = None
    return asked(chosen.value if chosen else None, headers.get("accept-language"))


class Spoken:
    """A middleware around an ASGI app: what answers a request knows its language."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request in its language."""
        with spoken(of_headers(Headers(scope=scope)) if scope["type"] == "http" else ENGLISH):
            await self.app(scope, receive, send)


class Blocks(Careful):
    """Gradio's blocks, which speak the language of whoever looks at them; written in English."""

    _drawn: dict[str, Any]

    @property
    def config(self) -> Any:
        """The page as it is first drawn, in the language of the request."""
        if (code := language()) not in self._drawn:
            self._drawn[code] = in_language(self._config)
        return self._drawn[code]

    @config.setter
    def config(self, value: Any) -> None:
        self._config, self._drawn = value, {}

    async def process_api(self, *values: Any, **named: Any) -> Any:
        """Answer an event in its visitor's language, and for the visitor's address: Gradio handles events away from
        the requests they came in."""
        request = named.get("request")
        headers, client = getattr(request, "headers", None), getattr(request, "client", None)
        speak(ENGLISH if headers is None else of_headers(headers))
        visitor.work_for(visitor.of_request(client.host, headers) if client and headers is not None else "")
        try:
            return await super().process_api(*values, **named)
        except gr.Error as error:
            error.message, error.title = said_html(error.message), said(error.title)
            raise

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        """What an event changes, as it goes to the page."""
        changes = await super().postprocess_data(block_fn, predictions, state)
        if language() == ENGLISH or block_fn.is_validator_function:
            return changes
        return [
            _changed(block.get_block_name(), change) for block, change in zip(block_fn.outputs, changes, strict=True)
        ]

    def launch(self, *values: Any, app_kwargs: dict[str, Any] | None = None, **named: Any) -> Any:
        """Serve; requests come in through `Spoken`."""
        given = app_kwargs or {}
        ours = {"middleware": [Middleware(Spoken), *given.get("middleware", ())]}
        # Without Gradio's look at its own page: on a busy computer the page takes longer than the three seconds
        # it allows, and the app would end with the advice to share it.
        return super().launch(*values, app_kwargs=given | ours, _frontend=False, **named)

    def queue(self, *values: Any, **named: Any) -> "Blocks":
        """Gradio's queue, whose notices are translated."""
        super().queue(*values, **named)
        tell: Callable[..., None] = self._queue.log_message

        def told(**message: Any) -> None:
            tell(**message | {"log": said_html(message["log"]), "title": said(message["title"])})

        self._queue.log_message = told  # type: ignore[method-assign, assignment]
        return self


def in_language(config: dict[str, Any]) -> dict[str, Any]:
    """Gradio's config with every text of ours in the visitor's language; the language itself goes into the head."""
    code = language()
    direction = "rtl" if code in RIGHT_TO_LEFT else "ltr"
    head = HEAD.replace("LANG", json.dumps(code)).replace("DIR", json.dumps(direction))
    spoken_config = config | {"head": (config.get("head") or "") + head}
    if code == ENGLISH:
        return spoken_config
    parts = [one | {"props": props(one["type"], one["props"])} for one in config["components"]]
    own = {name: said(english) for name, english in GRADIO.items()}
    words = gr.I18n(**dict.fromkeys((ENGLISH, code), own))  # English too: it is Gradio's for a language it lacks
    return spoken_config | {"components": parts, "i18n_translations": words.translations_dict}


def props(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """A component's properties with those translated that a visitor reads.

    Example:
        >>> props("button", {"value": "Start", "elem_id": "start"})
        {'value': 'Iniciar', 'elem_id': 'start'}
    """
    found: dict[str, Any] = {name: said(given[name]) for name in TEXTS if isinstance(given.get(name), str)}
    value = given.get("value")
    if isinstance(value, str) and kind in PRESSED:
        found["value"] = said(value)
    elif isinstance(value, str) and kind in DRAWN:
        found["value"] = said_html(value)
    if isinstance(choices := given.get("choices"), list):
        theirs = kind == "dropdown" and "__type__" in given
        found["choices"] = [_choice(one, theirs) for one in choices]
    return given | found


def _choice(choice: Any, theirs: bool) -> Any:
    """A choice by another name. What events put into dropdowns, people have named: only facts that follow are ours."""
    name, value = choice if isinstance(choice, list | tuple) else (choice, choice)
    if not isinstance(name, str):
        return choice
    first, *facts = name.split(" · ") if theirs else [name]
    return [" · ".join([first if theirs else said(first), *map(said, facts)]), value]


def _changed(kind: str, change: Any) -> Any:
    if isinstance(change, str):
        return props(kind, {"value": change})["value"]
    return props(kind, change) if isinstance(change, dict) and change.get("__type__") == "update" else change
