"""Start the page, the API and the supervisor in one process."""

import threading

import gradio as gr

from finetune import models, settings, train
from finetune.chat import Engine
from finetune.errors import ConfigError, FinetuneError
from finetune.store import Store
from finetune.ui import page, theme
from finetune.ui.session import Services


def launch(host: str | None = None, port: int | None = None) -> None:
    """Serve until interrupted. Gradio's own variables (``GRADIO_SERVER_PORT`` …) are honoured.

    Example:
        >>> launch(port=7861)
    """
    from finetune.api import routes

    where = settings.read()
    services = Services(Store(where.home), Engine())
    train.clean(services.store)
    supervisor = train.Supervisor(services.store)
    supervisor.start_thread()
    threading.Thread(target=_warm, name="warm", daemon=True).start()
    try:
        page.build(services).queue(default_concurrency_limit=16).launch(
            server_name=host,
            server_port=port,
            theme=theme.THEME,
            css_paths=theme.CSS,
            blocked_paths=[str(where.home)],
            max_file_size=where.max_upload_mb * 1024 * 1024,
            app_kwargs={"routes": routes(services)},
            run_history=False,
            footer_links=["gradio", "settings"],
            show_error=False,
        )
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "This address cannot be listened on: the port is taken, or is none.",
            where="--port" if port else "GRADIO_SERVER_PORT",
            fix="Choose another: --port 7861, or GRADIO_SERVER_PORT=7861.", code="port_taken",
        ) from error  # fmt: skip
    finally:
        supervisor.close()
        gr.close_all(verbose=False)


def _warm() -> None:
    """Have the default model ready before someone waits for it; a failure shows where it is needed."""
    try:
        models.load_tokenizer(models.find(models.DEFAULT, print))
    except FinetuneError as error:
        print(error)
