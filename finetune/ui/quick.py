"""Import Gradio in two thirds of the time, for whoever waits for the app to start."""

import inspect
from typing import Any


def import_gradio() -> None:
    """Import Gradio without the rewriting of its type stubs.

    While it is imported, Gradio reads the source of each of its components, renders a stub for editors (.pyi), and
    compares it with the one beside it, which its package already contains. It goes without where it does not find
    the source; so, during this import only, it finds that of no component. Without this function everything works the
    same, and the app starts more than a second later.

    Example:
        >>> import_gradio()
        >>> import gradio    # is there already
    """
    found = inspect.getfile

    def unless_gradios(object: Any) -> str:
        if isinstance(object, type) and object.__module__.startswith("gradio."):
            raise OSError("not needed")
        return found(object)

    inspect.getfile = unless_gradios
    try:
        import gradio  # noqa: F401
    finally:
        inspect.getfile = found
