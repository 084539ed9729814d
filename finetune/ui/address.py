"""The page's address: ``?tab=train&run=r1234abcd`` opens that tab with that run, and the browser's back button works.

The page does this by itself; only which run is meant goes to the server, which knows whose it is.
"""

import json
import re
from collections.abc import Sequence
from urllib.parse import parse_qs

RUN = re.compile("r[0-9a-f]{8}")
SELECTED = 'document.querySelector("#tabs > .tab-wrapper [role=tab][aria-selected=true]")?.dataset.tabId'
"""The tab in view, by its id; none while a phone's page moves it out of the menu of those that have no room."""

NOTE = """
    const told = new URLSearchParams(window.location.search), named = told.get("tab") ?? FIRST;
    if (window.baWanted === selected) window.baWanted = null;
    else if (selected && selected !== named && !window.baWanted && (window.baFollowed || !told.has("tab"))) {
        if (selected === FIRST) told.delete("tab"); else told.set("tab", selected);
        told.delete("run");
        const query = told.toString();
        window.history.pushState(null, "", window.location.pathname + (query ? "?" + query : ""));
    }
"""
"""Writes the `selected` tab into the address. Not before the address was followed, else its own tab would be lost;
nor while the tab that it names is not selected yet."""

FOLLOW = """() => {
    const named = new URLSearchParams(window.location.search).get("tab") ?? FIRST;
    const selected = SELECTED, back = window.baFollowed;
    if (!back) {
        window.baFollowed = true;
        window.addEventListener("popstate", () => document.querySelector("#follow-address").click());
    }
    const quicker = !back && selected && selected !== FIRST;
    if (quicker || !TABS.includes(named) || named === selected) return {__type__: "update"};
    window.baWanted = named;
    return {__type__: "update", selected: named};
}"""
"""Selects the tab that the address names: when the page has loaded (unless the visitor was quicker than that and has
chosen another), and when the visitor goes back."""


def note(tabs: Sequence[str]) -> str:
    """The script that writes the selected one of these tabs into the address; it finds it as `selected`."""
    return NOTE.replace("FIRST", json.dumps(tabs[0]))


def follow(tabs: Sequence[str]) -> str:
    """The script that selects the tab of the address, if it is one of these; without a name, the first."""
    script = FOLLOW.replace("SELECTED", SELECTED).replace("FIRST", json.dumps(tabs[0]))
    return script.replace("TABS", json.dumps([*tabs]))


def run_in(search: str | None) -> str | None:
    """The run that an address asks for; None too for what cannot be one: anybody can write a link.

    Example:
        >>> run_in("?tab=chat&run=r1234abcd")
        'r1234abcd'
    """
    named = parse_qs((search or "").lstrip("?")[:1000]).get("run", [""])[0]
    return named if RUN.fullmatch(named) else None
