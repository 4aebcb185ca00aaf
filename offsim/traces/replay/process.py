"""One process of a trace: its GPU streams and calls, and what a synchronization waited for."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from offsim.traces.classes import gpu_classes
from offsim.traces.events import GPU_KINDS, NONE
from offsim.traces.spans import length, union

SKEW_S = 20e-6
"""By so much the clocks of GPU and host may differ in a trace."""
TAIL_S = 100e-6
"""What ended longer before the end of a call is not what the call waited for."""


Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class GpuStream:
    """The GPU activities of a stream in their order."""

    name: str
    rows: npt.NDArray[np.int64]
    starts: Floats
    ends: Floats
    kinds: npt.NDArray[np.object_]
    calls: npt.NDArray[np.int64]
    launched: Floats
    """When each was launched, never decreasing; -inf where the trace does not show it."""

    def last_launched(self, by_s: float) -> int:
        """The position of the last activity that was launched by then; -1 if none was."""
        return int(np.searchsorted(self.launched, by_s, side="right")) - 1

    def last_ended(self, by_s: float) -> int:
        """The position of the last activity that had ended by then; -1 if none had."""
        return int(np.searchsorted(self.ends, by_s, side="right")) - 1


Awaited = list[tuple[GpuStream, int]]
"""Activities: their streams, and their positions on them."""


class Process:
    """What is replayed of one process; `start`, `end` and `names` have all rows of the trace."""

    def __init__(self, events: pd.DataFrame, replayed: pd.Series, syncs: pd.Series, prefix: str) -> None:
        named = events["stream"].cat.rename_categories(lambda name: f"{prefix}{name}")
        events = events.assign(stream=named)
        self.prefix = prefix
        self.events = events[replayed]
        self.start: Floats = events["start_s"].to_numpy()
        self.end: Floats = events["end_s"].to_numpy()
        self.names: list[str] = events["name"].astype(str).tolist()
        self.bytes: npt.NDArray[np.int64] = events["bytes"].to_numpy()
        self.memory: list[str] = events["memory"].tolist()
        self.syncs = events[syncs]
        self.calls = self.events[self.events["kind"] == "runtime"]
        self.thread_of = dict(zip(self.calls.index.tolist(), self.calls["stream"].astype(str), strict=True))
        """Row of a call -> its thread."""
        self.launching = set(self.events["launched_by"].tolist())
        """Rows of the calls that launched something."""
        self.streams = self._gpu_streams()
        self._by_name = {stream.name: stream for stream in self.streams}
        numbered = self.calls.drop_duplicates("correlation")
        self._recorded = dict(zip(numbered["correlation"].tolist(), numbered["start_s"].tolist(), strict=True))
        """Correlation of a call -> its beginning."""

    def busy_s(self) -> dict[str, float]:
        """Busy seconds of each stream and thread."""
        groups = self.events.groupby("stream", observed=True)
        return {str(name): length(union(rows)) for name, rows in groups}

    def _gpu_streams(self) -> list[GpuStream]:
        rows = self.events[self.events["kind"].isin(GPU_KINDS)]
        kinds = pd.Series(gpu_classes(rows), index=rows.index)
        streams = []
        for name, group in rows.groupby("stream", observed=True):
            ends = np.maximum.accumulate(group["end_s"].to_numpy())
            # Activities of a stream that overlap (branches of a graph) are one after another here, as long in all.
            starts = np.maximum(group["start_s"].to_numpy(), np.concatenate([[-np.inf], ends[:-1]]))
            calls = group["launched_by"].to_numpy()
            known = np.where(calls == NONE, -np.inf, np.clip(starts, self.start[calls], self.end[calls]))
            launched = np.maximum.accumulate(known)
            own_kinds = kinds[group.index].to_numpy()
            streams.append(GpuStream(str(name), group.index.to_numpy(), starts, ends, own_kinds, calls, launched))
        return streams

    def awaited(self, sync: Any, at: float) -> Awaited:
        """What a synchronization that the trace describes, a row of `syncs`, waits for: an event, or a whole stream."""
        by, stream = at, self._by_name.get(sync.stream)
        if sync.waits_on != NONE:
            stream = self._by_name.get(f"{self.prefix}GPU {sync.device} stream {sync.waits_on}")
        if sync.waits_record != NONE:
            by = self._recorded.get(sync.waits_record, at)
        return [] if stream is None else [(stream, stream.last_launched(by))]

    def ended_with(self, start: float, end: float) -> Awaited:
        """The activity with the end of which a call ended that the trace says no more of."""
        found: Awaited = []
        for stream in self.streams:
            i = stream.last_ended(end + SKEW_S)
            if i < 0 or stream.launched[i] > start or stream.ends[i] < max(start, end - TAIL_S):
                continue
            found.append((stream, i))
        return [max(found, key=lambda each: each[0].ends[each[1]])] if found else []


Key = Hashable
"""Names a step: the row of a GPU activity, or a tuple of what it is and where."""


@dataclass(slots=True)
class Step:
    """Work, or time that passes, on a stream or thread: after the step before it there, and after those of `after`."""

    key: Key
    at: float
    """When it began in the trace."""
    stream: str
    kind: str
    seconds: float
    after: list[Key] = field(default_factory=list)
    work: bool = False
    """Whether it is work that the trace shows; else it is time that passes."""
    waits_busily: bool = False
    """Whether it ends a call that waited: until then, the thread is busy."""
    bytes: float = 0.0
    memory: str = ""
    """Of copies: bytes, and kind of host memory."""
