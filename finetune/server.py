"""Start the page, the API and the supervisor in one process."""

import os
import resource
import secrets
import threading
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware

from finetune import invite, limits, models, settings, train
from finetune.chat import Engine, zero
from finetune.drawn import Drawn
from finetune.errors import ConfigError, FinetuneError
from finetune.export import chat_engine
from finetune.guard import Guard, is_loopback, sweep
from finetune.services import Services
from finetune.store import Store
from finetune.ui import page, theme, tools
from finetune.workshop import Wanted, Workshop

SHARED_NOTICE = (
    "Others can reach this address, so the server is shared: each browser sees only its own data and runs, the API "
    "needs a key, and local folders are disabled."
)

MAX_EVENTS = 300
"""Most queued events of all pages together. Thirty visitors produce sixty short ones per second."""

SESSIONS = 500
"""Most pages whose state is kept: each takes half a megabyte, and Gradio's default is ten thousand."""

THREADS = 64
"""Threads for the page's functions. Setting this gives them a pool separate from that of Gradio's routes."""

REQUESTS = 600
"""Requests a minute that one person of a workshop makes at most: a page that follows a run asks one or two a second."""

FILES = 10_240
"""Most open files; macOS does not allow more."""

UPLOAD_FRAME = 2**20
"""Bytes of an upload in addition to its files: boundaries and names."""


def launch(
    host: str | None = None, port: int | None = None, *, share: bool = False, workshop: Wanted | None = None
) -> None:
    """Serve until interrupted. Gradio's own variables (``GRADIO_SERVER_PORT`` …) are honoured.

    With `share`, Gradio opens a public link. A `workshop` is a shared server that people in a room find and join.

    Raises:
        ConfigError: the port is taken, the address is public while ``FINETUNE_SHARED=0``, or the workshop cannot be.

    Example:
        >>> launch(port=7861)
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if workshop else "127.0.0.1")
    named = "--port" if port else settings.PORT
    port = port or settings.port()
    if share:
        os.environ["GRADIO_SHARE"] = "true"
    share_if_public(host, anyway=workshop is not None)
    if workshop:
        _make_room(workshop.people)
    models.hub.forget_token()
    where = settings.read()
    _more_files()
    services = _services(where, workshop)
    supervisor = train.Supervisor(services.store)
    services.engine.beside = lambda: supervisor.training
    supervisor.start_thread()
    served = page.build(services).queue(default_concurrency_limit=16, max_size=MAX_EVENTS, api_open=False)
    try:
        _serve(served, services, where, host, port)
    except (OSError, OverflowError) as error:
        raise _cannot_listen(named) from error
    finally:
        supervisor.close()
        services.trials.close()
        services.engine.close()
        gr.close_all(verbose=False)


def _services(where: settings.Settings, workshop: Wanted | None) -> Services:
    """What the page and the API work with; what an earlier server left unfinished is cleared away."""
    store = Store(where.home)
    limits.reopen(store)  # the last workshop here was closed
    room = Workshop(store, workshop) if workshop else None
    engine = Engine(chat_engine.of_settings(store), zero.on_gpu())
    key = secrets.token_urlsafe(18) if where.shared else ""  # each start has another
    if key and not room:
        print(f"Key of the operator's view, at the end of the page: {key}", flush=True)
    train.clean(store)
    sweep(gr.utils.get_upload_folder())
    return Services(store, engine, key, workshop=room)


def _serve(served: gr.Blocks, services: Services, where: settings.Settings, host: str, port: int | None) -> None:
    """Until interrupted; a workshop tells how to join it once somebody can."""
    served.launch(
        server_name=host,
        server_port=port,
        theme=theme.THEME,
        css_paths=theme.CSS,
        prevent_thread_lock=True,
        **options(services, where),
    )
    # Not before somebody can open the page: importing PyTorch at the same time would hold it up for seconds.
    threading.Thread(target=_warm, name="warm", daemon=True).start()
    if room := services.workshop:
        limits.hold(services.store, False)  # its example is trained now
        room.address = invite.address(host, urlsplit(served.local_url).port or 0, served.share_url)
        opens = f"Key of the teacher's board: {services.admin} (and of the operator's view, at the end of the page)"
        print(invite.printed(room.address), opens, sep="\n", flush=True)
        room.begin(services.trials, lambda sentence: print(sentence, flush=True))
    served.block_thread()


def _cannot_listen(named: str) -> ConfigError:
    return ConfigError(
        "The server cannot listen on this address: the port is taken or invalid.",
        where=named,
        fix="Choose another port: --port 7861, or GRADIO_SERVER_PORT=7861.",
        code="port_taken",
    )


def options(services: Services, where: settings.Settings) -> dict[str, Any]:
    """Arguments for Gradio's `launch` that concern access and limits."""
    from finetune.api import routes

    most = where.max_upload_mb * 2**20
    guard = Middleware(Guard, shared=where.shared, max_upload=most + UPLOAD_FRAME, per_minute=where.requests_per_minute)
    return {
        "blocked_paths": [str(where.home)],
        "max_file_size": most,
        "app_kwargs": {"routes": routes(services), "middleware": [guard, Middleware(Drawn)]},
        "max_threads": THREADS,
        "state_session_capacity": SESSIONS,
        "run_history": False,
        "enable_monitoring": False,  # it would show everyone how many people use what
        "ssr_mode": False,  # its proxy would hide the Host header that browsers send
        "footer_links": ["api", "gradio", "settings"],
        "show_error": False,
        "mcp_server": tools.is_offered(),
    }


def share_if_public(host: str, *, anyway: bool = False) -> None:
    """Make the server a shared one if others can reach it, or `anyway`, and print that.

    Raises:
        ConfigError: ``FINETUNE_SHARED=0`` forbids it.
    """
    tunnel = (
        os.environ.get("GRADIO_SHARE", "").lower() == "true" or gr.utils.colab_check() or gr.utils.is_hosted_notebook()
    )  # Gradio opens one in notebooks
    alone = (is_loopback(host) or host == "::1") and not tunnel and not anyway
    if settings.read().shared or alone:
        return
    if os.environ.get("FINETUNE_SHARED", "").strip():
        raise ConfigError(
            "Others could reach this address and use your data, runs and Hub login.",
            where="GRADIO_SHARE" if tunnel else "--workshop" if anyway else host,
            fix="Unset FINETUNE_SHARED=0 to share the server, or listen on 127.0.0.1.",
            code="public_not_shared",
        )
    os.environ["FINETUNE_SHARED"] = "1"
    print(SHARED_NOTICE)


def _make_room(people: int) -> None:
    """A class shares one network address, or a tunnel's: what one address may do is what so many people may.

    What is set already stays.
    """
    os.environ.setdefault("FINETUNE_RUNS_PER_ADDRESS", str((train.most_active().of_owner or 1) * people))
    os.environ.setdefault("FINETUNE_REQUESTS_PER_MINUTE", str(REQUESTS * people))


def _more_files() -> None:
    """Raise the limit on open files, usually 1,024, as far as the system allows: each page holds two connections."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(most, FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _warm() -> None:
    """Prepare the default model before someone waits for it; a failure is shown again where the model is needed."""
    try:
        models.load_tokenizer(models.find(models.DEFAULT, print))
    except FinetuneError as error:
        print(error)
