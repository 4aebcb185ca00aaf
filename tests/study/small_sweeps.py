"""Sweeps of the small model, whose points take milliseconds."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.small_scenarios import scenario


def small_sweep(**axes: Any) -> dict[str, Any]:
    """Two schedulers, one of them with strides, on two links; further axes by their names, `__` for the dot."""
    return {
        "base": {**scenario(), "name": "small"},
        "axes": {
            "scheduler.name": ["zero3_offload", "deep_optimizer_states"],
            "scheduler.update_stride": [2, 3],
            "hardware_changes.link.h2d_bytes_per_s": ["x1", "x2"],
            **{name.replace("__", "."): values for name, values in axes.items()},
        },
    }


def long_sweep(count: int = 25) -> dict[str, Any]:
    """Six points for each of so many ratios: long enough to be killed in mid-sweep."""
    return small_sweep(scheduler__cpu_ratio={"from": 0, "to": 1, "count": count})


def written(sweep: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


def stored_ids(folder: Path) -> list[bytes]:
    """Ids of the points that a folder has, in the order in which they ended."""
    with closing(sqlite3.connect(folder / "points.sqlite")) as connection:
        return [key for (key,) in connection.execute("SELECT id FROM points ORDER BY rowid")]


def die_elsewhere(here: int) -> None:
    """Work that ends every process but that of this id."""
    if os.getpid() != here:
        os._exit(1)
    time.sleep(0.01)
