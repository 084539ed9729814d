"""How many examples hypothesis tries: a fifth of them each time, all of them with ``pytest -m sweep``."""

from typing import Any

from hypothesis import HealthCheck, settings

ALL = False
"""Set by `tests/conftest.py` before any test is collected."""


def examples(count: int, **more: Any) -> settings:
    """The settings of a test that deserves so many examples."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=count if ALL else count // 5, deadline=None, suppress_health_check=health, **more)
