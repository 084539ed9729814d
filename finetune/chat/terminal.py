"""Chat in a terminal: columns that stream side by side; plain lines when the output is piped."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from finetune.chat.engine import Engine
from finetune.chat.reply import Reply, Sampling
from finetune.chat.talk import Talk
from finetune.errors import FinetuneError

WHY = {"end_of_turn": "ended by itself", "length": "cut at max tokens", "stopped": "stopped", None: "…"}


def converse(engine: Engine, talk: Talk, sampling: Sampling) -> int:
    """Ask each line that is typed or piped in; return the number of prompts that failed.

    Example:
        >>> converse(Engine(), Talk(run, columns), Sampling(max_tokens=64))
        0
    """
    failed = 0
    for prompt in _prompts():
        try:
            talk = talk.answered(prompt, ask(engine, talk, prompt, sampling))
        except FinetuneError as error:
            print(error, file=sys.stderr)
            failed += 1
        except KeyboardInterrupt:  # before the first token: drop the prompt
            continue
    return failed


def ask(engine: Engine, talk: Talk, prompt: str, sampling: Sampling) -> list[Reply]:
    """Ask all columns and print their answers. In a terminal, Ctrl-C ends the answers.

    Raises:
        KeyboardInterrupt: on Ctrl-C before the first token.
    """
    stream = engine.stream(talk.asks(prompt), talk.run.config["model"], sampling)
    replies: list[Reply] = []
    if sys.stdout.isatty():
        from rich.live import Live

        with Live(refresh_per_second=12, vertical_overflow="visible") as live, contextlib.suppress(KeyboardInterrupt):
            for replies in stream:
                live.update(_side_by_side(talk, replies))
        stream.close()
        if not replies or not replies[0].prompt:
            raise KeyboardInterrupt
        return replies
    for replies in stream:  # noqa: B007 - the last one counts
        pass
    for column, reply in zip(talk.columns, replies, strict=True):
        by = f", {reply.by}" if reply.by else ""
        print(f"--- {column.key} ({reply.tokens} tokens, {reply.stop}{by})\n{reply.text}", flush=True)
    return replies


def _prompts() -> Iterator[str]:
    typed = sys.stdin.isatty()
    while True:
        try:
            line = input("\nYou: ") if typed else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            return
        if not typed and not line:
            return
        if line.strip():
            yield line.strip()


def _side_by_side(talk: Talk, replies: list[Reply]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, show_lines=False)
    for column in talk.columns:
        table.add_column(Text(column.title), ratio=1, overflow="fold")
    table.add_row(*(Text(reply.text) for reply in replies))
    notes = (f"{reply.tokens} tokens, {WHY[reply.stop]}{', ' * bool(reply.by)}{reply.by}" for reply in replies)
    table.add_row(*(Text(note, style="dim") for note in notes))
    return table
