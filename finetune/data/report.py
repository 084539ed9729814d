"""The report as JSON, and the rejected rows as a file to correct.

Example:
    >>> report(dataset)["accepted"] + report(dataset)["rejected"] == report(dataset)["rows"]
    True
"""

import json
from dataclasses import asdict
from pathlib import Path

from finetune.data.dataset import Dataset, Part
from finetune.data.fixes import fixes
from finetune.records import Json


def report(dataset: Dataset) -> Json:
    """Everything known about a dataset, as plain JSON values."""
    told = {
        "name": dataset.name,
        "format": dataset.format,
        "kind": dataset.kind,
        "rows": dataset.rows,
        "accepted": len(dataset.examples),
        "rejected": len(dataset.rejected),
        "columns": list(dataset.columns),
        "mapping": dataset.mapping.as_dict() if dataset.mapping else None,
        "problems": [problem.as_dict() for problem in dataset.problems],
        "fixes": [fix.as_dict() for fix in fixes(dataset)],
        "applied": list(dataset.applied),
        "split": asdict(dataset.split) if dataset.split else None,
        "validation": report(dataset.validation) if dataset.validation else None,
    }
    return told | ({"parts": [_part(part) for part in dataset.parts]} if dataset.parts else {})


def _part(part: Part) -> Json:
    mapping = part.mapping.as_dict() if part.mapping else None
    counts = {"rows": part.rows, "usable": part.usable, "taken": part.taken}
    return {"name": part.name, "share": part.share, **counts, "first_line": part.offset + 1, "mapping": mapping}


def write_rejected(dataset: Dataset, path: Path) -> int:
    """Write the rejected rows as JSONL (line, code, reason, text) and return their number."""
    with path.open("w", encoding="utf-8") as file:
        for row in dataset.rejected:
            values = {"line": row.line, "code": row.code, "reason": row.message, "text": row.text}
            file.write(json.dumps(values) + "\n")
    return len(dataset.rejected)
