"""A trace as a program: what each GPU stream and host thread did, and what each step had to wait for.

Times between what a step waited for and its beginning are kept, as they are: launch latencies, the host's own time
between calls. So the program takes as long as the trace when nothing is changed, and a step that becomes shorter or
longer moves exactly what depended on it:

- a GPU activity begins after the one before it on its stream, after its launching call, and after events that its
  stream waits for;
- a call that synchronizes ends after the GPU activity that it waited for, a copy that blocks after itself;
- a thread that was idle until another one went idle was waiting for it, as the main thread does while the thread of
  backward runs.

Where a trace does not say what was waited for, timing decides, and only where it leaves little doubt.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from offsim.inputs.errors import InputError
from offsim.traces.classes import ADAM_NAME, gpu_classes
from offsim.traces.events import GPU_KINDS, NONE, Trace
from offsim.traces.summary import Spans, intersection, length, merged, union, without

SKEW_S = 20e-6
"""By so much the clocks of GPU and host may differ in a trace."""
TAIL_S = 100e-6
"""What ended longer before the end of a call is not what the call waited for."""
IDLE_S = 100e-6
"""A thread without calls and operators for longer may have waited for another one."""
HANDOFF_S = 500e-6
"""A thread that another one woke goes on within this time."""
GAP_S = 20e-6
"""A GPU activity that begins so much later than it could have was waiting for another stream."""
QUEUE = 500
"""A launch waits for room only where so many are queued; drivers have room for about a thousand."""
_ROUNDING_S = 1e-12

_SYNCHRONIZES = re.compile(r"synchronize|^cuda_?free$|^hip_?free$", re.IGNORECASE)
_ALL_STREAMS = re.compile(r"(device|ctx|context)synchronize", re.IGNORECASE)
_LAUNCHES = re.compile(r"launch|memcpy|memset", re.IGNORECASE)
_WAITS_FOR_EVENT = re.compile(r"streamwaitevent", re.IGNORECASE)
_ASYNCHRONOUS = re.compile(r"async", re.IGNORECASE)


@dataclass(slots=True)
class Step:
    """Work of one kind on a stream or thread, of so many seconds; it waits for the steps that `after` names."""

    stream: str
    kind: str
    seconds: float
    after: list[int]
    work: bool = True
    """Whether it is work that the trace shows; else it is time that passes."""
    waits_busily: bool = False
    """Whether it ends a call that waited: until then, the thread is busy."""
    bytes: float = 0.0
    memory: str = ""
    """Of copies: bytes, and kind of host memory."""


@dataclass(frozen=True, slots=True)
class Program:
    """Steps, each after those that it waits for, and what the trace says of them."""

    steps: list[Step]
    original_s: float
    busy_s: dict[str, float]
    """Stream or thread -> its busy time in the trace."""


class _Draft(NamedTuple):
    """A step at the time that it had in the trace; `after` are keys of others."""

    at: float
    key: object
    step: Step
    after: list[object]


@dataclass(slots=True)
class _Stream:
    """The GPU activities of a stream in their order."""

    name: str
    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    kinds: np.ndarray
    calls: np.ndarray
    launched: np.ndarray = field(default_factory=lambda: np.empty(0))
    """When each was launched, never decreasing; -inf where the trace does not show it."""

    def last_launched(self, by_s: float) -> int:
        """The position of the last activity that was launched by then; -1 if none was."""
        return int(np.searchsorted(self.launched, by_s, side="right")) - 1


class _Mark(NamedTuple):
    """What interrupts a thread's own time: at `at` it launches, or it waits from `at` until the keys end at `until`."""

    at: float
    launches: int = NONE
    until: float = 0.0
    keys: tuple[object, ...] = ()
    in_call: bool = False


class _Sync(NamedTuple):
    """A wait that the trace describes."""

    row: int
    launched_by: int
    device: int
    stream: str
    waits_on: int
    waits_record: int


def program_of(trace: Trace) -> Program:
    """Rebuild the program; InputError where a trace has nothing to replay."""
    events = trace.events
    adam = _cpu_adam(events)
    shown = events["kind"].isin([*GPU_KINDS, "runtime", "cpu_op"]) | adam
    if not shown.any():
        problem = "found neither GPU activities nor calls nor operators, expected a trace with something to replay"
        raise InputError(problem, str(trace.path))
    events = events.assign(cpu_adam=adam)[shown]
    origin = float(events["start_s"].min())
    events = events.assign(start_s=events["start_s"] - origin, end_s=events["end_s"] - origin)
    drafts: list[_Draft] = []
    busy: dict[str, float] = {}
    several = events["rank"].nunique() > 1
    for rank, rows in events.groupby("rank"):
        part = _Rank(rows, trace.events, origin, f"rank {rank}, " if several else "")
        drafts += part.drafts()
        busy |= part.busy()
    return Program(_in_order(drafts), float(events["end_s"].max()), busy)


def _in_order(drafts: list[_Draft]) -> list[Step]:
    """Steps behind what they wait for, else by their time in the trace."""
    position = {draft.key: i for i, draft in enumerate(drafts)}
    following: list[list[int]] = [[] for _ in drafts]
    pending = [0] * len(drafts)
    last: dict[str, int] = {}
    for i, draft in enumerate(drafts):
        before = [position[key] for key in draft.after if key in position]
        if draft.step.stream in last:
            before.append(last[draft.step.stream])
        last[draft.step.stream] = i
        pending[i] = len(before)
        for other in before:
            following[other].append(i)
    steps: list[Step] = []
    number: dict[object, int] = {}
    ready = [(draft.at, i) for i, draft in enumerate(drafts) if pending[i] == 0]
    heapq.heapify(ready)
    while ready:
        _, i = heapq.heappop(ready)
        draft = drafts[i]
        draft.step.after = [number[key] for key in draft.after if key in number]
        number[draft.key] = len(steps)
        steps.append(draft.step)
        for other in following[i]:
            pending[other] -= 1
            if pending[other] == 0:
                heapq.heappush(ready, (drafts[other].at, other))
    # Where clocks that differ make steps wait for each other in a circle, those wait for their own stream only.
    left = sorted((draft.at, i) for i, draft in enumerate(drafts) if pending[i] > 0)
    for _, i in left:
        steps.append(drafts[i].step)
    return steps


def _cpu_adam(events: pd.DataFrame) -> pd.Series:
    """Which annotations and operators are an optimizer's step on the CPU: those in which nothing is launched."""
    names = [name for name in events["name"].cat.categories if ADAM_NAME.search(str(name))]
    found = events["kind"].isin(["annotation", "cpu_op"]) & events["name"].isin(names)
    launching = events[(events["kind"] == "runtime")]
    launching = launching[launching.index.isin(events.loc[events["kind"].isin(GPU_KINDS), "launched_by"])]
    for (rank, thread), rows in events[found].groupby(["rank", "stream"], observed=True):
        calls = launching[(launching["rank"] == rank) & (launching["stream"] == thread)]["start_s"].to_numpy()
        inside = np.searchsorted(calls, rows["end_s"].to_numpy()) > np.searchsorted(calls, rows["start_s"].to_numpy())
        found.loc[rows.index[inside]] = False
    return found


class _Rank:
    """The streams and threads of one process."""

    def __init__(self, events: pd.DataFrame, whole: pd.DataFrame, origin_s: float, prefix: str) -> None:
        self.events = events
        self.prefix = prefix
        self.start = whole["start_s"].to_numpy() - origin_s
        self.end = whole["end_s"].to_numpy() - origin_s
        self.names = whole["name"].astype(str).to_numpy(dtype=object)
        self.bytes = dict(zip(events.index.tolist(), events["bytes"].tolist(), strict=True))
        self.memory = dict(zip(events.index.tolist(), events["memory"].tolist(), strict=True))
        self.calls = events[events["kind"] == "runtime"]
        self.syncs = whole[(whole["kind"] == "sync") & (whole["rank"] == events["rank"].iloc[0])]
        self.streams = self._gpu_streams()
        numbered = self.calls.drop_duplicates("correlation")
        self.recorded = dict(zip(numbered["correlation"].tolist(), numbered["start_s"].tolist(), strict=True))
        """Correlation of a call -> its beginning."""
        self.split: dict[int, float] = {}
        """Copies that are two steps, and where: a thread waited for the first."""
        self.by_name = {stream.name: stream for stream in self.streams}

    def busy(self) -> dict[str, float]:
        """Busy seconds of each stream and thread."""
        groups = self.events.groupby("stream", observed=True)
        return {self.prefix + str(name): length(union(rows)) for name, rows in groups}

    def drafts(self) -> list[_Draft]:
        """The steps of all streams and threads."""
        threads = self.events[~self.events["kind"].isin(GPU_KINDS)]
        marks: dict[str, list[_Mark]] = {str(name): [] for name in threads["stream"].unique()}
        self._launch(marks)
        self._launch_beyond(marks)
        self._synchronize(marks)
        handoffs = self._handoffs(threads)
        for thread, found in handoffs.items():
            marks[thread] += found
        breaks = {(key[1], key[2]) for found in handoffs.values() for mark in found for key in mark.keys}  # type: ignore[index]
        for thread, at in breaks:
            marks[thread].append(_Mark(at))
        drafts = [draft for stream in self.streams for draft in self._stream_drafts(stream)]
        for name, rows in threads.groupby("stream", observed=True):
            drafts += self._thread_drafts(str(name), rows, marks[str(name)])
        return drafts

    def _gpu_streams(self) -> list[_Stream]:
        rows = self.events[self.events["kind"].isin(GPU_KINDS)]
        kinds = pd.Series(gpu_classes(rows), index=rows.index)
        streams = []
        for name, group in rows.groupby("stream", observed=True):
            ends = np.maximum.accumulate(group["end_s"].to_numpy())
            # Activities of a stream that overlap (branches of a graph) are one after another here, as long in all.
            starts = np.maximum(group["start_s"].to_numpy(), np.concatenate([[-np.inf], ends[:-1]]))
            calls = group["launched_by"].to_numpy()
            stream = _Stream(str(name), group.index.to_numpy(), starts, ends, kinds[group.index].to_numpy(), calls)
            known = np.where(calls == NONE, -np.inf, np.clip(starts, self.start[calls], self.end[calls]))
            stream.launched = np.maximum.accumulate(known)
            streams.append(stream)
        return streams

    def _launch(self, marks: dict[str, list[_Mark]]) -> None:
        threads = dict(zip(self.calls.index.tolist(), self.calls["stream"].astype(str), strict=True))
        for stream in self.streams:
            for i, call in enumerate(stream.calls.tolist()):
                if call not in threads:
                    continue
                row, start, end = int(stream.rows[i]), float(stream.starts[i]), float(self.end[call])
                at = min(max(start, float(self.start[call])), end)
                mine = marks[threads[call]]
                if start >= end:
                    mine += self._queue_full(stream, i, call)
                mine.append(_Mark(at, launches=row))
                blocks = not _ASYNCHRONOUS.search(self.names[call]) or self.memory[row] in ("pageable", "")
                if stream.kinds[i] in ("h2d", "d2h", "h2h") and blocks and start < end:
                    # A pageable copy may end after its call, which returns when all is in the driver's own buffers.
                    if stream.ends[i] > end:
                        self.split[row] = end
                    key = ("head", row) if row in self.split else row
                    mine.append(_Mark(at, until=min(float(stream.ends[i]), end), keys=(key,), in_call=True))

    def _launch_beyond(self, marks: dict[str, list[_Mark]]) -> None:
        """Launches of what ran after the recording ended: they too wait where the queue is full."""
        by_thread = {mark.launches: thread for thread, found in marks.items() for mark in found}
        usual = {by_thread[int(s.rows[-1])]: s for s in self.streams if int(s.rows[-1]) in by_thread}
        launching = set(self.events["launched_by"].tolist())
        count = dict.fromkeys(usual, 0)
        for call, thread in zip(self.calls.index.tolist(), self.calls["stream"].astype(str), strict=True):
            stream = usual.get(thread)
            if stream is None or call in launching or not _LAUNCHES.search(self.names[call]):
                continue
            if self.start[call] >= stream.launched[-1]:
                marks[thread] += self._queue_full(stream, len(stream.rows) + count[thread], call)
                count[thread] += 1

    def _queue_full(self, stream: _Stream, i: int, call: int) -> list[_Mark]:
        """A launch that took long and ended as the GPU ended one of hundreds before: the queue was full until then."""
        start, end = float(self.start[call]), float(self.end[call])
        if end - start < TAIL_S:
            return []
        j = int(np.searchsorted(stream.ends, end, side="right")) - 1
        if j < 0 or i - j < QUEUE or stream.ends[j] < max(start, end - TAIL_S):
            return []
        return [_Mark(start, until=float(stream.ends[j]), keys=(int(stream.rows[j]),), in_call=True)]

    def _synchronize(self, marks: dict[str, list[_Mark]]) -> None:
        shown = {sync.launched_by: sync for sync in self._described(self.syncs)}
        for call, thread in zip(self.calls.index.tolist(), self.calls["stream"].astype(str), strict=True):
            if not _SYNCHRONIZES.search(self.names[call]):
                continue
            start, end = self.start[call], self.end[call]
            awaited: list[tuple[_Stream, int]] = []
            if _ALL_STREAMS.search(self.names[call]):
                awaited = [(stream, stream.last_launched(start)) for stream in self.streams]
            elif call in shown:
                awaited = self._awaited(shown[call], start)
            awaited = [(stream, i) for stream, i in awaited if i >= 0 and stream.ends[i] <= end + SKEW_S]
            awaited = awaited or self._ended_with(start, end)
            if awaited:
                until = min(max(stream.ends[i] for stream, i in awaited), end)
                keys = tuple(int(stream.rows[i]) for stream, i in awaited)
                marks[thread].append(_Mark(start, until=until, keys=keys, in_call=True))

    def _described(self, rows: pd.DataFrame) -> Iterator[_Sync]:
        columns = (rows[name].tolist() for name in _Sync._fields[1:])
        return (_Sync(*cells) for cells in zip(rows.index.tolist(), *columns, strict=True))

    def _awaited(self, sync: _Sync, at: float) -> list[tuple[_Stream, int]]:
        """What a synchronization that the trace describes waits for: an event, or a whole stream."""
        by, stream = at, self.by_name.get(sync.stream)
        if sync.waits_on != NONE:
            stream = self.by_name.get(f"GPU {sync.device} stream {sync.waits_on}")
        if sync.waits_record != NONE:
            by = self.recorded.get(sync.waits_record, at)
        return [] if stream is None else [(stream, stream.last_launched(by))]

    def _ended_with(self, start: float, end: float) -> list[tuple[_Stream, int]]:
        """The activity with the end of which a call ended that the trace says no more of."""
        found: tuple[float, _Stream, int] | None = None
        for stream in self.streams:
            i = int(np.searchsorted(stream.ends, end + SKEW_S, side="right")) - 1
            if i < 0 or stream.launched[i] > start or stream.ends[i] < max(start, end - TAIL_S):
                continue
            if found is None or stream.ends[i] > found[0]:
                found = stream.ends[i], stream, i
        return [] if found is None else [found[1:]]

    def _handoffs(self, threads: pd.DataFrame) -> dict[str, list[_Mark]]:
        """Where threads waited for threads: idle until just after the other one went idle."""
        # Threads that only ask, again and again, whether events are over neither wait for others nor wake them.
        launching = set(self.calls["stream"][self.calls.index.isin(self.events["launched_by"])].astype(str))
        working = launching | set(threads["stream"][threads["kind"] == "cpu_op"].astype(str))
        bursts: dict[str, Spans] = {}
        for name, rows in threads.groupby("stream", observed=True):
            if str(name) in working:
                starts, ends = merged(rows["start_s"].to_numpy(), rows["end_s"].to_numpy() + IDLE_S)
                bursts[str(name)] = starts, ends - IDLE_S
        marks: dict[str, list[_Mark]] = {}
        for name, (starts, ends) in bursts.items():
            idle_from = np.concatenate([[0.0], ends[:-1]])
            latest = np.full(len(starts), -np.inf)
            other = np.full(len(starts), "", dtype=object)
            for candidate, (_, gone) in bursts.items():
                if candidate != name:
                    i = np.searchsorted(gone, starts, side="right") - 1
                    at = np.where(i >= 0, gone[np.maximum(i, 0)], -np.inf)
                    later = at > latest
                    latest[later], other[later] = at[later], candidate
            waited = (latest >= idle_from) & (starts - latest <= HANDOFF_S)
            found = zip(idle_from[waited], latest[waited], other[waited], strict=True)
            marks[name] = [_Mark(float(a), until=float(b), keys=(("thread", w, float(b)),)) for a, b, w in found]
        return marks

    def _draft(self, at: float, key: object, step: Step, after: list[object]) -> _Draft:
        step.stream = step.stream if step.stream.startswith("+") else self.prefix + step.stream
        return _Draft(at, (self.prefix, key), step, [(self.prefix, other) for other in after])

    def _stream_drafts(self, stream: _Stream) -> list[_Draft]:
        waits = self._stream_waits(stream)
        drafts: list[_Draft] = []
        for i, row in enumerate(stream.rows.tolist()):
            start = stream.starts[i]
            before = stream.ends[i - 1] if i else 0.0
            after: list[object] = [("launch", row)] if stream.calls[i] != NONE else []
            released: list[tuple[float, list[object]]] = [(before, [])]
            if after and stream.launched[i] > -np.inf:
                released.append((min(stream.launched[i], start), after))
            for other, j in waits.get(i, ()):
                released.append((min(other.ends[j], start), [int(other.rows[j])]))
                after = [*after, int(other.rows[j])]
            at, cause = max(released, key=lambda release: release[0])
            if start > at:
                # Time that passes after what the activity waited for last: on the stream itself, or beside it.
                lane = f"+{self.prefix}{row}" if cause else stream.name
                drafts.append(
                    self._draft(at, ("delay", row), Step(lane, "latency", float(start - at), [], work=False), cause)
                )
                after = [*after, ("delay", row)]
            parts = [("head", row), row] if row in self.split else [row]
            bounds = [start, self.split[row], stream.ends[i]] if row in self.split else [start, stream.ends[i]]
            whole = float(stream.ends[i] - start)
            for key, began, ended in zip(parts, bounds, bounds[1:], strict=False):
                step = Step(stream.name, str(stream.kinds[i]), float(ended - began), [], memory=self.memory[row])
                step.bytes = self.bytes[row] * (step.seconds / whole if whole > 0 else 1.0)
                drafts.append(self._draft(began, key, step, after if began == start else []))
        return drafts

    def _stream_waits(self, stream: _Stream) -> dict[int, list[tuple[_Stream, int]]]:
        """Position -> activities of other streams that it waits for."""
        found: dict[int, list[tuple[_Stream, int]]] = {}
        described = self.syncs[(self.syncs["stream"] == stream.name) & (self.syncs["waits_on"] != NONE)]
        for sync in self._described(described[described["name"] == "Stream Wait Event"]):
            asked = self.start[sync.launched_by if sync.launched_by != NONE else sync.row]
            i = int(np.searchsorted(stream.launched, asked))
            for other, j in self._awaited(sync, asked):
                if i < len(stream.rows) and j >= 0 and other.ends[j] <= stream.starts[i] + SKEW_S:
                    found.setdefault(i, []).append((other, j))
        asked_at = np.array(
            [self.start[call] for call in self.calls.index if _WAITS_FOR_EVENT.search(self.names[call])]
        )
        before = np.concatenate([[0.0], stream.ends[:-1]])
        late = stream.starts - np.maximum(before, stream.launched) > GAP_S
        for i in np.flatnonzero(late & (stream.launched > -np.inf)).tolist():
            since = stream.launched[i - 1] if i else -np.inf
            if i in found or np.searchsorted(asked_at, stream.launched[i]) == np.searchsorted(asked_at, since):
                continue
            start = stream.starts[i]
            for other in self.streams:
                j = int(np.searchsorted(other.ends, start, side="right")) - 1
                if other is not stream and j >= 0 and other.ends[j] >= start - GAP_S:
                    found.setdefault(i, []).append((other, j))
        return found

    def _thread_drafts(self, thread: str, rows: pd.DataFrame, marks: list[_Mark]) -> list[_Draft]:
        adam = union(rows[rows["cpu_adam"]])
        own = without(union(rows), adam)
        first, last = float(rows["start_s"].min()), float(rows["end_s"].max())
        drafts: list[_Draft] = []
        done = 0.0

        def draft(at: float, key: object, step: Step, after: list[object]) -> None:
            drafts.append(self._draft(at, key, step, after))

        def pass_time(until: float) -> None:
            nonlocal done
            if until <= done:
                return
            here = np.array([done]), np.array([until])
            kinds = {"cpu_adam": length(intersection(here, adam)), "cpu": length(intersection(here, own))}
            beginning = max(min(first, until) - done, 0.0)
            kinds |= {"wait": beginning, "gap": until - done - beginning - sum(kinds.values())}
            for kind, seconds in kinds.items():
                if seconds > _ROUNDING_S:
                    step = Step(thread, kind, float(seconds), [], work=kind.startswith("cpu"))
                    draft(done, ("time", thread, done, kind), step, [])
            done = until

        for mark in sorted(marks, key=lambda mark: (mark.at, mark.until)):
            pass_time(mark.at)
            if mark.keys:
                step = Step(thread, "wait", 0.0, [], work=False, waits_busily=mark.in_call)
                draft(max(done, mark.until), ("wait", thread, mark.at, mark.keys), step, list(mark.keys))
                done = max(done, mark.until)
            else:
                key = ("launch", mark.launches) if mark.launches != NONE else ("thread", thread, mark.at)
                draft(done, key, Step(thread, "wait", 0.0, [], work=False), [])
        pass_time(last)
        return drafts
