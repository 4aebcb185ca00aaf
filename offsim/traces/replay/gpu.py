"""The steps of GPU streams, and what each of them waits for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from offsim.traces.events import NONE
from offsim.traces.replay.process import SKEW_S, Awaited, GpuStream, Key, Process, Step

GAP_S = 20e-6
"""A GPU activity that begins so much later than it could have was waiting for another stream."""
_WAITS_FOR_EVENT = re.compile(r"streamwaitevent", re.IGNORECASE)


def stream_steps(process: Process, blocked_until: Mapping[int, float]) -> Iterator[Step]:
    """The steps of all streams. Copies of `blocked_until` (row -> time) are two: a thread waited for the first."""
    asking = [call for call in process.calls.index if _WAITS_FOR_EVENT.search(process.names[call])]
    asked_at = process.start[asking]
    for stream in process.streams:
        waits = _described_waits(process, stream)
        waits = _likely_waits(process, stream, asked_at, waits) | waits
        for i, row in enumerate(stream.rows.tolist()):
            yield from _activity(process, stream, i, waits.get(i, []), blocked_until.get(row))


def _activity(process: Process, stream: GpuStream, i: int, waits: Awaited, split: float | None) -> Iterator[Step]:
    """An activity, behind the time that passed after what it waited for last."""
    row, start, end = int(stream.rows[i]), float(stream.starts[i]), float(stream.ends[i])
    after: list[Key] = [("launch", row)] if stream.calls[i] != NONE else []
    released: list[tuple[float, list[Key]]] = [(stream.ends[i - 1] if i else 0.0, [])]
    if after and stream.launched[i] > -np.inf:
        released.append((min(stream.launched[i], start), after))
    for other, j in waits:
        released.append((min(other.ends[j], start), [int(other.rows[j])]))
        after = [*after, int(other.rows[j])]
    at, cause = max(released, key=lambda release: release[0])
    if start > at:
        lane = f"+{row}" if cause else stream.name  # what the stream itself does not wait for passes beside it
        yield Step(("delay", row), float(at), lane, "latency", float(start - at), cause)
        after = [*after, ("delay", row)]
    parts: list[tuple[Key, float, float]] = [(row, start, end)]
    if split is not None:
        parts = [(("head", row), start, split), (row, split, end)]
    for key, began, ended in parts:
        step = Step(key, began, stream.name, str(stream.kinds[i]), ended - began, work=True)
        step.after = after if began == start else []
        step.bytes = float(process.bytes[row]) * (step.seconds / (end - start) if end > start else 1.0)
        step.memory = process.memory[row]
        yield step


def _described_waits(process: Process, stream: GpuStream) -> dict[int, Awaited]:
    """Position -> activities of other streams that the trace says it waits for."""
    found: dict[int, Awaited] = {}
    syncs = process.syncs
    syncs = syncs[(syncs["stream"] == stream.name) & (syncs["waits_on"] != NONE)]
    sync: Any
    for sync in syncs[syncs["name"] == "Stream Wait Event"].itertuples():
        asked = process.start[sync.launched_by if sync.launched_by != NONE else sync.Index]
        i = int(np.searchsorted(stream.launched, asked))
        for other, j in process.awaited(sync, asked):
            if i < len(stream.rows) and j >= 0 and other.ends[j] <= stream.starts[i] + SKEW_S:
                found.setdefault(i, []).append((other, j))
    return found


def _likely_waits(
    process: Process, stream: GpuStream, asked_at: np.ndarray, described: Mapping[int, Awaited]
) -> dict[int, Awaited]:
    """The same where the trace does not say it: some wait was asked for, and another stream's activity just ended."""
    found: dict[int, Awaited] = {}
    before = np.concatenate([[0.0], stream.ends[:-1]])
    late = stream.starts - np.maximum(before, stream.launched) > GAP_S
    for i in np.flatnonzero(late & (stream.launched > -np.inf)).tolist():
        since = stream.launched[i - 1] if i else -np.inf
        if i in described or np.searchsorted(asked_at, stream.launched[i]) == np.searchsorted(asked_at, since):
            continue
        for other in process.streams:
            j = other.last_ended(stream.starts[i])
            if other is not stream and j >= 0 and other.ends[j] >= stream.starts[i] - GAP_S:
                found.setdefault(i, []).append((other, j))
    return found
