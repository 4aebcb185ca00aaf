"""A tape as tables, to be run by the compiled loop with the numbers of one machine after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from offsim.engine import Operation, Rendezvous, Resource, Server, Stream, Tier
from offsim.engine.crowd import Change
from offsim.engine.sharing import TOLERANCE
from offsim.engine.tier import ROUNDING
from offsim.tape import compiled, records
from offsim.tape.records import CUT

if TYPE_CHECKING:
    from offsim.tape.paths import Paths
    from offsim.tape.tape import Tape


class Trace(NamedTuple):
    """What a run leaves: its state and tables, see `offsim.tape.records`."""

    state: Any
    tables: dict[str, Any]

    def per_boundary(self, name: str) -> Any:
        """A table with a part for each boundary: (boundary, its part's numbers)."""
        boundaries = len(self.tables["boundaries"])
        return self.tables[name].view(np.float64).reshape(boundaries, -1)


class Hardware(NamedTuple):
    """The numbers of one machine, in the order of the tables: seconds, amounts per second, bytes."""

    durations: Any
    rates: Any
    capacities: Any
    tiers: Any
    gates: Any


class Taped:
    """A tape as tables, of which the numbers of a machine are still missing: floats, or quantities."""

    def __init__(self, tape: Tape) -> None:
        operations = tape.all
        threads = [thread for task in tape.tasks if (thread := task.thread) is not None]
        after = [[each for each in behind if each is not None] for behind in tape.after]
        tails = [each for behind in after for each in behind if isinstance(each, Stream)]
        streams = _numbered([*(o.stream for o in operations), *threads, *tails])
        resources = _numbered([resource for o in operations for resource, _ in o.usage])
        servers = _numbered([server for o in operations for server in o.holds])
        tiers = _numbered(tape.tiers)
        pools = [tier for tier in tiers if tier.waits]
        gate_of = {tier: len(servers) + number for number, tier in enumerate(pools)}
        meetings: dict[Rendezvous, int] = _numbered([o.rendezvous for o in operations if o.rendezvous is not None])
        needs = [_needs(o, servers, gate_of) for o in operations]
        changes = [
            *tape.changes,
            *(c for o in operations for c in o.allocates),
            *(c for o in operations for c in o.frees),
        ]
        self.occupants = _numbered([(tier, occupant) for tier, occupant, _ in changes])
        commands = [task.commands + ([] if task.ended else [(CUT, 0)]) for task in tape.tasks]
        iterations = max((iteration for _, iteration in tape.begins), default=0)
        ranks = 1 + max((rank for rank, _ in tape.begins), default=0)
        numbered: dict[Any, int] = {None: -1, **streams}
        self.operations = operations
        self.bottlenecks: list[Resource | None] = [*resources, None]
        self.tiers: list[Tier] = list(tiers)
        self.numbers = Hardware(
            [o.duration for o in operations],
            [rate for o in operations for _, rate in o.usage],
            [resource.capacity for resource in resources],
            [tier.capacity for tier in tiers],
            [*(server.slots for server in servers), *(tier.capacity for tier in pools)],
        )
        """Floats, or quantities."""
        self.trace: Trace | None = None
        """The last run."""
        self._filled: Trace | None = None
        self.paths: Paths | None = None
        tape.taped = self
        count = len(operations)
        behind = [-1 - streams[x] if isinstance(x, Stream) else x.index for each in after for x in each]
        ops = _table(records.OPERATION, count + 1, -1)
        ops.fraction, ops.updated, ops.ends_at, ops.pending, ops.slowed, ops.unsettled = 1.0, 0.0, np.inf, 0, 0, 0
        ops.stream[:count] = [streams[o.stream] for o in operations]
        ops.thread[:count] = [numbered[thread] for thread in tape.threads]
        ops.priority[:count] = [o.priority for o in operations]
        ops.meeting[:count] = [-1 if o.rendezvous is None else meetings[o.rendezvous] for o in operations]
        ops.after = _from(after)
        ops.uses = _from([o.usage for o in operations])
        ops.needs = _from(needs)
        ops.allocates = _from([o.allocates for o in operations], len(tape.changes))
        ops.frees = _from([o.frees for o in operations], ops.allocates[-1])
        uses = _table(records.USE, ops.uses[-1])
        uses.resource = [resources[resource] for o in operations for resource, _ in o.usage]
        uses.operation = [o.index for o in operations for _ in o.usage]
        need = _table(records.NEED, ops.needs[-1])
        need.gate = [gate for each in needs for gate in each]
        need.operation = [number for number, each in enumerate(needs) for _ in each]
        need.amount = [float(amount) for each in needs for amount in each.values()]
        change = _table(records.CHANGE, len(changes))
        change.occupant = [self.occupants[tier, occupant] for tier, occupant, _ in changes]
        change.nbytes = [float(nbytes) for *_, nbytes in changes]
        resource = _table(records.RESOURCE, len(resources))
        resource.first = resource.last = -1
        gate = _table(records.GATE, len(servers) + len(pools))
        gate.first = gate.last = -1
        gate.slack[len(servers) :] = ROUNDING
        tier = _table(records.TIER, len(tiers))
        tier.gate = [gate_of.get(each, -1) for each in tiers]
        occupant = _table(records.OCCUPANT, len(self.occupants))
        occupant.tier = [tiers[each] for each, _ in self.occupants]
        meeting = _table(records.MEETING, len(meetings))
        meeting.ranks = [each.ranks for each in meetings]
        meeting.first = meeting.last = -1
        task = _table(records.TASK, len(tape.tasks), -1)
        task.commands = _from(commands)[:-1]
        task.thread = [numbered[each.thread] for each in tape.tasks]
        task.end = [each.end for each in tape.tasks]
        task.issuer = [numbered[each.issuer] for each in tape.tasks]
        command = _table(records.COMMAND, sum(map(len, commands)))
        command.what = [what for each in commands for what, _ in each]
        command.which = [which for each in commands for _, which in each]
        self._tables: dict[str, Any] = {
            "operations": ops,
            "after": _table(records.NUMBER, len(behind)),
            "uses": uses,
            "needs": need,
            "changes": change,
            "resources": resource,
            "gates": gate,
            "tiers": tier,
            "occupants": occupant,
            "meetings": meeting,
            "tasks": task,
            "commands": command,
            "streams": _table(records.STREAM, len(streams), -1),
            "ranks": _table(records.RANK, ranks),
            "begins": _table(records.BEGINNING, len(tape.begins)),
            "marks": np.full(tape.marks, -1.0).view(records.SECONDS),
            "edges": _table(records.EDGE, ops.after[-1] + count),
            "ends": _table(records.END_NOTED, 4 * count + 64),
            "rows": _table(records.ROW, len(command) + count + len(need) + len(resource) + len(tape.tasks)),
            "changed": _table(records.CHANGED, len(change)),
            "slowdowns": _table(records.SLOWDOWN, 8 * count + 1000),
            "boundaries": np.full(iterations, -1.0).view(records.SECONDS),
            "left": np.full(iterations * count, np.nan).view(records.SECONDS),
            "held": _table(records.BYTES, iterations * len(occupant)),
            "since": _table(records.SECONDS, iterations * ranks),
        }
        self._tables["after"]["number"] = behind
        self._tables["begins"][:] = tape.begins
        self._tables = {name: table.view(np.ndarray) for name, table in self._tables.items()}  # quicker to read
        words = [self._tables[name].view(np.int64) for name in _CHANGED]  # field by field takes far longer
        self._fresh = [(table, table.copy()) for table in words]
        self._start = self._state()

    def _state(self) -> Any:
        """The state before a run."""
        state = np.zeros(1, records.STATE)
        for name, table in self._tables.items():
            state[f"{name}_at"], state[f"{name}_count"] = table.ctypes.data, len(table)
        return state

    def run(self, hardware: Hardware, over_at: int) -> Trace:
        """Run it on one machine until the last rank begins iteration `over_at`.

        What it leaves is overwritten by the next run: new tables would cost more than that.
        """
        tables = self._tables
        for table, fresh in self._fresh:
            table[:] = fresh
        operations, resources = tables["operations"], tables["resources"]
        operations["duration"][:-1] = operations["remaining"][:-1] = hardware.durations
        tables["uses"]["rate"] = hardware.rates
        resources["capacity"] = hardware.capacities
        resources["limit"] = hardware.capacities * (1.0 + TOLERANCE)
        tables["tiers"]["capacity"] = hardware.tiers
        tables["gates"]["capacity"] = hardware.gates
        state = self._start.copy()
        state["over_at"] = over_at
        compiled.run(state)
        if state["status"][0] == records.LOG_FULL:
            for name in ("slowdowns", "ends"):
                tables[name] = np.zeros(4 * len(tables[name]), records.TABLES[name])
            self._start = self._state()
            return self.run(hardware, over_at)
        return Trace(state[0], tables)

    def filled(self) -> list[Operation]:
        """The operations of the last run in the order in which they were enqueued, with their times."""
        if self._filled is not self.trace:
            self._filled = self.trace
            self._fill()
        return self._enqueued

    def _fill(self) -> None:
        assert self.trace is not None
        run = self.trace.tables["operations"][:-1]
        slowdowns = self.trace.tables["slowdowns"][: self.trace.state["slowdown"]].tolist()
        columns = (run[name].tolist() for name in ("index", "enqueued", "started", "ended", "waited_for", "slowed"))
        for operation, index, enqueued, started, ended, before, slowed in zip(self.operations, *columns, strict=True):
            operation.index = index
            operation.enqueued_at, operation.started_at, operation.ended_at = enqueued, started, ended
            operation.waited_for = self.operations[before] if before >= 0 else None
            changes: list[Change] = []
            while slowed:
                time, fraction, resource, slowed = slowdowns[slowed - 1]
                changes.append((time, fraction, self.bottlenecks[resource]))
            operation.changes = changes[::-1] or None
        self._enqueued = sorted((o for o in self.operations if o.index >= 0), key=attrgetter("index"))

    def series(self, tier: Tier) -> list[tuple[float, str, float, float]]:
        """The changes of a tier in the last run."""
        assert self.trace is not None
        changed = self.trace.tables["changed"][: self.trace.state["change"]]
        changed = changed[self.trace.tables["occupants"]["tier"][changed["occupant"]] == self.tiers.index(tier)]
        names = [occupant for _, occupant in self.occupants]
        times, held, used, numbers = (changed[name].tolist() for name in records.CHANGED.names or ())
        return list(zip(times, map(names.__getitem__, numbers), held, used, strict=True))


_CHANGED = (
    *("operations", "needs", "resources", "gates", "tiers", "occupants", "meetings", "tasks", "streams"),
    *("ranks", "marks", "boundaries", "left"),
)
"""Tables that a run changes and needs as they were made."""


def _numbered(things: Iterable[Any]) -> dict[Any, int]:
    return {thing: number for number, thing in enumerate(dict.fromkeys(things))}


def _needs(operation: Operation, servers: Mapping[Server, int], gate_of: Mapping[Tier, int]) -> dict[int, float]:
    """Of each gate that an operation has to pass, in order, how much it needs."""
    needs = {servers[server]: 1.0 for server in operation.holds}
    for tier, _, nbytes in operation.allocates:
        if tier in gate_of:
            needs[gate_of[tier]] = needs.get(gate_of[tier], 0.0) + nbytes
    return needs


def _table(record: np.dtype[Any], length: int, whole: int = 0) -> Any:
    """A table of so many rows, of zeros, or with this in all fields of whole numbers, and -1 seconds in times."""
    table = np.zeros(length, record).view(np.recarray)
    if whole:
        for name in record.names or ():
            table[name] = whole
    return table


def _from(lists: Iterable[Any], start: int = 0) -> Any:
    """Where each list's part begins when they are one behind another, and where the last one ends."""
    return np.array([*accumulate(map(len, lists), initial=start)], np.int64)
