"""Sweeps of the small model, whose points take milliseconds."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import orjson
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


def journal_ids(folder: Path) -> list[str]:
    """Ids of the whole lines of a journal."""
    lines = (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    return [orjson.loads(line)["id"] for line in lines]


def dies_of_bombs(payload: bytes) -> bytes:
    """What workers do in a test: they echo, and are killed by what says so."""
    if payload.startswith(b"bomb"):
        os.kill(os.getpid(), signal.SIGKILL)
    if payload.startswith(b"once"):
        path = Path(payload.decode().partition(" ")[2])
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return payload
