"""The engine's rules over arrays: what a tape's threads command, run with the numbers of one machine.

It does at each instant what `offsim.engine` does, in the same order and by the same arithmetic, so that both give the
same times; `engine.py`, `server.py`, `sharing.py` and `tier.py` say why. `compiled.py` has numba compile it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from offsim.engine.sharing import TOLERANCE
from offsim.engine.tier import ROUNDING
from offsim.tape.records import (
    ALLOCATE,
    AWAIT,
    BEGIN,
    CUT_OFF,
    END,
    ENQUEUE,
    FREE,
    FREED_TOO_MUCH,
    LOG_FULL,
    MARK,
    NO_MEMORY,
    PAUSE,
    RAN,
    SPAWN,
    STOP_IF_OVER,
    UNFINISHED,
)
from offsim.tape.rows import (
    after,
    begins,
    boundaries,
    changed,
    changes,
    commands,
    edges,
    ends,
    gates,
    held,
    left,
    marks,
    meetings,
    needs,
    occupants,
    operations,
    ranks,
    resources,
    rows,
    since,
    slowdowns,
    streams,
    tasks,
    tiers,
    uses,
)
from offsim.tape.walk import spend

_compiled = njit(nogil=True)


@njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)  # type: ignore[call-overload,untyped-decorator]
def run(s: Any) -> None:
    """Run until nothing is left; ranks stop as the last one begins iteration `over_at`. Or walk paths."""
    if s.names:
        spend(s)
        return
    _go_on(s, 0)
    while s.status == RAN:
        first = ends(s, 0)
        if s.begun < s.begun_end:
            s.begun += 1
            _go_on(s, rows(s, s.begun - 1).begun)
        elif s.heap and first.at <= s.now and not (s.woken < s.woken_end and rows(s, s.woken).noted < first.noted):
            at, operation = first.at, first.operation
            _pop(s)
            if at == operations(s, operation).ends_at:
                _end(s, operation)
                _release(s, operation)
                _start(s)
        elif s.woken < s.woken_end:
            s.woken += 1
            _go_on(s, rows(s, s.woken - 1).woken)
        elif s.changing:
            _share(s)
        elif s.paused < s.paused_end:
            rows(s, 0).ready = rows(s, s.paused).paused
            s.ready = 1
            s.paused += 1
            _start(s)
        else:
            while s.heap and first.at != operations(s, first.operation).ends_at:
                _pop(s)
            if not s.heap:
                break
            s.now = first.at
    if s.status == RAN and not s.over:
        s.status = UNFINISHED


# Threads


@_compiled
def _go_on(s: Any, number: int) -> None:
    """Let a thread run until it waits."""
    task = tasks(s, number)
    if task.at < 0:
        if task.awaits < 0:
            if task.before >= 0 and operations(s, task.before).ended < 0.0:
                _await(s, number, task.before)
                return
            if task.issuer >= 0:
                streams(s, task.thread).last_ended = task.spawner_ended
        task.at = task.commands
    elif task.awaits >= 0:
        streams(s, task.thread).last_ended = task.awaits
    task.awaits = -1
    while s.status == RAN:
        what, which = commands(s, task.at).what, commands(s, task.at).which
        task.at += 1
        if what == ENQUEUE:
            _enqueue(s, which)
        elif what == AWAIT:
            if operations(s, which).ended < 0.0:
                _await(s, number, which)
                return
        elif what == SPAWN:
            begun = tasks(s, which)
            operations(s, begun.end).pending = 1
            begun.before = streams(s, begun.thread).end
            streams(s, begun.thread).end = begun.end
            if begun.issuer >= 0:
                begun.spawner_ended = streams(s, begun.issuer).last_ended
            rows(s, s.begun_end).begun = which
            s.begun_end += 1
        elif what == ALLOCATE:
            _allocate(s, which)
        elif what == FREE:
            _free(s, which)
        elif what == PAUSE:
            operations(s, which).waited_for = streams(s, task.thread).last_ended
            rows(s, s.paused_end).paused = which
            s.paused_end += 1
        elif what == MARK:
            marks(s, which).seconds = s.now
        elif what == BEGIN:
            _begin(s, which)
        elif what == STOP_IF_OVER:
            if s.over:
                return
        elif what == END:
            if task.end >= 0:
                end = operations(s, task.end)
                end.waited_for = streams(s, task.thread).last_ended
                end.pending = 0
                rows(s, 0).ready = task.end
                s.ready = 1
                _start(s)
            return
        else:
            s.status = CUT_OFF


@_compiled
def _await(s: Any, number: int, which: int) -> None:
    operation = operations(s, which)
    tasks(s, number).awaits = which
    tasks(s, number).next = -1
    if operation.waiters < 0:
        operation.waiters = number
    else:
        tasks(s, operation.last_waiter).next = number
    operation.last_waiter = number


@_compiled
def _begin(s: Any, which: int) -> None:
    """A rank begins an iteration; as the last one does, note the state that it finds."""
    rank, iteration = begins(s, which).rank, begins(s, which).iteration
    ranks(s, rank).iteration = iteration
    ranks(s, rank).since = s.now
    at = s.boundary
    if at >= iteration:
        return
    for other in range(s.ranks_count):
        if ranks(s, other).iteration < iteration:
            return
    s.boundary = at + 1
    boundaries(s, at).seconds = s.now
    count = s.operations_count - 1
    for number in range(count):
        operation = operations(s, number)
        if operation.index >= 0 and operation.ended < 0.0:
            running = operation.started >= 0.0
            unfinished = left(s, at * count + number)
            unfinished.seconds = operation.remaining
            if running:
                unfinished.seconds -= (s.now - operation.updated) * operation.fraction
    for occupant in range(s.occupants_count):
        held(s, at * s.occupants_count + occupant).nbytes = occupants(s, occupant).held
    for other in range(s.ranks_count):
        since(s, at * s.ranks_count + other).seconds = s.now - ranks(s, other).since
    if iteration == s.over_at:
        s.over = 1


# Operations


@_compiled
def _precede(s: Any, which: int, dependent: int) -> None:
    """Have an operation wait for the end of another one."""
    operation = operations(s, which)
    edge = s.edge
    s.edge += 1
    edges(s, edge).to = dependent
    edges(s, edge).next = -1
    if operation.dependents < 0:
        operation.dependents = edge
    else:
        edges(s, operation.last_dependent).next = edge
    operation.last_dependent = edge
    operations(s, dependent).pending += 1


@_compiled
def _enqueue(s: Any, which: int) -> None:
    operation = operations(s, which)
    stream = streams(s, operation.stream)
    operation.index = s.index
    s.index += 1
    operation.enqueued = s.now
    if stream.tail >= 0 and operations(s, stream.tail).ended < 0.0:
        _precede(s, stream.tail, which)
    for at in range(operation.after, operations(s, which + 1).after):
        before = after(s, at).number
        if before < 0:
            before = streams(s, -1 - before).tail
        if before >= 0 and operations(s, before).ended < 0.0:
            _precede(s, before, which)
    stream.tail = which
    if operation.pending == 0:
        if operation.thread >= 0:
            operation.waited_for = streams(s, operation.thread).last_ended
        _ready(s, which)
        _start(s)


@_compiled
def _queue(s: Any, which: int) -> None:
    """What may start."""
    rows(s, s.ready).ready = which
    s.ready += 1


@_compiled
def _ready(s: Any, which: int) -> None:
    """Queue what may start now that the operation is ready: itself, its whole collective, or nothing yet."""
    operation = operations(s, which)
    if operation.meeting < 0:
        if _admit(s, which):
            _queue(s, which)
        return
    meeting = meetings(s, operation.meeting)
    operation.next_met = -1
    if meeting.first < 0:
        meeting.first = which
    else:
        operations(s, meeting.last).next_met = which
    meeting.last = which
    meeting.arrived += 1
    if meeting.arrived < meeting.ranks:
        return
    peer = meeting.first
    meeting.first, meeting.arrived = -1, 0
    while peer >= 0:
        operations(s, peer).waited_for = operation.waited_for
        if _admit(s, peer):
            _queue(s, peer)
        peer = operations(s, peer).next_met


@_compiled
def _start(s: Any) -> None:
    """Start what is queued; what takes no time ends at once, and queues what it has held up."""
    at = 0
    while at < s.ready:
        which = rows(s, at).ready
        operation = operations(s, which)
        at += 1
        for change in range(operation.allocates, operations(s, which + 1).allocates):
            if _gate_of(s, change) < 0:
                _allocate(s, change)
        if operation.duration > 0.0:
            _work(s, which)
        else:
            operation.started = s.now
            operation.ended = s.now
            _release(s, which)
    s.ready = 0


@_compiled
def _release(s: Any, which: int) -> None:
    """Account for the end of an operation: queue what may start now, and wake threads."""
    operation, following = operations(s, which), operations(s, which + 1)
    streams(s, operation.stream).last_ended = which
    for need in range(operation.needs, following.needs):
        if gates(s, needs(s, need).gate).slack == 0.0:
            gates(s, needs(s, need).gate).busy -= 1.0
    for change in range(operation.frees, following.frees):
        _free(s, change)
        gate = _gate_of(s, change)
        if gate >= 0 and gates(s, gate).first >= 0:
            _admit_waiting(s, gate, which)
    for need in range(operation.needs, following.needs):
        gate = needs(s, need).gate
        if gates(s, gate).slack == 0.0 and gates(s, gate).first >= 0:
            _admit_waiting(s, gate, which)
    edge = operation.dependents
    while edge >= 0:
        dependent = operations(s, edges(s, edge).to)
        dependent.pending -= 1
        if dependent.pending == 0:
            dependent.waited_for = which
            _ready(s, edges(s, edge).to)
        edge = edges(s, edge).next
    task = operation.waiters
    while task >= 0:
        rows(s, s.woken_end).woken = task
        rows(s, s.woken_end).noted = s.noted
        s.woken_end += 1
        task = tasks(s, task).next
    operation.dependents = -1
    operation.waiters = -1


# Servers and tiers


@_compiled
def _admits(s: Any, first: int, last: int) -> bool:
    """Whether there is room at all gates for the operation, and nobody before it."""
    for number in range(first, last):
        need = needs(s, number)
        gate = gates(s, need.gate)
        if need.amount > gate.capacity:
            s.status = NO_MEMORY
        if gate.busy + need.amount > gate.capacity + gate.slack or (gate.first >= 0 and gate.first != number):
            return False
    return True


@_compiled
def _admit(s: Any, which: int) -> bool:
    """Take what it needs of all its gates if there is room, else wait for all of them."""
    operation, following = operations(s, which), operations(s, which + 1)
    first, last = operation.needs, following.needs
    if first == last:
        return True
    if not _admits(s, first, last):
        joins = False
        for number in range(first, last):
            if not needs(s, number).waits:
                joins = True
                _join(s, number)
        if not joins or not _admits(s, first, last):
            return False
    for number in range(first, last):
        gate = gates(s, needs(s, number).gate)
        if gate.first == number:
            gate.first = needs(s, number).next
            needs(s, number).waits = 0
        if gate.slack == 0.0:
            gate.busy += 1.0
    for change in range(operation.allocates, following.allocates):
        if _gate_of(s, change) >= 0:
            _allocate(s, change)
    return True


@_compiled
def _join(s: Any, number: int) -> None:
    """Stand in line at a gate: behind all of the same or a lower priority."""
    gate, priority = gates(s, needs(s, number).gate), operations(s, needs(s, number).operation).priority
    before, after = -1, gate.first
    if after >= 0 and operations(s, needs(s, gate.last).operation).priority <= priority:
        before, after = gate.last, -1
    while after >= 0 and operations(s, needs(s, after).operation).priority <= priority:
        before, after = after, needs(s, after).next
    needs(s, number).waits = 1
    needs(s, number).next = after
    if before < 0:
        gate.first = number
    else:
        needs(s, before).next = number
    if after < 0:
        gate.last = number


@_compiled
def _admit_waiting(s: Any, at_gate: int, ended: int) -> None:
    """Admit those who wait at a gate, and then at the other gates of those admitted."""
    rows(s, 0).gate = at_gate
    at, count = 0, 1
    while at < count:
        gate = rows(s, at).gate
        at += 1
        while gates(s, gate).first >= 0:
            which = needs(s, gates(s, gate).first).operation
            if not _admit(s, which):
                break
            operations(s, which).waited_for = ended
            _queue(s, which)
            for number in range(operations(s, which).needs, operations(s, which + 1).needs):
                if needs(s, number).gate != gate:
                    rows(s, count).gate = needs(s, number).gate
                    count += 1


@_compiled
def _gate_of(s: Any, change: int) -> int:
    """The gate of the tier that changes; -1 where nobody waits for that."""
    gate: int = tiers(s, occupants(s, changes(s, change).occupant).tier).gate
    return gate


@_compiled
def _allocate(s: Any, number: int) -> None:
    change = changes(s, number)
    tier = tiers(s, occupants(s, change.occupant).tier)
    if tier.gate < 0 and tier.used + change.nbytes > tier.capacity:
        s.status = NO_MEMORY
    else:
        _change(s, change.occupant, change.nbytes)


@_compiled
def _free(s: Any, number: int) -> None:
    change = changes(s, number)
    held = occupants(s, change.occupant).held
    if change.nbytes > held + ROUNDING:
        s.status = FREED_TOO_MUCH
    else:
        _change(s, change.occupant, -min(change.nbytes, held, tiers(s, occupants(s, change.occupant).tier).used))


@_compiled
def _change(s: Any, which: int, nbytes: float) -> None:
    occupant = occupants(s, which)
    tier, noted = tiers(s, occupant.tier), changed(s, s.change)
    occupant.held += nbytes
    tier.used += nbytes
    if tier.gate >= 0:
        gates(s, tier.gate).busy = tier.used
    s.change += 1
    noted.time = s.now
    noted.occupant = which
    noted.held = occupant.held
    noted.used = tier.used


# Sharing


@_compiled
def _work(s: Any, which: int) -> None:
    """Begin work."""
    operation = operations(s, which)
    operation.started = s.now
    operation.updated = s.now
    contended = False
    for number in range(operation.uses, operations(s, which + 1).uses):
        use = uses(s, number)
        resource = resources(s, use.resource)
        use.before = resource.last
        use.next = -1
        if resource.last < 0:
            resource.first = number
        else:
            uses(s, resource.last).next = number
        resource.last = number
        resource.running += 1
        resource.load += use.rate
        if resource.load > resource.limit:
            contended = True
            _has_changed(s, use.resource)
    if contended:
        operation.fraction = 0.0
    else:
        operation.ends_at = s.now + operation.remaining
        _note(s, which)


@_compiled
def _has_changed(s: Any, which: int) -> None:
    if not resources(s, which).changed:
        resources(s, which).changed = 1
        rows(s, s.changing).changed = which
        s.changing += 1


@_compiled
def _end(s: Any, which: int) -> None:
    """Account for the end of work."""
    operation = operations(s, which)
    operation.ends_at = np.inf
    operation.ended = s.now
    for number in range(operation.uses, operations(s, which + 1).uses):
        use = uses(s, number)
        resource = resources(s, use.resource)
        if use.before < 0:
            resource.first = use.next
        else:
            uses(s, use.before).next = use.next
        if use.next < 0:
            resource.last = use.before
        else:
            uses(s, use.next).before = use.before
        resource.running -= 1
        if resource.load > resource.limit:
            _has_changed(s, use.resource)
            load, peer = 0.0, resource.first
            while peer >= 0:
                load += uses(s, peer).rate
                peer = uses(s, peer).next
            resource.load = load
        elif resource.running:
            resource.load -= use.rate
        else:
            resource.load = 0.0


@_compiled
def _share(s: Any) -> None:
    """Recompute the fractions of all operations coupled to changed resources through contended ones."""
    count = contended = 0
    for at in range(s.changing):
        resources(s, rows(s, at).changed).changed = 0
        count = _reach(s, rows(s, at).changed, count)
    s.changing = 0
    at = 0
    while at < count:
        which = rows(s, at).reached
        at += 1
        for number in range(operations(s, which).uses, operations(s, which + 1).uses):
            resource = resources(s, uses(s, number).resource)
            if resource.load > resource.limit and not resource.contended:
                resource.contended = 1
                rows(s, contended).contended = uses(s, number).resource
                contended += 1
                count = _reach(s, uses(s, number).resource, count)
    if contended:
        first = rows(s, 0).contended
        for at in range(contended):
            other = resources(s, rows(s, at).contended)
            other.contended = 0
            if other.capacity / other.load < resources(s, first).capacity / resources(s, first).load:
                first = rows(s, at).contended
        bottleneck = resources(s, first)
        if contended == 1 or bottleneck.running == count:
            settled, use = 0, bottleneck.first
            while use >= 0:
                rows(s, settled).settled = uses(s, use).operation
                operations(s, uses(s, use).operation).unsettled = 0
                settled += 1
                use = uses(s, use).next
            _set_fraction(s, settled, bottleneck.capacity / bottleneck.load, first)
        else:
            _fill(s, contended)
    rest = 0
    for at in range(count):
        which = rows(s, at).reached
        if operations(s, which).unsettled:
            operations(s, which).unsettled = 0
            rows(s, rest).settled = which
            rest += 1
    if rest:
        _set_fraction(s, rest, 1.0, -1)


@_compiled
def _reach(s: Any, which: int, count: int) -> int:
    """Add the operations on a resource to those reached, without a fraction yet; returns how many these are now."""
    use = resources(s, which).first
    while use >= 0:
        operation = operations(s, uses(s, use).operation)
        if not operation.unsettled:
            operation.unsettled = 1
            rows(s, count).reached = uses(s, use).operation
            count += 1
        use = uses(s, use).next
    return count


@_compiled
def _fill(s: Any, contended: int) -> None:
    """Settle the operations that contended resources hold back: progressive filling."""
    for at in range(contended):
        resource = resources(s, rows(s, at).contended)
        resource.unsettled = resource.running
        resource.asked = resource.load
        resource.left = resource.capacity
    level = 0.0
    while contended:
        first = rows(s, 0).contended
        for at in range(1, contended):
            other = resources(s, rows(s, at).contended)
            if other.left / other.asked < resources(s, first).left / resources(s, first).asked:
                first = rows(s, at).contended
        level = max(level, resources(s, first).left / resources(s, first).asked)
        if level >= 1.0:
            break
        settled, use = 0, resources(s, first).first
        while use >= 0:
            which = uses(s, use).operation
            use = uses(s, use).next
            if not operations(s, which).unsettled:
                continue
            operations(s, which).unsettled = 0
            rows(s, settled).settled = which
            settled += 1
            for number in range(operations(s, which).uses, operations(s, which + 1).uses):
                resource = resources(s, uses(s, number).resource)
                resource.unsettled -= 1
                resource.asked -= uses(s, number).rate
                resource.left -= level * uses(s, number).rate
        _set_fraction(s, settled, level, first)
        kept = 0
        for at in range(contended):
            resource = resources(s, rows(s, at).contended)
            if resource.unsettled == 0:
                continue
            rows(s, kept).contended = rows(s, at).contended
            kept += 1
            if resource.asked < TOLERANCE * resource.load:
                resource.asked = 0.0
                use = resource.first
                while use >= 0:
                    if operations(s, uses(s, use).operation).unsettled:
                        resource.asked += uses(s, use).rate
                    use = uses(s, use).next
        contended = kept


@_compiled
def _set_fraction(s: Any, count: int, fraction: float, bottleneck: int) -> None:
    """Note the ends at full speed of those settled, but of those behind a bottleneck only the next."""
    earliest, first = np.inf, 0
    for at in range(count):
        which = rows(s, at).settled
        operation = operations(s, which)
        if fraction != operation.fraction:
            operation.remaining -= (s.now - operation.updated) * operation.fraction
            operation.updated = s.now
            operation.fraction = fraction
            if operation.slowed or bottleneck >= 0:
                if s.slowdown == s.slowdowns_count:
                    s.status = LOG_FULL
                    return
                slowdown = slowdowns(s, s.slowdown)
                slowdown.time = s.now
                slowdown.fraction = fraction
                slowdown.resource = bottleneck
                slowdown.before = operation.slowed
                s.slowdown += 1
                operation.slowed = s.slowdown
            operation.ends_at = s.now + max(operation.remaining, 0.0) / fraction
            if bottleneck < 0:
                _note(s, which)
        if operation.ends_at < earliest:
            earliest = operation.ends_at
            rows(s, 0).earliest = which
            first = 1
        elif operation.ends_at == earliest:
            rows(s, first).earliest = which
            first += 1
    if bottleneck >= 0:
        for at in range(first):
            _note(s, rows(s, at).earliest)


# The heap of ends


@_compiled
def _note(s: Any, which: int) -> None:
    """Add an operation's end to the heap, after those noted before at the same time."""
    s.noted += 1
    if s.heap == s.ends_count:
        _drop_void(s)
    if s.heap == s.ends_count:
        s.status = LOG_FULL
        return
    _push(s, operations(s, which).ends_at, s.noted, which)


@_compiled
def _put(s: Any, place: int, at: float, noted: int, which: int) -> None:
    end = ends(s, place)
    end.at = at
    end.noted = noted
    end.operation = which


@_compiled
def _comes_before(s: Any, place: int, at: float, noted: int) -> bool:
    end = ends(s, place)
    return bool(end.at < at or (end.at == at and end.noted < noted))


@_compiled
def _push(s: Any, at: float, noted: int, which: int) -> None:
    place = s.heap
    s.heap += 1
    while place and not _comes_before(s, (place - 1) >> 1, at, noted):
        parent = ends(s, (place - 1) >> 1)
        _put(s, place, parent.at, parent.noted, parent.operation)
        place = (place - 1) >> 1
    _put(s, place, at, noted, which)


@_compiled
def _pop(s: Any) -> None:
    """Drop the first end."""
    s.heap -= 1
    last, place = ends(s, s.heap), 0
    while True:
        child = 2 * place + 1
        if child + 1 < s.heap and _comes_before(s, child + 1, ends(s, child).at, ends(s, child).noted):
            child += 1
        if child >= s.heap or not _comes_before(s, child, last.at, last.noted):
            break
        moved = ends(s, child)
        _put(s, place, moved.at, moved.noted, moved.operation)
        place = child
    _put(s, place, last.at, last.noted, last.operation)


@_compiled
def _drop_void(s: Any) -> None:
    """Keep of a full heap the ends that still hold."""
    count, kept = s.heap, 0
    for at in range(count):
        end = ends(s, at)
        if end.at == operations(s, end.operation).ends_at:
            _put(s, kept, end.at, end.noted, end.operation)
            kept += 1
    s.heap = 0
    for at in range(kept):
        end = ends(s, at)
        _push(s, end.at, end.noted, end.operation)
