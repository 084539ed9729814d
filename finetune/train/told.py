"""Settings as people write them: a YAML file, and what is said of one that is wrong."""

import difflib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from finetune.errors import ConfigError
from finetune.records import Json


def read_yaml(path: Path) -> Json:
    """The mapping in a YAML file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, AttributeError, RecursionError, yaml.YAMLError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(f"The YAML cannot be read: {reason}", where=path.name, fix="Correct the file.") from error
    if not isinstance(values, dict):
        raise ConfigError(
            "The YAML contains no settings.", where=path.name, fix="Write one setting per line, as key: value."
        )
    return values


def explained(error: Any, fields: Mapping[str, FieldInfo]) -> ConfigError:
    """One of pydantic's errors about settings, in words: which key, what it allows, and of an unknown one its nearest.

    Example:
        >>> explained(error.errors()[0], TrainConfig.model_fields)
        ConfigError('There is no such setting.')
    """
    key = str(error["loc"][0]) if error["loc"] else "settings"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
        known = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(fields)}."
        return ConfigError("There is no such setting.", where=key[:100], fix=known)
    what = f"{_short(error['input'])!r} is not allowed: {error['msg']}."
    return ConfigError(what, where=key, fix=str(fields[key].description))


def _short(value: Any) -> str:
    """A value in a few words; lists in lists of a YAML file could be longer, written out, than any memory."""
    try:
        return (reprlib.repr(value) if isinstance(value, (list, dict)) else str(value))[:60]
    except ValueError:
        return "a number with thousands of digits"
