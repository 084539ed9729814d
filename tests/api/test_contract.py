"""The OpenAPI document is kept, on a shared server: schemathesis makes requests up from it, good and bad ones.

No answer is a server error or breaks the document, and no call can be made without the key.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks

from finetune.ledger import Ledger
from finetune.store import Store
from tests.serving import serving

load_all_checks()

KEPT: list[Any] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.ignored_auth,
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A shared server's address, and a key to it."""
    folder = tmp_path_factory.mktemp("shared")
    with serving(folder / "home", folder / "server.log", FINETUNE_SHARED="1", HF_HUB_OFFLINE="1") as address:
        yield address, Ledger(Store(folder / "home")).new_key("a" * 32)


@pytest.fixture(scope="module")
def document(shared: tuple[str, str]) -> Any:
    return schemathesis.openapi.from_url(f"{shared[0]}/v1/openapi.json")


calls = schemathesis.pytest.from_fixture("document")


@calls.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_no_call_breaks_the_document(case: Any, shared: tuple[str, str]) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {shared[1]}"}, checks=KEPT)
