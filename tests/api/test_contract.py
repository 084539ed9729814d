"""The OpenAPI document is kept, on a shared server: schemathesis makes requests up from it, good and bad ones.

No answer is a server error or breaks the document, and no call can be made without the key.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks

from finetune.ledger import Ledger
from finetune.store import Store
from tests.api.conftest import with_models
from tests.serving import serving

load_all_checks()

KEPT: list[Any] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.ignored_auth,
]

MADE_UP = 12
"""Requests for each call."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Iterator[tuple[str, str]]:
    """A shared server's address, and a key to it."""
    folder = with_models(tmp_path_factory.mktemp("shared"), packaged_models)
    with serving(
        folder / "home", folder / "server.log", FINETUNE_SHARED="1", HF_HUB_OFFLINE="1", FINETUNE_API_PER_MINUTE="1e9"
    ) as address:
        yield address, Ledger(Store(folder / "home")).new_key("a" * 32)


def test_no_call_breaks_the_document(shared: tuple[str, str]) -> None:
    address, key = shared
    document = schemathesis.openapi.from_url(f"{address}/v1/openapi.json")
    calls = [call.ok() for call in document.get_all_operations()]
    assert len(calls) > 15
    seen: set[int] = set()
    for call in calls:
        modes = [call.as_strategy(generation_mode=mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]

        @given(st.one_of(modes))
        @settings(max_examples=MADE_UP, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def keeps(case: Any) -> None:
            seen.add(case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, checks=KEPT).status_code)

        keeps()
    assert {200, 400, 404} <= seen, "good requests and bad ones"
