"""Who is looking: what every tab needs besides its own components."""

import re
import secrets
from dataclasses import dataclass
from typing import Any

from finetune import settings
from finetune.chat import Engine
from finetune.errors import RunError
from finetune.store import DatasetRecord, Run, Store

LOCAL = "local"
OWNER = re.compile("[0-9a-f]{32}")
"""A browser's secret: whoever can name it is its owner, so it is 128 random bits."""


Browser = dict[str, Any] | None
"""What a browser remembers between visits; None until the page has loaded for the first time."""


@dataclass(frozen=True)
class Services:
    """What the page works with: the record, and the one chat engine of this process."""

    store: Store
    engine: Engine

    def run(self, run_id: str | None, browser: Browser) -> Run:
        """A run the visitor may see. Raises `RunError`, the same for a missing and for another's."""
        run = self.store.run(run_id or "none")
        if run.owner != owner(browser):
            raise RunError("There is no such run.", where=run.id, code="run_unknown")
        return run

    def dataset(self, dataset_id: str | None, browser: Browser) -> DatasetRecord:
        """A dataset the visitor may see. Raises `RunError`, the same for a missing and for another's."""
        record = self.store.dataset(dataset_id or "none")
        if record.owner != owner(browser):
            raise RunError("There is no such dataset.", where=record.id, code="dataset_unknown")
        return record

    def chosen(self, browser: Browser) -> DatasetRecord | None:
        """The data in view; None before any was brought, and when it was deleted, here or in another window."""
        try:
            return self.dataset(known(browser)["dataset"], browser)
        except RunError as error:
            if error.code != "dataset_unknown":  # a full disk is no reason to forget it
                raise
            return None

    def runs(self, browser: Browser) -> list[Run]:
        """The visitor's runs, newest first."""
        return self.store.runs(owner=owner(browser))


def owner(browser: Browser) -> str:
    """The visitor's name in the store: everyone's ``local`` at home, a secret of the browser when shared."""
    return known(browser)["owner"] if settings.read().shared else LOCAL


def known(browser: Browser) -> dict[str, Any]:
    """What the browser remembers; for one that was never here, or was tampered with, a new memory."""
    if isinstance(browser, dict) and OWNER.fullmatch(str(browser.get("owner"))):
        return {"dataset": None, "run": None, **browser}
    return {"owner": secrets.token_hex(16), "dataset": None, "run": None}


def browser_secret() -> str:
    """The key that browsers' memories are encrypted with; kept, so that they outlive a restart."""
    path = settings.read().home / "browser-secret"
    if not path.exists():
        path.write_text(secrets.token_hex(16), encoding="ascii")
        path.chmod(0o600)
    return path.read_text(encoding="ascii").strip()
