"""What the compiled loop works on: tables of records, and a state that says where they are.

Lists are linked: fields name the first, last and next member by its number, -1 for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ENQUEUE, AWAIT, SPAWN, ALLOCATE, FREE, PAUSE, MARK, BEGIN, STOP_IF_OVER, END, CUT = range(11)
"""What a thread's code does, one after another. `CUT` is where the tape ends before the code does."""
RAN, NO_MEMORY, CUT_OFF, FREED_TOO_MUCH, LOG_FULL, UNFINISHED = range(6)
"""How a run ends. All but the first are for the engine to tell."""


def _record(floats: str, whole: str) -> np.dtype[Any]:
    return np.dtype([(name, np.float64) for name in floats.split()] + [(name, np.int64) for name in whole.split()])


OPERATION = _record(
    "duration remaining fraction updated ends_at enqueued started ended",
    "stream thread priority meeting after uses needs allocates frees "
    "index waited_for pending dependents last_dependent waiters last_waiter slowed unsettled next_met",
)
"""`after`, `uses`, `needs`, `allocates` and `frees` are where its part of those tables begins; the next one's ends it.

`thread` is the one whose last wait explains when it starts.
"""
USE = _record("rate", "resource operation next before")
"""What an operation asks of a resource."""
NEED = _record("amount", "gate operation next waits")
"""What an operation needs to start: a slot of a server, or room in a tier that is waited for."""
CHANGE = _record("nbytes", "occupant")
RESOURCE = _record("capacity limit load asked left", "first last running unsettled changed contended")
GATE = _record("capacity busy slack", "first last")
"""A server, or a tier that is waited for: only that has slack, for bytes that are rounded."""
TIER = _record("capacity used", "gate")
OCCUPANT = _record("held", "tier")
MEETING = _record("", "ranks arrived first last")
TASK = _record("", "commands thread end before issuer at awaits spawner_ended next")
"""Code of a thread. The first one takes the memory that states hold from the start."""
COMMAND = _record("", "what which")
STREAM = _record("", "tail last_ended end")
"""`end` is of the code that a thread was given last."""
RANK = _record("since", "iteration")
BEGINNING = _record("", "rank iteration")
EDGE = _record("", "to next")
END_NOTED = _record("at", "noted operation")
ROW = _record("", "ready begun paused woken noted reached settled earliest changed contended gate")
"""Lists that grow and shrink, side by side."""
CHANGED = _record("time held used", "occupant")
SLOWDOWN = _record("time fraction", "resource before")
"""`before` is the one before of the same operation, whose last one is its `slowed`: counted from 1, 0 for none."""
ABOUT = _record("", "iteration rank phase host name")
"""What critical paths have to know of an operation: whether its stream is a host thread, what its time counts to."""
PHASE = _record("start end", "rank phase")
PART = _record("seconds", "name")
"""Of a critical path, what part of its time counts to."""
NUMBER, SECONDS, BYTES = _record("", "number"), _record("seconds", ""), _record("nbytes", "")
TABLES = {
    "operations": OPERATION,
    "after": NUMBER,
    "uses": USE,
    "needs": NEED,
    "changes": CHANGE,
    "resources": RESOURCE,
    "gates": GATE,
    "tiers": TIER,
    "occupants": OCCUPANT,
    "meetings": MEETING,
    "tasks": TASK,
    "commands": COMMAND,
    "streams": STREAM,
    "ranks": RANK,
    "begins": BEGINNING,
    "marks": SECONDS,
    "edges": EDGE,
    "ends": END_NOTED,
    "rows": ROW,
    "changed": CHANGED,
    "slowdowns": SLOWDOWN,
    "boundaries": SECONDS,
    "left": SECONDS,
    "held": BYTES,
    "since": SECONDS,
    "about": ABOUT,
    "phases": PHASE,
    "lost_to": NUMBER,
    "parts": PART,
    "spent": SECONDS,
}
"""What a tape commands, and what is going on.

`after` are operations, or -1 - stream for the last one there by then. `ends` is a heap of the next ends in the order in
which they were noted. Of each boundary, when the last rank begins an iteration, there are its time, what each operation
has `left` of its work alone (NaN where it has ended or is not enqueued), what occupants `held` and how long `since`
each rank began the iteration.

Where the state has `names`, so many, a run has ended, and the critical paths of `phases` are asked for: the seconds
`spent` in phases of one name on each of these names, -1 for none. `lost_to` are the names of resources.
"""
STATE = np.dtype(
    [("now", np.float64)]
    + [
        (name, np.int64)
        for name in (
            *("status", "over", "over_at", "index", "noted", "ready", "begun", "begun_end", "paused", "paused_end"),
            *("woken", "woken_end", "changing", "heap", "edge", "change", "slowdown", "boundary"),
            *("last", "names", "part"),
            *(f"{name}_{what}" for name in TABLES for what in ("at", "count")),
        )
    ]
)
"""Single numbers, and of each table where it is and how many records it has."""
