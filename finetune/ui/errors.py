"""Errors of ours as notices in the corner of the page; anything else is a bug and stays loud."""

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from finetune.errors import FinetuneError
from finetune.ui.html import text


def notice(error: FinetuneError) -> gr.Error:
    """To be raised. Gradio takes the message for HTML."""
    return gr.Error(str(text(str(error))), print_exception=False)


@contextmanager
def noticed() -> Iterator[None]:
    """Turn a `FinetuneError` into a notice.

    Example:
        >>> with noticed():
        ...     train.stop(store, run.id)
    """
    try:
        yield
    except FinetuneError as error:
        raise notice(error) from error
