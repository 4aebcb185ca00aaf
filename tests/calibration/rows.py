"""Rows of microbenchmarks, one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from offsim.calibration.microbenchmarks.rows import UNITS


def row(quantity: str, size: float | list[float], *seconds: float, **more: Any) -> dict[str, Any]:
    """A row as the harness writes it; `more` has what differs from one thread on an idle machine."""
    unit = UNITS.get(quantity, "1")
    shared = {"quantity": quantity, "size": size, "unit": unit, "threads": 1, "condition": "idle", "clock": "device"}
    return shared | {"seconds": list(seconds)} | more


def write(path: Path, *rows: dict[str, Any]) -> Path:
    """Write rows to a file."""
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path
