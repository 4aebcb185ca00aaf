"""A tape: what the threads of a program command, one thing after another, without the times at which they do.

A program runs on a tape as on an engine, but no time passes. So what it commands may not depend on times: where it
reads one, or memory in use, it decides at run time, and only the engine can run it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from offsim.engine import Code, Engine, Operation, Rendezvous, Resource, Server, Stream, Thread, Tier
from offsim.engine.course import Course
from offsim.engine.crowd import Change
from offsim.engine.engine import TooManyOperations
from offsim.tape import compiled, records
from offsim.tape.records import ALLOCATE, AWAIT, BEGIN, CUT, END, ENQUEUE, FREE, MARK, PAUSE, SPAWN, STOP_IF_OVER

_TOLERANCE = 1e-9
"""As in `offsim.engine.sharing`."""


class DecidesAtRunTime(Exception):
    """What a program commands depends on times or on memory in use."""


class _Unknown:
    """A time that a tape does not know."""

    def _read(self, *_: object) -> NoReturn:
        raise DecidesAtRunTime

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _read
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __neg__ = __abs__ = __float__ = __int__ = __bool__ = _read


UNKNOWN: Any = _Unknown()


class _NoClock:
    @property
    def now(self) -> float:
        raise DecidesAtRunTime


class TapedTier(Tier):
    """A memory tier of which a tape notes the changes."""

    __slots__ = ("tape",)

    def __init__(self, tape: Tape, name: str, capacity: float, when_full: Literal["fail", "wait"] = "fail") -> None:
        self.tape = tape
        self.name = name
        self.capacity = capacity
        self.waits = when_full == "wait"
        self.grows = False
        tape.tiers[self] = None

    def __getattr__(self, name: str) -> NoReturn:
        raise DecidesAtRunTime(name)

    @property
    def series(self) -> list[tuple[float, str, float, float]]:
        """Of the last run."""
        if self.tape.taped is None:
            raise DecidesAtRunTime
        return self.tape.taped.series(self)

    def like(self, name: str, capacity: float, when_full: Literal["fail", "wait"] = "fail") -> Tier:
        """Another taped tier."""
        return TapedTier(self.tape, name, capacity, when_full)

    def allocate(self, occupant: str, nbytes: float) -> None:
        """Note that a thread takes memory."""
        self.tape.change(ALLOCATE, self, occupant, nbytes)

    def free(self, occupant: str, nbytes: float) -> None:
        """Note that a thread gives memory back."""
        self.tape.change(FREE, self, occupant, nbytes)


@dataclass(eq=False, slots=True)
class Task:
    """Code that a thread runs, and what it commands."""

    thread: Thread | None = None
    code: Iterable[Any] = ()
    end: int = -1
    issuer: Thread | None = None
    commands: list[tuple[int, int]] = field(default_factory=list)
    awaits: Operation | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a rank begins an iteration: its code yields it, and ends here where that is not to be recorded."""

    iteration: int


class Tape(Engine):
    """An engine that notes what it is told to run."""

    def __init__(self, stretch: Mapping[str, float] | None = None, most: int = sys.maxsize) -> None:
        self.env: Any = _NoClock()
        self.recorder = None
        self.stretch = stretch
        self.most = most
        self.operations: list[Operation] = []
        self.active: Thread | None = None
        self.tiers: dict[TapedTier, None] = {}
        self.all: list[Operation] = []
        """Operations, ends of tasks and pauses, by their index."""
        self.after: list[list[Operation | Stream | None]] = []
        self.threads: list[Thread | None] = []
        self.changes: list[tuple[Tier, str, float]] = []
        self.begins: list[tuple[int, int]] = []
        """Rank and iteration."""
        self.marks = 0
        self.tasks = [Task()]
        self.taped: Taped | None = None
        self.until = 0
        """The last iteration to record."""
        self._task = self.tasks[0]
        self._new: deque[Task] = deque()
        self._going: deque[Task] = deque()
        self._waiting: dict[int, list[Task]] = {}
        self._running: dict[int, set[int]] = {}
        """Of operations that are behind code which has not ended on the tape, the ends of that code."""

    def tier(self, name: str, capacity: float) -> Tier:
        """A taped tier."""
        return TapedTier(self, name, capacity)

    def has_ended(self, operation: Operation) -> bool:
        """As far as a tape knows, nothing ever has."""
        return False

    def tail(self, stream: Stream) -> Any:
        """The stream, whose last operation is known at run time only."""
        return stream

    def enqueue(
        self, operation: Operation, after: Iterable[Operation | None] = (), thread: Thread | None = None
    ) -> Operation:
        """Note that the thread enqueues an operation."""
        if self.stretch is not None and operation.kind in self.stretch:
            operation.duration *= self.stretch[operation.kind]
        if len(self.operations) >= self.most:
            raise TooManyOperations
        self._add(operation, after, thread)
        if self._running:
            behind = [each.tail if isinstance(each, Stream) else each for each in self.after[-1]]
            running = {end for each in (*behind, operation.stream.tail) if each for end in self._unended(each)}
            if running:
                self._running[operation.index] = running
        self.operations.append(operation)
        if thread is not None:
            operation.phase, operation.iteration = thread.phase, thread.iteration
        operation.stream.tail = operation
        self._task.commands.append((ENQUEUE, operation.index))
        return operation

    def _add(self, operation: Operation, after: Iterable[Operation | None], thread: Thread | None) -> None:
        operation.index = len(self.all)
        operation.started_at = operation.ended_at = UNKNOWN
        self.all.append(operation)
        self.after.append(list(after))
        self.threads.append(thread)

    def spawn(self, thread: Thread, code: Code, issuer: Thread | None = None) -> Operation:
        """Note that code begins on a thread."""
        end = Operation(thread, "end", "end", 0.0)
        self._add(end, (), None)
        before, thread.end = thread.end, end
        tags = None
        if issuer is not None:
            tags = end.phase, end.iteration = issuer.phase, issuer.iteration
        task = Task(thread, self._tagged(thread, code, tags), end.index, issuer)
        self._task.commands.append((SPAWN, len(self.tasks)))
        self.tasks.append(task)
        if before is not None and before.index in self._running:
            self._waiting.setdefault(before.index, []).append(task)
        else:
            self._new.append(task)
        if issuer is not None:
            self._running[end.index] = {end.index}
        return end

    def _unended(self, operation: Operation) -> set[int]:
        """The ends of code that the operation is behind and that has not ended on the tape."""
        return {end for end in self._running.get(operation.index, ()) if end in self._running}

    def _tagged(self, thread: Thread, code: Code, tags: tuple[str, int] | None) -> Iterator[Any]:
        if tags is not None:
            thread.phase, thread.iteration = tags
        yield from code

    def pause(self, thread: Thread) -> Operation:
        """Note that the thread lets others go on first."""
        end = Operation(thread, "wait", "pause", 0.0)
        self._add(end, (), None)
        self._task.commands.append((PAUSE, end.index))
        return end

    def change(self, how: int, tier: Tier, occupant: str, nbytes: float) -> None:
        """A thread takes or gives back memory."""
        self._task.commands.append((how, len(self.changes)))
        self.changes.append((tier, occupant, nbytes))

    def mark(self) -> int:
        """Number of the time at which the thread is here."""
        self._task.commands.append((MARK, self.marks))
        self.marks += 1
        return self.marks - 1

    def begin(self, rank: int, iteration: int) -> None:
        """A rank begins an iteration."""
        self._task.commands.append((BEGIN, len(self.begins)))
        self.begins.append((rank, iteration))

    def stop_if_over(self) -> None:
        """The thread stops here once the last rank has begun the iteration that is not to be run."""
        self._task.commands.append((STOP_IF_OVER, 0))

    def record(self, iterations: int) -> None:
        """Run all code until ranks have gone through so many iterations and begun the next one."""
        self.tasks[0].commands.append((END, 0))
        self.tasks[0].ended = True
        self.until = iterations
        while self._new or self._going:
            self._advance(self._new.popleft() if self._new else self._going.popleft())

    def _waits(self, task: Task) -> bool:
        """Whether code waits, directly or not, for other code that has to be recorded first."""
        if task.awaits is None or not (running := self._unended(task.awaits)):
            return False
        self._waiting.setdefault(max(running), []).append(task)
        return True

    def _advance(self, task: Task) -> None:
        """Run code until it waits for other code, or has begun some."""
        if self._waits(task):
            return
        self._task, self.active = task, task.thread
        for awaited in task.code:
            if awaited is None:
                continue
            if isinstance(awaited, Boundary):
                if awaited.iteration > self.until:
                    return
                continue
            task.commands.append((AWAIT, awaited.index))
            task.awaits = awaited
            if self._waits(task):
                return
            if self._new:
                self._going.append(task)
                return
        task.commands.append((END, 0))
        task.ended = True
        self._running.pop(task.end, None)
        self._going += self._waiting.pop(task.end, ())


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
        self._bottlenecks: list[Resource | None] = [*resources, None]
        self.tiers: list[Tier] = list(tiers)
        self.numbers = Hardware(
            [o.duration for o in operations],
            [rate for o in operations for _, rate in o.usage],
            [resource.capacity for resource in resources],
            [tier.capacity for tier in tiers],
            [*(server.slots for server in servers), *(tier.capacity for tier in pools)],
        )
        """Floats, or quantities."""
        self._iterations = np.array([o.iteration for o in operations])
        self.trace: Trace | None = None
        """The last run."""
        self._filled: Trace | None = None
        self._serial: Trace | None = None
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
        gate.slack[len(servers) :] = 0.5
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
        resources["limit"] = hardware.capacities * (1.0 + _TOLERANCE)
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
        operations, course = self.operations, self.course()
        enqueued = self.trace.tables["operations"]["enqueued"].tolist()
        for number, operation in enumerate(operations):
            before = course.waited_for[number]
            operation.index = course.place[number]
            operation.enqueued_at = enqueued[number]
            operation.started_at, operation.ended_at = course.started[number], course.ended[number]
            operation.waited_for = operations[before] if before >= 0 else None
            operation.changes = course.changes(number)
        self._enqueued = sorted((o for o in operations if o.index >= 0), key=attrgetter("index"))

    def course(self, last: int = sys.maxsize) -> Course:
        """What became of the operations of the last run, of those up to the `last` iteration in order."""
        assert self.trace is not None
        run = self.trace.tables["operations"][:-1]
        index, ended = run["index"], run["ended"]
        kept = np.flatnonzero((index >= 0) & (ended >= 0.0) & (self._iterations <= last))
        slowed = self.trace.tables["slowdowns"][: self.trace.state["slowdown"]]
        slowed = slowed[np.argsort(slowed["operation"], kind="stable")]
        first = np.searchsorted(slowed["operation"], np.arange(len(run) + 1)).tolist()
        times, fractions, bottlenecks = (slowed[name].tolist() for name in ("time", "fraction", "resource"))

        def changes(number: int) -> list[Change] | None:
            rows = range(first[number], first[number + 1])
            return [(times[row], fractions[row], self._bottlenecks[bottlenecks[row]]) for row in rows] or None

        return Course(
            self.operations,
            kept[np.lexsort((index[kept], ended[kept]))].tolist(),
            run["index"].tolist(),
            run["started"].tolist(),
            ended.tolist(),
            run["waited_for"].tolist(),
            changes,
        )

    def series(self, tier: Tier) -> list[tuple[float, str, float, float]]:
        """The changes of a tier in the last run."""
        assert self.trace is not None
        if self._serial is not self.trace:
            self._serial = self.trace
            occupants = list(self.occupants)
            self._series: dict[Tier, list[tuple[float, str, float, float]]] = {tier: [] for tier in self.tiers}
            changed = self.trace.tables["changed"]
            for time, held, used, number in _columns(changed, self.trace.state["change"], records.CHANGED):
                of, occupant = occupants[number]
                self._series[of].append((time, occupant, held, used))
        return self._series[tier]


def _columns(table: Any, count: int, record: np.dtype[Any]) -> Iterator[tuple[Any, ...]]:
    """The first rows of a table as tuples."""
    return zip(*(table[name][:count].tolist() for name in record.names or ()), strict=True)


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
