"""Importing Gradio without writing its stubs for editors.

For each of its eighty components, `import gradio` parses the source, fills a template with every event, and compares
the result with the `.pyi` file beside it. Nobody who runs the app reads those, and they take two fifths of the import.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

WRITER = "gradio.component_meta"
"""The module whose `create_or_modify_pyi` a component's class calls when it is defined."""


class _WithoutStubs(MetaPathFinder):
    """Finds that one module as usual, and replaces its function once it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == WRITER else None
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                vars(module)["create_or_modify_pyi"] = lambda component, name, events: None

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def skip_stubs() -> None:
    """Let the first `import gradio` of this process write none; does nothing after it.

    Example:
        >>> skip_stubs()
        >>> import gradio
    """
    if WRITER not in sys.modules:
        sys.meta_path.insert(0, _WithoutStubs())
