"""What most events of the page have in common, as keyword arguments of Gradio's listeners."""

from typing import Any

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""No route of the server's public API."""

QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
"""And no spinner over what is shown."""

STATUS = "element.setAttribute('role', 'status');"
"""For the `js_on_load` of what changes by itself: a screen reader says it, when it has said what it was saying."""
