"""The steps of host threads: their own time, what they launch, and what they wait for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from offsim.traces.events import GPU_KINDS
from offsim.traces.replay.process import SKEW_S, TAIL_S, GpuStream, Key, Process, Step
from offsim.traces.spans import Spans, intersection, length, union, without

IDLE_S = 100e-6
"""A thread without calls and operators for longer may have waited for another one."""
HANDOFF_S = 500e-6
"""A thread that another one woke goes on within this time."""
QUEUE = 500
"""A launch waits for room only where so many are queued; drivers have room for about a thousand."""
_ROUNDING_S = 1e-12

_SYNCHRONIZES = re.compile(r"synchronize|^cuda_?free$|^hip_?free$", re.IGNORECASE)
_ALL_STREAMS = re.compile(r"(device|ctx|context)synchronize", re.IGNORECASE)
_LAUNCHES = re.compile(r"launch|memcpy|memset", re.IGNORECASE)
_ASYNCHRONOUS = re.compile(r"async", re.IGNORECASE)


class Interruption(NamedTuple):
    """Where a thread's own time stops: `key` happens, or it waits from `at` until the steps `until` end, at `end`."""

    at: float
    key: Key = None
    end: float = 0.0
    until: tuple[Key, ...] = ()
    in_call: bool = False


Interruptions = dict[str, list[Interruption]]
"""By thread."""


def interruptions(process: Process) -> tuple[Interruptions, dict[int, float]]:
    """All interruptions, and the copies (row -> time) that a thread waited for no longer than until then."""
    threads = process.events[~process.events["kind"].isin(GPU_KINDS)]
    found: Interruptions = {str(name): [] for name in threads["stream"].unique()}
    blocked_until = _launches(process, found)
    _launches_after_recording(process, found)
    _synchronizations(process, found)
    stops: set[tuple[str, float]] = set()
    for thread, since, waker, until in _handoffs(threads, _working(process, threads)):
        found[thread].append(Interruption(since, None, until, (("idle", waker, until),)))
        stops.add((waker, until))
    for waker, at in sorted(stops):
        found[waker].append(Interruption(at, ("idle", waker, at)))
    return found, blocked_until


def _launches(process: Process, found: Interruptions) -> dict[int, float]:
    """Add what each call launches, and what it waits for; return until when copies blocked that went on after that."""
    blocked_until: dict[int, float] = {}
    for stream in process.streams:
        for i, call in enumerate(stream.calls.tolist()):
            if call not in process.thread_of:
                continue
            row, start, end = int(stream.rows[i]), float(stream.starts[i]), float(process.end[call])
            at = min(max(start, float(process.start[call])), end)
            own = found[process.thread_of[call]]
            if start >= end:
                own += _queue_full(process, stream, i, call)
            own.append(Interruption(at, ("launch", row)))
            blocks = not _ASYNCHRONOUS.search(process.names[call]) or process.memory[row] in ("pageable", "")
            if stream.kinds[i] in ("h2d", "d2h", "h2h") and blocks and start < end:
                key: Key = row
                # A pageable copy may end after its call, which returns when all is in the driver's own buffers.
                if stream.ends[i] > end:
                    blocked_until[row], key = end, ("head", row)
                own.append(Interruption(at, None, min(float(stream.ends[i]), end), (key,), in_call=True))
    return blocked_until


def _launches_after_recording(process: Process, found: Interruptions) -> None:
    """Add launches of what ran after the recording ended: they too wait where the queue is full."""
    of_last = ((process.thread_of.get(int(stream.calls[-1])), stream) for stream in process.streams)
    by_last = {thread: stream for thread, stream in of_last if thread is not None}
    count = dict.fromkeys(by_last, 0)
    for call, thread in process.thread_of.items():
        stream = by_last.get(thread)
        if stream is None or call in process.launching or not _LAUNCHES.search(process.names[call]):
            continue
        if process.start[call] >= stream.launched[-1]:
            found[thread] += _queue_full(process, stream, len(stream.rows) + count[thread], call)
            count[thread] += 1


def _queue_full(process: Process, stream: GpuStream, i: int, call: int) -> list[Interruption]:
    """A launch that took long and ended as the GPU ended one of hundreds before: the queue was full until then."""
    start, end = float(process.start[call]), float(process.end[call])
    if end - start < TAIL_S:
        return []
    j = stream.last_ended(end)
    if j < 0 or i - j < QUEUE or stream.ends[j] < max(start, end - TAIL_S):
        return []
    return [Interruption(start, None, float(stream.ends[j]), (int(stream.rows[j]),), in_call=True)]


def _synchronizations(process: Process, found: Interruptions) -> None:
    """Add the calls that wait for GPU activities."""
    described = {sync.launched_by: sync for sync in process.syncs.itertuples()}
    for call, thread in process.thread_of.items():
        name, start, end = process.names[call], float(process.start[call]), float(process.end[call])
        if not _SYNCHRONIZES.search(name):
            continue
        awaited = []
        if _ALL_STREAMS.search(name):
            awaited = [(stream, stream.last_launched(start)) for stream in process.streams]
        elif call in described:
            awaited = process.awaited(described[call], start)
        awaited = [(stream, i) for stream, i in awaited if i >= 0 and stream.ends[i] <= end + SKEW_S]
        awaited = awaited or process.ended_with(start, end)
        if awaited:
            until = float(min(max(stream.ends[i] for stream, i in awaited), end))
            keys = tuple(int(stream.rows[i]) for stream, i in awaited)
            found[thread].append(Interruption(start, None, until, keys, in_call=True))


def _working(process: Process, threads: pd.DataFrame) -> set[str]:
    """Threads that launch or run operators: others only ask whether events are over, and wake nobody."""
    launching = process.calls["stream"][process.calls.index.isin(process.launching)]
    return {*launching.astype(str), *threads["stream"][threads["kind"] == "cpu_op"].astype(str)}


def _handoffs(threads: pd.DataFrame, working: set[str]) -> Iterator[tuple[str, float, str, float]]:
    """Where threads waited for threads: idle from a time until, just before, the other one went idle."""
    bursts: dict[str, Spans] = {
        str(name): union(rows, IDLE_S)
        for name, rows in threads.groupby("stream", observed=True)
        if str(name) in working
    }
    for name, (starts, ends) in bursts.items():
        idle_from = np.concatenate([[0.0], ends[:-1]])
        latest = np.full(len(starts), -np.inf)
        waker = np.full(len(starts), "", dtype=object)
        for candidate, (_, gone) in bursts.items():
            if candidate != name:
                before = np.searchsorted(gone, starts, side="right") - 1
                at = np.where(before >= 0, gone[np.maximum(before, 0)], -np.inf)
                later = at > latest
                latest[later], waker[later] = at[later], candidate
        for i in np.flatnonzero((latest >= idle_from) & (starts - latest <= HANDOFF_S)).tolist():
            yield name, float(idle_from[i]), str(waker[i]), float(latest[i])


def thread_steps(process: Process, found: Interruptions) -> Iterator[Step]:
    """The steps of all threads."""
    threads = process.events[~process.events["kind"].isin(GPU_KINDS)]
    for name, rows in threads.groupby("stream", observed=True):
        yield from _thread_steps(str(name), rows, found[str(name)])


def _thread_steps(thread: str, rows: pd.DataFrame, found: list[Interruption]) -> Iterator[Step]:
    adam = union(rows[rows["cpu_adam"]])
    own = without(union(rows), adam)
    first, last = float(rows["start_s"].min()), float(rows["end_s"].max())

    def time_between(start: float, end: float) -> Iterator[Step]:
        """The thread's own time by kind: before its first call or operator it waits."""
        here = np.array([start]), np.array([end])
        seconds = {"cpu_adam": length(intersection(here, adam)), "cpu": length(intersection(here, own))}
        seconds["wait"] = max(min(first, end) - start, 0.0)
        seconds["gap"] = end - start - sum(seconds.values())
        for kind, took in seconds.items():
            if took > _ROUNDING_S:
                key = ("time", thread, start, kind)
                yield Step(key, start, thread, kind, float(took), work=kind in ("cpu", "cpu_adam"))

    done = 0.0
    for mark in sorted(found, key=lambda mark: (mark.at, mark.end)):
        if mark.at > done:
            yield from time_between(done, mark.at)
            done = mark.at
        if mark.until:
            done = max(done, mark.end)
            key = ("wait", thread, mark.at, mark.until)
            yield Step(key, done, thread, "wait", 0.0, list(mark.until), waits_busily=mark.in_call)
        else:
            yield Step(mark.key, done, thread, "wait", 0.0)
    if last > done:
        yield from time_between(done, last)
