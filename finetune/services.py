"""What every tab needs besides its own components: the store, the chat engine, and whose data to show."""

import re
import secrets
from dataclasses import dataclass
from functools import cached_property

from finetune import people, settings
from finetune.chat import Engine
from finetune.errors import NotAllowed, RunError
from finetune.records import Json
from finetune.schema import LOCAL
from finetune.store import DatasetRecord, Run, Store, no_dataset, no_run
from finetune.trial import Trials
from finetune.workshop import Workshop

OWNER = re.compile("[0-9a-f]{32}")
"""The secret that identifies a browser as owner of its data: 128 random bits."""


Browser = Json | None
"""The state stored in the browser between visits; None until the page has loaded for the first time."""


@dataclass(frozen=True)
class Services:
    """The store, and the one chat engine of this process.

    `admin` opens the operator's view ("": there is none); a `workshop` says what everybody in it may see.
    """

    store: Store
    engine: Engine
    admin: str = ""
    workshop: Workshop | None = None

    @cached_property
    def trials(self) -> Trials:
        """The journeys on a sample that go on in this process."""
        return Trials(self.store, self.engine)

    def run(self, run_id: str | None, browser: Browser) -> Run:
        """One of the visitor's runs, to do anything with.

        Raises:
            RunError: the same for a missing run and for another visitor's.
            NotAllowed: the visitor may only look at it (see `seen`), and knows that it is there.
        """
        run = self.seen(run_id, browser)
        if run.owner != owner(browser):
            raise NotAllowed(
                "This run belongs to somebody else, who lets you look at it.",
                where=run.id,
                fix="Train one of your own: with that you can do everything.",
                code="only_shown",
            )
        return run

    def seen(self, run_id: str | None, browser: Browser) -> Run:
        """A run that the visitor may look at, follow and talk to: an own one, and in a workshop those that it `shows`.

        Whatever changes, evaluates, exports, continues or deletes a run asks `run` instead.

        Raises:
            RunError: the same for a missing run and for one that the visitor may not see.
        """
        if not run_id:
            raise RunError("No run is chosen.", fix="Choose one, or train one on the Train tab.", code="run_unknown")
        run = self.store.run(run_id)
        if run.owner != owner(browser) and not (self.workshop and self.workshop.shows(run)):
            raise no_run(run_id)
        return run

    def shows_rows(self, run: Run, browser: Browser) -> bool:
        """Whether a visitor who may see a run may also read the rows it learned from and is judged by.

        Those of others stay theirs, but for the rows of the workshop's sample, which everybody has.
        """
        return run.owner == owner(browser) or bool(self.workshop and self.workshop.has_rows_of(run))

    def seen_runs(self, browser: Browser) -> list[Run]:
        """The runs that the visitor may look at: own ones, newest first, then what the workshop shows."""
        mine = self.runs(browser)
        return mine + [run for run in self.workshop.shown() if run.owner != owner(browser)] if self.workshop else mine

    def whose(self, run: Run, browser: Browser) -> str:
        """How to call the owner of a run that the visitor may see; "" where it is the visitor."""
        if run.owner == owner(browser):
            return ""
        return "Example" if run.owner == LOCAL else people.nickname(self.store, run.owner) or "Somebody"

    def run_of(self, name: str, run_id: str) -> Run:
        """The run with this id if it is this owner's. Raises the same `RunError` for any other."""
        run = self.store.run(run_id)
        if run.owner != name:
            raise no_run(run_id)
        return run

    def dataset(self, dataset_id: str | None, browser: Browser) -> DatasetRecord:
        """One of the visitor's datasets. Raises the same `RunError` for a missing one and for another visitor's."""
        if not dataset_id:
            raise RunError("No dataset is chosen.", fix="Load one on the Data tab.", code="dataset_unknown")
        return self.dataset_of(owner(browser), dataset_id)

    def dataset_of(self, name: str, dataset_id: str) -> DatasetRecord:
        """The dataset with this id if it is this owner's. Raises the same `RunError` for any other."""
        record = self.store.dataset(dataset_id)
        if record.owner != name:
            raise no_dataset(dataset_id)
        return record

    def versions(self, dataset_id: str | None, browser: Browser) -> list[DatasetRecord]:
        """The versions of one of the visitor's datasets, newest first. Raises `RunError` as `dataset` does."""
        return self.store.versions(self.dataset(dataset_id, browser))

    def chosen(self, browser: Browser) -> DatasetRecord | None:
        """The selected dataset; None if none was selected yet, or if it was deleted, here or in another window."""
        try:
            return self.dataset(known(browser)["dataset"], browser)
        except RunError as error:
            if error.code != "dataset_unknown":  # other errors, such as a full disk, must not deselect it
                raise
            return None

    def runs(self, browser: Browser) -> list[Run]:
        """The visitor's runs, newest first."""
        return self.store.runs(owner=owner(browser))


def owner(browser: Browser) -> str:
    """The visitor's name in the store: ``local`` at home, the browser's secret on a shared server."""
    return known(browser)["owner"] if settings.read().shared else LOCAL


def known(browser: Browser) -> Json:
    """The browser's state; a new one for a first visit or if it was tampered with."""
    if isinstance(browser, dict) and OWNER.fullmatch(str(browser.get("owner"))):
        return {"dataset": None, "run": None, **browser}
    return {"owner": secrets.token_hex(16), "dataset": None, "run": None}
