"""Critical paths over arrays: the rules of `offsim.results.limits` for the last run of a tape."""

from __future__ import annotations

from typing import Any

from numba import njit

from offsim.tape.rows import about, lost_to, operations, parts, phases, slowdowns, spent

_compiled = njit(nogil=True)


@_compiled
def spend(s: Any) -> None:
    """Add up what the time of paths counts to, in temporal order."""
    for number in range(s.phases_count):
        _walk(s, number)
        while s.part:
            s.part -= 1
            part = parts(s, s.part)
            total = spent(s, phases(s, number).phase * s.names + part.name)
            total.seconds = max(total.seconds, 0.0) + part.seconds


@_compiled
def _walk(s: Any, number: int) -> None:
    """Note the parts of a phase's path, backwards."""
    phase = phases(s, number)
    until, which = phase.end, _last_of(s, number)
    while until > phase.start:
        if which < 0:
            _part(s, 0, until - phase.start)
            return
        operation = operations(s, which)
        if operation.ended < until:
            begin = max(operation.ended, phase.start)
            _part(s, 0, until - begin)
            until = begin
        begin = max(operation.started, phase.start)
        if begin < until:
            _note_parts(s, which, begin, until)
            until = begin
        before = operation.waited_for
        if before < 0 or operations(s, before).ended < operation.started:
            before = _released(s, which)
        which = before


@_compiled
def _note_parts(s: Any, which: int, start: float, end: float) -> None:
    """Note what an operation's time from start to end counts to."""
    operation, name = operations(s, which), about(s, which).name
    until, at = operation.ended, operation.slowed
    while at:
        slowdown = slowdowns(s, at - 1)
        seconds = min(until, end) - max(slowdown.time, start)
        if seconds > 0.0:
            if slowdown.resource >= 0:
                _part(s, lost_to(s, slowdown.resource).number, (1.0 - slowdown.fraction) * seconds)
            _part(s, name, slowdown.fraction * seconds)
        until, at = slowdown.time, slowdown.before
    seconds = min(until, end) - max(operation.started, start)
    if seconds > 0.0:
        _part(s, name, seconds)


@_compiled
def _part(s: Any, name: int, seconds: float) -> None:
    parts(s, s.part).name = name
    parts(s, s.part).seconds = seconds
    s.part += 1


@_compiled
def _last_of(s: Any, number: int) -> int:
    """The operation with which a phase ends; -1 for none."""
    phase, found, best = phases(s, number), -1, (0.0, 0, -1)
    for which in range(s.operations_count - 1):
        ended = operations(s, which).ended
        if best[0] <= ended <= phase.end and _counts(s, which, phase.rank):
            ends_it = ended == phase.end and about(s, which).phase == phase.phase
            key = (ended, 1 + about(s, which).host if ends_it else 0, operations(s, which).index)
            if key > best:
                found, best = which, key
    return found


@_compiled
def _released(s: Any, number: int) -> int:
    """The last one that the rank of an operation finished before it; -1 for none."""
    operation, found, best = operations(s, number), -1, (0.0, 0, -1)
    for which in range(s.operations_count - 1):
        ended, index = operations(s, which).ended, operations(s, which).index
        earlier = best[0] <= ended <= operation.started and index < operation.index
        if earlier and _counts(s, which, about(s, number).rank):
            host = about(s, which).host
            key = (ended, host, -index if host else index)
            if key > best:
                found, best = which, key
    return found


@_compiled
def _counts(s: Any, which: int, rank: int) -> bool:
    """Whether it is an operation of the rank, in iterations up to the last measured, that has ended."""
    operation, known = operations(s, which), about(s, which)
    return bool(operation.index >= 0 and known.rank == rank and known.iteration <= s.last)
