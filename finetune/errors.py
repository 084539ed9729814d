"""Every error a person can cause or mend, in one tree.

    FinetuneError
    ├── DataError    (ValueError)       a file or row cannot be used
    ├── ConfigError  (ValueError)       a setting is unknown or out of bounds
    ├── ModelError   (RuntimeError)     a model cannot be found, fetched or read
    ├── RunError     (RuntimeError)     a run is missing, or cannot do what was asked
    └── NotAllowed   (PermissionError)  this deployment does not permit it

Each message says what happened, where, and what to do. The command line prints it, the API wraps
it in OpenAI's envelope, the page shows it. Any other exception is a bug and stays loud.

Example:
    >>> str(DataError("The file is empty.", where="rows.jsonl", fix="Add at least one example."))
    'rows.jsonl: The file is empty. Add at least one example.'
"""


class FinetuneError(Exception):
    """What happened (`what`), where (`where`: file, row, field) and what to do (`fix`)."""

    code = "error"

    def __init__(self, what: str, *, where: str = "", fix: str = "", code: str | None = None):
        self.what, self.where, self.fix = what, where, fix
        self.code = code or type(self).code
        super().__init__(" ".join(part for part in (f"{where}:" if where else "", what, fix) if part))


class DataError(FinetuneError, ValueError):
    """A file or a row that cannot be used."""

    code = "data_unreadable"


class ConfigError(FinetuneError, ValueError):
    """A setting that is unknown, of the wrong type, or out of bounds."""

    code = "config_invalid"


class ModelError(FinetuneError, RuntimeError):
    """A model that cannot be found, fetched or read."""

    code = "model_unavailable"


class RunError(FinetuneError, RuntimeError):
    """A run that is missing, or cannot do what was asked in its present state."""

    code = "run_error"


class NotAllowed(FinetuneError, PermissionError):
    """Something this deployment does not permit."""

    code = "not_allowed"
