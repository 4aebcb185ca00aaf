"""A trace in numbers: copies, kernels, busy streams, overlap, delays of launches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from offsim.traces.classes import KERNEL_CLASSES, gpu_classes
from offsim.traces.events import NONE, Trace
from offsim.traces.spans import length, union, without

SIZES = ((64e3, "< 64 kB"), (1e6, "64 kB - 1 MB"), (16e6, "1 - 16 MB"), (math.inf, ">= 16 MB"))
"""Size classes of copies: (below so many bytes, name)."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies of one direction, kind of host memory ("" where it is not recorded) and size class ("all" for all)."""

    direction: str
    memory: str
    size: str
    count: int
    bytes: int
    seconds: float

    @property
    def bytes_per_s(self) -> float | None:
        """Bytes over the time that copies took; None where they took none that was recorded."""
        return self.bytes / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Kernels:
    """Kernels of one class."""

    kind: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StreamUse:
    """How busy a stream or thread was: on threads, calls and operators count."""

    rank: int
    stream: str
    count: int
    busy_s: float
    share: float
    """Of the trace's span."""


@dataclass(frozen=True, slots=True)
class LaunchDelays:
    """From the beginning of launching calls to the beginning of their kernels, seconds."""

    count: int
    median_s: float
    p90_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace in numbers."""

    trace: Trace
    copies: tuple[Copies, ...]
    kernels: tuple[Kernels, ...]
    streams: tuple[StreamUse, ...]
    copying_s: float
    """Time in which copies between host and a GPU ran, summed over GPUs."""
    overlapped_s: float
    """How much of it kernels of the same GPU ran too."""
    delays: LaunchDelays | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "file": self.trace.path.name,
            "tool": self.trace.tool,
            "devices": {str(device): name for device, name in self.trace.devices.items()},
            "span_s": self.trace.span_s,
            "events": {str(k): int(n) for k, n in sorted(self.trace.events["kind"].value_counts().items()) if n},
            "copies": [asdict(copies) | {"bytes_per_s": copies.bytes_per_s} for copies in self.copies],
            "kernels": [asdict(kernels) for kernels in self.kernels],
            "streams": [asdict(use) for use in self.streams],
            "copying_s": self.copying_s,
            "overlapped_s": self.overlapped_s,
            "delays": asdict(self.delays) if self.delays else None,
        }


def summarize(trace: Trace) -> Summary:
    """Sum up a trace."""
    events = trace.events
    copying = overlapped = 0.0
    on_gpu = trace.on_gpu
    for _, rows in on_gpu.groupby(["rank", "device"]):
        copies = union(rows[(rows["kind"] == "memcpy") & rows["direction"].isin(["H2D", "D2H"])])
        copying += length(copies)
        overlapped += length(copies) - length(without(copies, union(rows[rows["kind"] == "kernel"])))
    return Summary(
        trace,
        _copies(events[events["kind"] == "memcpy"]),
        _kernels(events[events["kind"] == "kernel"]),
        _streams(trace),
        copying,
        overlapped,
        _delays(events),
    )


def _copies(rows: pd.DataFrame) -> tuple[Copies, ...]:
    found: list[Copies] = []
    took = rows["end_s"] - rows["start_s"]
    below = np.array([limit for limit, _ in SIZES])
    sizes = np.array([name for _, name in SIZES])[np.searchsorted(below, rows["bytes"].to_numpy(), side="right")]
    for direction in ("H2D", "D2H", "D2D", "H2H", ""):
        for memory in ("pinned", "pageable", "device", ""):
            mine = ((rows["direction"] == direction) & (rows["memory"] == memory)).to_numpy()
            for size in ("all", *(name for _, name in SIZES)):
                these = mine if size == "all" else mine & (sizes == size)
                if these.any():
                    nbytes, seconds = int(rows["bytes"][these].sum()), float(took[these].sum())
                    found.append(Copies(direction, memory, size, int(these.sum()), nbytes, seconds))
    return tuple(found)


def _kernels(rows: pd.DataFrame) -> tuple[Kernels, ...]:
    kinds = gpu_classes(rows)
    seconds = (rows["end_s"] - rows["start_s"]).to_numpy()
    counted = ((kind, kinds == kind) for kind in KERNEL_CLASSES)
    return tuple(Kernels(kind, int(mine.sum()), float(seconds[mine].sum())) for kind, mine in counted if mine.any())


def _streams(trace: Trace) -> tuple[StreamUse, ...]:
    events = trace.events
    busy = events[events["kind"].isin(["kernel", "memcpy", "memset", "runtime", "cpu_op"])]
    span = trace.span_s
    uses = []
    for (_, stream), rows in busy.groupby(["rank", "stream"], observed=True):
        seconds = length(union(rows))
        uses.append(
            StreamUse(int(rows["rank"].iloc[0]), str(stream), len(rows), seconds, seconds / span if span > 0 else 0.0)
        )
    return tuple(sorted(uses, key=lambda use: (use.rank, use.stream.startswith("thread"), -use.busy_s, use.stream)))


def _delays(events: pd.DataFrame) -> LaunchDelays | None:
    kernels = events[(events["kind"] == "kernel") & (events["launched_by"] != NONE)]
    if kernels.empty:
        return None
    launched = events["start_s"].to_numpy()[kernels["launched_by"].to_numpy()]
    delays = np.maximum(kernels["start_s"].to_numpy() - launched, 0.0)  # clocks differ by microseconds
    return LaunchDelays(len(delays), float(np.median(delays)), float(np.percentile(delays, 90)))


def device_names(devices: Sequence[str]) -> str:
    """Names of GPUs, each once with how many there are."""
    kinds = dict.fromkeys(devices)
    return (
        ", ".join(f"{devices.count(kind)} x {kind or 'GPU (name not recorded)'}" for kind in kinds) or "none recorded"
    )
