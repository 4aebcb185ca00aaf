"""The compiled loop against the engine, on random programs, and on small ones worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest

from offsim.engine import (
    Code,
    Engine,
    Operation,
    OutOfMemory,
    Rendezvous,
    Resource,
    Server,
    Stream,
    Thread,
    Tier,
)

pytest.importorskip("numba")

from offsim.tape.loop import CUT_OFF, FREED_TOO_MUCH, NO_MEMORY, RAN, UNFINISHED, _compiled
from offsim.tape.tables import Hardware, Taped
from offsim.tape.tape import Boundary, DecidesAtRunTime, Tape

Main = Callable[[Engine, Thread], Code]


def taped(main: Main) -> Taped:
    """The tape of a program's first thread, at whose end there is a boundary, and of what it begins."""
    tape, thread = Tape(), Thread("main")

    def code() -> Code:
        yield from main(tape, thread)
        tape.begin(0, 1)

    tape.spawn(thread, code())
    tape.record(1)
    return Taped(tape)


def run(tape: Taped, machine: Taped | None = None) -> int:
    """Run a tape, maybe with the numbers of another one of the same program; returns the status."""
    trace = tape.run(Hardware(*(np.array(part, float) for part in (machine or tape).numbers)), 1)
    tape.trace = trace
    return int(trace.state["status"])


def simulated(main: Main) -> tuple[int, Engine]:
    """What the engine makes of the program."""
    engine, thread = Engine(), Thread("main")
    end = engine.spawn(thread, main(engine, thread))
    try:
        engine.env.run()
    except OutOfMemory:
        return NO_MEMORY, engine
    except ValueError:  # freed too much; the programs make no other mistake
        return FREED_TOO_MUCH, engine
    return RAN if end.done else UNFINISHED, engine


def record_of(operation: Operation) -> tuple[Any, ...]:
    """All that is known of an operation that was enqueued."""
    before = operation.waited_for
    return (
        operation.name,
        (operation.phase, operation.iteration),
        (operation.enqueued_at, operation.started_at, operation.ended_at),
        None if before is None else before.name.split(" of ")[0],
        [(time, fraction, r and r.name) for time, fraction, r in operation.slowdowns or ()],
    )


# Random programs


@dataclass
class Body:
    """What one thread does, by kind and number."""

    thread: int
    actions: list[tuple[str, Any]] = field(default_factory=list)


class Script:
    """A random program. Its structure depends on the seed alone, its numbers on the machine too."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.seed = seed
        self.specs: list[dict[str, Any]] = []
        self.bodies = [Body(0)]
        self.errors = self.random.random() < 0.15
        """Whether it may run out of memory, or free too much."""
        self._fill(self.bodies[0], [], 0)

    def _fill(self, body: Body, known: list[int], depth: int) -> None:
        random, known, begun = self.random, list(known), []
        body.actions.append(("phase", f"phase of body {len(self.bodies) - 1}"))
        for _ in range(random.randint(2, 9)):
            kind = random.choice(["op"] * 6 + ["await", "spawn", "spawn", "join", "pause", "phase", "memory"])
            if kind == "op":
                known.append(self._operation(body, known))
            elif kind == "await" and known:
                body.actions.append(("await", random.choice(known)))
            elif kind == "spawn" and depth < 3 and len(self.bodies) < 8:
                child = Body(random.choice([each for each in range(1, 5) if each != body.thread]))
                begun.append(len(self.bodies))
                self.bodies.append(child)
                body.actions.append(("spawn", begun[-1]))
                self._fill(child, known, depth + 1)
            elif kind == "join" and begun:
                body.actions.append(("join", random.choice(begun)))
            elif kind == "memory":
                name, nbytes = random.choice("ab"), random.randint(1, 4) * random.choice([1.0, 0.7])
                body.actions.append(("take", (name, nbytes)))
                if random.random() < 0.7:
                    self._operation(body, known)
                    body.actions.append(("give", (name, nbytes + (random.random() < 0.1 and self.errors))))
            elif kind in ("pause", "phase"):
                body.actions.append((kind, f"phase {random.randint(0, 3)}"))

    def _operation(self, body: Body, known: list[int], **given: Any) -> int:
        random, number = self.random, len(self.specs)
        own = not given and random.random() < 0.2
        spec: dict[str, Any] = {
            "stream": -1 - body.thread if own else random.randrange(4),
            "uses": random.sample(range(3), random.choice([0, 0, 1, 1, 2, 3])),
            "after": random.sample(known, min(len(known), random.choice([0, 0, 1, 2]))),
            "tails": random.sample(range(5), random.choice([0, 0, 0, 1, 2])),
            "holds": random.sample(range(2), random.choice([0, 0, 0, 1, 1, 2])),
            "priority": random.choice([0, 0, 1, 2]),
            "meeting": random.randrange(3) if random.random() < 0.06 else None,
            "takes": [],
            "gives": [],
            "kernel": random.random() < 0.8,
            **given,
        }
        self.specs.append(spec)
        body.actions.append(("op", number))
        if own or random.random() < 0.15:
            body.actions.append(("await", number))
        if not given and random.random() < 0.15:
            pool = random.choice(["pool", "other pool", "memory"])
            spec["takes"] = [(pool, random.choice("ab"), random.choice([1.0, 2.0, 2.5, 3.4]))]
            self._operation(body, known, after=[number], gives=spec["takes"])
        return number

    def on(self, machine: int) -> Main:
        """The program with the numbers of one machine: round ones, so that much happens at the same time, or any."""
        random = Random(f"{self.seed} on {machine}")
        exact = random.random() < 0.5
        durations = [random.choice([0.0, 1.0, 2.0, 3.0, 1.0 if exact else random.random()]) for _ in self.specs]
        rates = [
            [random.choice([1.0, 2.0, 3.0 if exact else random.uniform(0.1, 4)]) for _ in "abc"] for _ in durations
        ]
        resources = [Resource(f"resource {i}", random.choice([2.0, 3.0, 5.0])) for i in range(3)]
        room = 6.0 if self.errors else 1e6

        def main(engine: Engine, thread: Thread) -> Code:
            threads = [thread, *(Thread(f"thread {i}") for i in range(1, 5))]
            streams = [Stream(f"stream {i}") for i in range(5)]
            servers = [Server("one slot", 1), Server("two slots", 2)]
            memory = engine.tier("memory", room)
            tiers = {
                "memory": memory,
                "pool": memory.like("pool", 4.0, "wait"),
                "other pool": memory.like("other pool", 3.0 if self.errors else 3.6, "wait"),
            }
            meetings = [Rendezvous(2) for _ in range(3)]
            enqueued: dict[int, Operation] = {}
            ends: dict[int, Operation] = {}

            def operation(number: int, by: Thread) -> None:
                spec = self.specs[number]
                at = spec["stream"]
                made = Operation(
                    threads[-1 - at] if at < 0 else streams[at],
                    "work",
                    f"operation {number}",
                    durations[number],
                    [(resources[i], rates[number][i]) for i in spec["uses"]],  # type: ignore[arg-type]
                    allocates=[(tiers[name], *what) for name, *what in spec["takes"]],
                    frees=[(tiers[name], *what) for name, *what in spec["gives"]],
                    rendezvous=None if spec["meeting"] is None else meetings[spec["meeting"]],
                    holds=tuple(servers[i] for i in spec["holds"]),
                    priority=spec["priority"],
                )
                after = [enqueued[i] for i in spec["after"]] + [engine.tail(streams[i]) for i in spec["tails"]]
                enqueued[number] = engine.enqueue(made, after, by if spec["kernel"] else None)

            def code(body: Body) -> Iterator[Any]:
                by = threads[body.thread]
                for kind, what in body.actions:
                    if kind == "op":
                        operation(what, by)
                    elif kind == "await":
                        yield enqueued[what]
                    elif kind == "spawn":
                        child = self.bodies[what]
                        ends[what] = engine.spawn(threads[child.thread], code(child), by)  # type: ignore[arg-type]
                    elif kind == "join":
                        yield ends[what]
                    elif kind == "pause":
                        yield engine.pause(by)
                    elif kind == "phase":
                        by.phase = what
                    elif kind == "take":
                        memory.allocate(*what)
                    elif kind == "give":
                        memory.free(*what)

            yield from code(self.bodies[0])

        return main


def check_alike(script: Script, tape: Taped, machine: int) -> int:
    """Run a tape and the engine on the same machine, and compare all that they leave."""
    status = run(tape, taped(script.on(machine)))
    if status == CUT_OFF:  # two threads give code to a third, and the engine runs it in another order than it is taped
        return status
    expected, engine = simulated(script.on(machine))
    assert status == expected
    if status not in (NO_MEMORY, FREED_TOO_MUCH):
        assert [record_of(o) for o in tape.filled()] == [record_of(o) for o in engine.operations]
        tiers = {tier: None for o in engine.operations for tier, *_ in (*o.allocates, *o.frees)}
        for tier in tiers:
            (same,) = (each for each in tape.tiers if each.name == tier.name)
            assert same.series == tier.series
    return status


@pytest.mark.parametrize("some", range(10))
def test_random_programs_run_as_on_the_engine(some: int) -> None:
    found = []
    for seed in range(30 * some, 30 * some + 30):
        script = Script(seed)
        tape = taped(script.on(0))
        found += [check_alike(script, tape, machine) for machine in range(3)]
    assert found.count(CUT_OFF) <= 3


def test_random_programs_end_in_all_ways() -> None:
    """Else the test above would not compare what it says."""
    found = {check_alike(script, taped(script.on(0)), 1) for script in map(Script, range(60))}
    assert found >= {RAN, NO_MEMORY, UNFINISHED}


# Many at once


@pytest.mark.parametrize("flows", [15, 40, 200])
def test_many_flows_end_as_on_the_engine(flows: int) -> None:
    """Where the engine counts the work of a crowd; the log of speeds has to grow for it."""
    random = Random(flows)
    sizes = [(random.choice([1.0, 2.0, random.uniform(0.5, 9)]), random.uniform(0.5, 3)) for _ in range(flows)]

    def main(engine: Engine, thread: Thread) -> Code:
        link, memory = Resource("link", 5.0), Resource("memory", 50.0)
        for number, (seconds, rate) in enumerate(sizes):
            usage = ((link, rate), (memory, 3 * rate)) if number % 3 else ((link, rate),)
            engine.enqueue(Operation(Stream(f"{number}"), "work", f"{number}", seconds, usage))
            if number % 10 == 9:
                yield engine.enqueue(Operation(Stream("timer"), "work", "timer", 0.5))

    tape = taped(main)
    logs = len(tape._tables["slowdowns"])
    assert run(tape) == RAN
    assert (len(tape._tables["slowdowns"]) > logs) == (flows == 200)
    _, engine = simulated(main)
    expected = [(o.name, pytest.approx((o.started_at, o.ended_at), rel=1e-12)) for o in engine.operations]
    assert [(o.name, (o.started_at, o.ended_at)) for o in tape.filled()] == expected


# By hand


def times(tape: Taped, *names: str) -> list[tuple[float, float]]:
    known = {o.name: (o.started_at, o.ended_at) for o in tape.filled()}
    return [known[name] for name in names]


def test_two_copies_share_a_link() -> None:
    """4 and 3 of 5: both at 5/7 until the one of 1.5 s ends at 2.1 s, when the other has 0.5 s left."""

    def main(engine: Engine, thread: Thread) -> Code:
        link = Resource("link", 5.0)
        engine.enqueue(Operation(Stream("a"), "h2d", "long", 2.0, ((link, 4.0),)))
        yield engine.enqueue(Operation(Stream("b"), "h2d", "short", 1.5, ((link, 3.0),)))

    tape = taped(main)
    assert run(tape) == RAN
    assert times(tape, "long", "short") == [(0.0, pytest.approx(2.6)), (0.0, pytest.approx(2.1))]


def test_a_server_serves_by_priority() -> None:
    def main(engine: Engine, thread: Thread) -> Code:
        server = Server("copy engine")
        for name, priority in (("first", 9), ("late", 2), ("urgent", 0), ("next", 1)):
            made = Operation(Stream(name), "h2d", name, 1.0, holds=(server,), priority=priority)
            engine.enqueue(made)
        yield None

    tape = taped(main)
    assert run(tape) == RAN
    assert [start for start, _ in times(tape, "first", "urgent", "next", "late")] == [0, 1, 2, 3]


def test_an_operation_is_behind_what_is_last_on_a_stream_as_it_runs() -> None:
    """Two threads race to a stream: who is last there depends on the machine, of which the tape knows nothing."""

    def main(fast: float) -> Main:
        def code(engine: Engine, thread: Thread) -> Code:
            copies, other = Stream("copies"), Thread("other")

            def racing() -> Code:
                yield engine.enqueue(Operation(Stream("its own"), "work", "delay", 2.0))
                engine.enqueue(Operation(copies, "h2d", "its copy", 10.0))

            engine.spawn(other, racing(), thread)
            yield engine.enqueue(Operation(Stream("own"), "work", "own delay", fast))
            engine.enqueue(Operation(Stream("compute"), "gemm", "kernel", 1.0), [engine.tail(copies)])

        return code

    tape = taped(main(1.0))
    assert run(tape) == RAN
    assert times(tape, "kernel") == [(1.0, 2.0)]
    assert run(tape, taped(main(3.0))) == RAN
    assert times(tape, "kernel", "its copy") == [(12.0, 13.0), (2.0, 12.0)]


def test_a_pool_makes_wait_and_memory_fails() -> None:
    def main(capacity: float) -> Main:
        def code(engine: Engine, thread: Thread) -> Code:
            memory = engine.tier("memory", capacity)
            pool = memory.like("pool", 2.0, "wait")
            memory.allocate("state", 3.0)
            for name in "abc":
                engine.enqueue(Operation(Stream(name), "h2d", name, 1.0, allocates=[(pool, "buffers", 1.0)]))
                yield engine.enqueue(
                    Operation(thread, "work", f"use {name}", 1.0, frees=[(pool, "buffers", 1.0)]), thread=thread
                )
            memory.free("state", 3.0)

        return code

    tape = taped(main(3.0))
    assert run(tape) == RAN
    assert times(tape, "a", "b", "c") == [(0, 1), (1, 2), (2, 3)]
    (memory,) = (tier for tier in tape.tiers if tier.name == "memory")
    assert memory.series == [(0, "state", 3, 3), (3, "state", 0, 0)]
    assert run(tape, taped(main(2.9))) == NO_MEMORY
    assert run(tape, taped(main(3.1))) == RAN


@pytest.mark.parametrize(("freed", "status"), [(1.0, RAN), (1.4, RAN), (1.6, FREED_TOO_MUCH)])
def test_half_a_byte_too_much_is_rounding(freed: float, status: int) -> None:
    def main(engine: Engine, thread: Thread) -> Code:
        memory = engine.tier("memory", 2.0)
        memory.allocate("state", 1.0)
        yield engine.enqueue(Operation(thread, "work", "update", 1.0))
        memory.free("state", freed)

    tape = taped(main)
    assert run(tape) == status == simulated(main)[0]
    if status == RAN:
        assert tape.tiers[0].series[-1] == (1.0, "state", 0.0, 0.0)


def test_what_waits_in_vain_is_unfinished() -> None:
    def main(engine: Engine, thread: Thread) -> Code:
        yield engine.enqueue(Operation(thread, "all_gather", "gather", 1.0, rendezvous=Rendezvous(2)))

    assert run(taped(main)) == UNFINISHED


def test_a_rendezvous_meets_again() -> None:
    def main(engine: Engine, thread: Thread) -> Code:
        meeting = Rendezvous(2)
        for begin in (0.0, 3.0):
            yield engine.enqueue(Operation(Stream("timer"), "work", "timer", begin))
            engine.enqueue(Operation(Stream("a"), "all_gather", f"a at {begin:g}", 1.0, rendezvous=meeting))
            yield engine.enqueue(Operation(Stream("timer"), "work", "timer", 1.0))
            yield engine.enqueue(Operation(Stream("b"), "all_gather", f"b at {begin:g}", 1.0, rendezvous=meeting))

    tape = taped(main)
    assert run(tape) == RAN
    assert times(tape, "a at 0", "b at 0", "a at 3", "b at 3") == [(1, 2), (1, 2), (6, 7), (6, 7)]


def test_the_loop_runs_as_far_as_the_tape_goes() -> None:
    tape, thread = Tape(), Thread("main")

    def code() -> Iterator[Any]:
        for iteration in range(1, 9):
            tape.begin(0, iteration)
            tape.stop_if_over()
            yield Boundary(iteration)
            yield tape.enqueue(Operation(thread, "work", f"work {iteration}", float(iteration)), thread=thread)

    tape.spawn(thread, code())  # type: ignore[arg-type]
    tape.record(3)
    recorded = Taped(tape)
    hardware = Hardware(*(np.array(part, float) for part in recorded.numbers))
    for over_at in (1, 2, 3, 4):
        trace = recorded.run(hardware, over_at)
        assert (trace.state["status"], trace.state["boundary"]) == (RAN, over_at)
        assert list(trace.tables["boundaries"]["seconds"][:over_at]) == [0, 1, 3, 6][:over_at]
    assert recorded.run(hardware, 5).state["status"] == CUT_OFF


def test_what_cannot_be_kept_on_disk_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert _compiled(lambda x: x + 1)(1) == 2


# What a tape cannot tell


@pytest.mark.parametrize(
    "read",
    [
        lambda engine, operation, memory: engine.env.now,
        lambda engine, operation, memory: operation.done,
        lambda engine, operation, memory: operation.ended_at - 1.0,
        lambda engine, operation, memory: operation.ended_at == operation.started_at,
        lambda engine, operation, memory: max(operation.started_at, 0.0),
        lambda engine, operation, memory: operation.left(0.0),
        lambda engine, operation, memory: memory.used,
        lambda engine, operation, memory: memory.occupants,
        lambda engine, operation, memory: memory.peak,
        lambda engine, operation, memory: memory.series,
    ],
)
def test_reading_a_time_or_memory_in_use_is_deciding_at_run_time(
    read: Callable[[Engine, Operation, Tier], object],
) -> None:
    def main(engine: Engine, thread: Thread) -> Code:
        memory = engine.tier("memory", 3.0)
        operation = engine.enqueue(Operation(thread, "work", "work", 1.0))
        yield operation
        read(engine, operation, memory)

    assert simulated(main)[0] == RAN
    with pytest.raises(DecidesAtRunTime):
        taped(main)
