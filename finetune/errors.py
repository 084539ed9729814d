"""Every error that a user can cause or fix, in one tree.

    FinetuneError
    ├── DataError    (ValueError)       a file or row cannot be used
    ├── ConfigError  (ValueError)       a setting is unknown or out of bounds
    ├── ModelError   (RuntimeError)     a model cannot be found, fetched or read
    ├── RunError     (RuntimeError)     a run is missing, or not in the right state
    └── NotAllowed   (PermissionError)  not permitted on this server

Each message says what happened, where, and what to do. The page shows it, the command line prints it, and the API
wraps it in OpenAI's error format. Any other exception is a bug and is not caught.

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

    def as_dict(self) -> dict[str, str]:
        """For programs: the parts apart.

        Example:
            >>> DataError("The file is empty.", where="rows.jsonl", fix="Add at least one example.").as_dict()["where"]
            'rows.jsonl'
        """
        return {"code": self.code, "message": self.what, "where": self.where, "fix": self.fix}


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
    """A run that is missing, or whose state does not allow the request."""

    code = "run_error"


class NotAllowed(FinetuneError, PermissionError):
    """Something that is not permitted on this server."""

    code = "not_allowed"
