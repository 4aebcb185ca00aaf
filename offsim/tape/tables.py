"""A tape as tables, to be run by the compiled loop with the numbers of one machine after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from offsim.engine import MemoryChange, Operation, Stream, Thread, Tier
from offsim.engine.crowd import Change
from offsim.engine.sharing import TOLERANCE
from offsim.engine.tier import ROUNDING, Columns
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
        self.operations = operations = tape.all
        self.tiers: list[Tier] = list(tape.tiers)
        streams, resources, servers, meetings, occupants = (Numbers() for _ in range(5))
        pools = [tier for tier in self.tiers if tier.waits]
        allocates = {o.index: o.allocates for o in operations if o.allocates}
        frees = {o.index: o.frees for o in operations if o.frees}
        changes = [*tape.changes, *_joined(allocates), *_joined(frees)]
        needs = {o.index: {servers[server]: 1.0 for server in o.holds} for o in operations if o.holds}
        gate_of = {tier: len(servers.things) + number for number, tier in enumerate(pools)}
        if pools:
            needs = _with_pools(needs, allocates, gate_of)
        kinds, kind = _kinds(operations, tape.threads)
        demand_from = _from([len(o.usage) for o, _ in kinds])
        asked = np.diff(demand_from)[kind]
        uses_from = _from(asked)
        self._demand = np.repeat(demand_from[kind] - uses_from[:-1], asked) + np.arange(uses_from[-1])
        """Of each use, which of the demands of all kinds of operations it is."""
        after = [-1 - streams[each] if isinstance(each, Stream) else each.index for each in _joined(tape.after)]
        resource = np.array([resources[resource] for o, _ in kinds for resource, _ in o.usage], np.int64)
        commands = [task.commands if task.ended else [*task.commands, CUT, 0] for task in tape.tasks]
        iterations = max((iteration for _, iteration in tape.begins), default=0)
        ranks = 1 + max((rank for rank, _ in tape.begins), default=0)
        count, needed, ran = len(operations), sum(map(len, needs.values())), sum(map(len, commands)) // 2
        occupant = [occupants[change[:2]] for change in changes]
        self._tables = {
            "operations": _table(
                "operations",
                count + 1,
                stream=np.array([streams[o.stream] for o, _ in kinds])[kind],
                thread=np.array([streams[thread] for _, thread in kinds])[kind],
                priority=np.array([o.priority for o, _ in kinds])[kind],
                meeting=np.array([meetings[o.rendezvous] for o, _ in kinds])[kind],
                after=_parts(tape.after, count),
                uses=uses_from,
                needs=_parts(needs, count),
                allocates=_parts(allocates, count, len(tape.changes)),
                frees=_parts(frees, count, len(changes) - len(_joined(frees))),
            ),
            "after": _table("after", len(after), number=after),
            "uses": _table(
                "uses", len(self._demand), resource=resource[self._demand], operation=np.repeat(np.arange(count), asked)
            ),
            "needs": _table(
                "needs",
                needed,
                amount=[float(amount) for each in needs.values() for amount in each.values()],
                gate=_joined(needs),
                operation=[number for number, each in needs.items() for _ in each],
            ),
            "changes": _table("changes", len(changes), nbytes=[float(n) for *_, n in changes], occupant=occupant),
            "resources": _table("resources", len(resources.things)),
            "gates": _table(
                "gates",
                len(servers.things) + len(pools),
                slack=[0.0] * len(servers.things) + [ROUNDING] * len(pools),
            ),
            "tiers": _table("tiers", len(self.tiers), gate=[gate_of.get(tier, -1) for tier in self.tiers]),
            "occupants": _table(
                "occupants", len(occupants.things), tier=[self.tiers.index(tier) for tier, _ in occupants.things]
            ),
            "meetings": _table("meetings", len(meetings.things), ranks=[each.ranks for each in meetings.things]),
            "tasks": _table(
                "tasks",
                len(commands),
                commands=_from([len(each) // 2 for each in commands])[:-1],
                thread=[streams[task.thread] for task in tape.tasks],
                end=[task.end for task in tape.tasks],
                issuer=[streams[task.issuer] for task in tape.tasks],
            ),
            "commands": np.array([*chain.from_iterable(commands)], np.int64).view(records.COMMAND),
            "streams": _table("streams", len(streams.things)),
            "ranks": _table("ranks", ranks),
            "begins": np.array(tape.begins, records.BEGINNING),
            "marks": _table("marks", tape.marks),
            "edges": _table("edges", len(after) + count),
            "ends": _table("ends", 4 * count + 64),
            "rows": _table("rows", count + 1 + needed + len(resources.things) + len(commands) + ran),
            "changed": _table("changed", len(changes)),
            "slowdowns": _table("slowdowns", 8 * count + 1000),
            "boundaries": _table("boundaries", iterations),
            "left": _table("left", iterations * count),
            "held": _table("held", iterations * len(occupants.things)),
            "since": _table("since", iterations * ranks),
        }
        self.occupants, self.bottlenecks = occupants.things, [*resources.things, None]
        self.numbers = Hardware(
            [o.duration for o in operations],
            [rate for o, _ in kinds for _, rate in o.usage],
            [resource.capacity for resource in resources.things],
            [tier.capacity for tier in self.tiers],
            [*(server.slots for server in servers.things), *(tier.capacity for tier in pools)],
        )
        """Floats, or quantities. Rates are of the demands of each kind of operations."""
        self.trace: Trace | None = None
        """The last run."""
        self._filled: Trace | None = None
        self.paths: Paths | None = None
        tape.taped = self
        words = [self._tables[name].view(np.int64) for name in _CHANGED]  # field by field takes far longer
        self._fresh = [(table, table.copy()) for table in words]
        self._start = self._state()

    def _state(self) -> Any:
        """The state before a run."""
        state = np.zeros(1, records.STATE)
        tell_tables(state, self._tables)
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
        tables["uses"]["rate"] = hardware.rates[self._demand]
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

    def columns(self, tier: Tier) -> Columns:
        """The changes of a tier in the last run."""
        assert self.trace is not None
        changed = self.trace.tables["changed"][: self.trace.state["change"]]
        changed = changed[self.trace.tables["occupants"]["tier"][changed["occupant"]] == self.tiers.index(tier)]
        names = [occupant for _, occupant in self.occupants]
        times, held, used, numbers = (changed[name].tolist() for name in records.CHANGED.names or ())
        return times, [names[number] for number in numbers], held, used


def tell_tables(state: Any, tables: Mapping[str, Any]) -> None:
    """Tell a state where tables are and how many records they have."""
    for name, table in tables.items():
        state[f"{name}_at"], state[f"{name}_count"] = table.ctypes.data, len(table)


_CHANGED = (
    *("operations", "needs", "resources", "gates", "tiers", "occupants", "meetings", "tasks", "streams"),
    *("ranks", "marks", "boundaries", "left"),
)
"""Tables that a run changes and needs as they were made."""


def _before() -> dict[str, Any]:
    """Of each table a record as it is before a run."""
    before = {name: np.zeros(1, record) for name, record in records.TABLES.items()}
    for name in ("operations", "tasks", "streams"):
        for field in records.TABLES[name].names or ():
            before[name][field] = -1
    operation = before["operations"]
    for field, value in (
        ("fraction", 1.0),
        ("ends_at", np.inf),
        *dict.fromkeys(("updated", "pending", "slowed", "unsettled"), 0).items(),
    ):
        operation[field] = value
    for name in ("resources", "gates", "meetings"):
        before[name]["first"] = before[name]["last"] = -1
    for name, seconds in (("marks", -1.0), ("boundaries", -1.0), ("left", np.nan)):
        before[name]["seconds"] = seconds
    return before


_BEFORE = _before()


def _table(name: str, length: int, **columns: Any) -> Any:
    """A table with these columns, as it is before a run, unless a run writes all of it that it reads."""
    record = records.TABLES[name]
    table = _BEFORE[name].repeat(length) if columns or name in _CHANGED else np.empty(length, record)
    for column, values in columns.items():
        table[column][: len(values)] = values
    return table


class Numbers(dict[Any, int]):
    """The numbers of things, from 0 in the order in which they are first asked for; that of None is -1."""

    def __init__(self, *first: Any) -> None:
        super().__init__({thing: number for number, thing in enumerate((None, *first), start=-1)})

    def __missing__(self, thing: Any) -> int:
        self[thing] = number = len(self) - 1
        return number

    @property
    def things(self) -> list[Any]:
        """What has been asked for, in order."""
        return [*self][1:]


def _kinds(
    operations: Sequence[Operation], threads: Sequence[Thread | None]
) -> tuple[list[tuple[Operation, Thread | None]], Any]:
    """Of each kind of operations and threads the first one, and which kind each is: many are alike."""
    numbers = Numbers()
    kind = np.array(
        [
            numbers[o.stream, thread, o.priority, o.rendezvous, id(o.usage)]
            for o, thread in zip(operations, threads, strict=True)
        ]
    )
    first = np.flatnonzero(np.diff(np.maximum.accumulate(kind), prepend=-1)).tolist()
    return [(operations[number], threads[number]) for number in first], kind


def _with_pools(
    needs: dict[int, dict[int, float]], allocates: Mapping[int, Iterable[MemoryChange]], gate_of: Mapping[Tier, int]
) -> dict[int, dict[int, float]]:
    """What operations need of gates, in order, with the room in tiers that is waited for."""
    for number, changes in allocates.items():
        for tier, _, nbytes in changes:
            if tier in gate_of:
                amounts = needs.setdefault(number, {})
                amounts[gate_of[tier]] = amounts.get(gate_of[tier], 0.0) + nbytes
    return dict(sorted(needs.items()))


def _joined(parts: Mapping[int, Iterable[Any]]) -> list[Any]:
    return [*chain.from_iterable(parts.values())]


def _parts(parts: Mapping[int, Sized], count: int, start: int = 0) -> Any:
    """Where each operation's part begins when they are one behind another, and where the last one ends."""
    lengths = np.zeros(count, np.int64)
    lengths[[*parts]] = [len(part) for part in parts.values()]
    return _from(lengths, start)


def _from(lengths: Any, start: int = 0) -> Any:
    """Where parts of these lengths begin when they are one behind another, and where the last one ends."""
    first = np.full(len(lengths) + 1, start, np.int64)
    first[1:] += np.cumsum(lengths)
    return first
