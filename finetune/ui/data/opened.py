"""The datasets in view: the last few stay open, so that looking at another row does not read the file again."""

import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune import data
from finetune.services import Browser, Services, owner
from finetune.store import DatasetRecord

FEW_AT_ONCE: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "data", "api_visibility": "private"}
"""Whatever reads a dataset, by all visitors together: a large one takes a minute of the processor and a thread."""

QUIETLY: dict[str, Any] = {**FEW_AT_ONCE, "show_progress": "hidden"}
"""And without a spinner."""

MOST = 4
"""Datasets that stay open. Their rows are in temporary files when they are many."""


class Opened:
    """Keeps new datasets, and opens kept ones for the visitor they belong to.

    Example:
        >>> record = opened.keep(data.load("sample_data/recipes"), browser)
        >>> len(opened.get(record.id, browser).examples)
        225
    """

    def __init__(self, services: Services):
        self.services = services
        self._open: OrderedDict[str, data.Dataset] = OrderedDict()
        self._compared: tuple[tuple[str, ...], data.Comparison] | None = None
        self._lock = threading.Lock()

    def get(self, dataset_id: str | None, browser: Browser) -> data.Dataset:
        """An open dataset. Raises `RunError` when there is none, `DataError` when its files are gone."""
        record = self.services.dataset(dataset_id, browser)
        with self._lock:
            dataset = self._open.get(record.id)
        return dataset if dataset else self._put(record, data.reopen(record))

    def edited(self, dataset_id: str | None, browser: Browser) -> data.Edited:
        """The rows of an open dataset with the edits that are not saved yet. Raises as `get` does."""
        dataset = self.get(dataset_id, browser)
        steps = data.draft(self.services.dataset(dataset_id, browser))
        return data.Edited(dataset.examples, steps, dataset.rejected)

    def compared(self, before: str, after: str, browser: Browser) -> data.Comparison:
        """Two of the visitor's datasets, row by row; the last one compared is kept. Raises as `get` does."""
        ids = tuple(self.services.dataset(one, browser).id for one in (before, after))
        with self._lock:
            kept = self._compared
        if kept is None or kept[0] != ids:
            kept = ids, data.compare(*(self.get(one, browser).examples for one in ids))
            with self._lock:
                self._compared = kept
        return kept[1]

    def keep(
        self,
        dataset: data.Dataset,
        browser: Browser,
        settings: data.FixedWith | None = None,
        parent: DatasetRecord | None = None,
        author: str = "",
    ) -> DatasetRecord:
        """Keep a dataset for good, and open; with a `parent`, as the next version of that one."""
        record = data.keep_dataset(self.services.store, dataset, owner(browser), settings, parent, author)
        kept, held = data.originals(record)
        validation = replace(dataset.validation, path=held) if dataset.validation and held else None
        parts = tuple(
            replace(part, place=stored.place, path=Path(stored.place))
            for part, stored in zip(dataset.parts, data.kept_parts(record), strict=True)
        )
        self._put(record, replace(dataset, path=kept, validation=validation, parts=parts))
        return record

    def forget(self, dataset_id: str) -> None:
        """Let go of a dataset that was deleted."""
        with self._lock:
            self._open.pop(dataset_id, None)
            if self._compared and dataset_id in self._compared[0]:
                self._compared = None

    def _put(self, record: DatasetRecord, dataset: data.Dataset) -> data.Dataset:
        with self._lock:
            self._open[record.id] = dataset
            self._open.move_to_end(record.id)
            while len(self._open) > MOST:
                self._open.popitem(last=False)
        return dataset
