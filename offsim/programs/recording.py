"""A training run recorded on a tape: the same schedule for any hardware that it commands the same on."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offsim.engine import Code, Operation, Tier
from offsim.platform.hardware import HardwareProfile
from offsim.programs.rank import Rank
from offsim.programs.run import (
    CLOSE,
    MAX_PERIODS,
    Iterations,
    Phase,
    Run,
    kept_state,
    most_operations,
    no_garbage_collection,
    run_on,
)
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import Workload
from offsim.states.checkpoint import Checkpoint
from offsim.states.placement import Placed
from offsim.tape.quantity import Formulas
from offsim.tape.records import RAN
from offsim.tape.tables import Hardware, Taped, Trace
from offsim.tape.tape import Boundary, Tape

POOLED = "pooled"
NOTHING = -1
"""In place of the number of an operation."""
HALF_A_BYTE = 0.5

Ints = NDArray[np.int64]


class Left(NamedTuple):
    """Seconds of work alone that an operation has left at a boundary."""

    operation: int


class ForTheEngine(Exception):
    """Only the engine can tell what this run does."""


class AnotherCourse(ForTheEngine):
    """The program commands something else on this machine: another tape can tell."""


class TooFewIterations(ForTheEngine):
    """A tape of more iterations can tell."""


class TapedIterations(Iterations):
    """Iterations of each rank without end, of which the tape records as many as it is told to."""

    tape: Tape

    def __init__(self, run: Run, schedules: list[TrainingSchedule], checkpoint: Checkpoint | None) -> None:
        super().__init__(run, schedules, checkpoint)
        assert isinstance(run.engine, Tape)
        self.tape = run.engine
        self.phases: list[tuple[int, int, str, int, int]] = []
        """Rank, iteration, name, and the marks of start and end."""
        self.states: list[list[Any]] = [[] for _ in run.ranks]
        """Of each rank and iteration, the state that it begins with."""

    def of(self, rank: Rank) -> Code:
        """The host thread's code of a rank."""
        program, tape = self.programs[rank.number], self.tape
        if program.schedule.starts_with_update:
            rank.host.phase, update = list(program.phases())[-1]
            yield from update
        while True:
            rank.host.iteration += 1
            tape.begin(rank.number, rank.iteration)
            self.states[rank.number].append(self._found_by(rank))
            if len(self.run.ranks) > 1:
                yield tape.pause(rank.host)
            tape.stop_if_over()
            yield Boundary(rank.iteration)  # type: ignore[misc]  # for the tape
            for name, code in program.phases():
                rank.host.phase = name
                start = tape.mark()
                yield from code
                self.phases.append((rank.number, rank.iteration, name, start, tape.mark()))

    def _found_by(self, rank: Rank) -> list[Any]:
        """What of the state is the rank's own."""
        blocks = [
            (rank.iteration - block.version, Left(NOTHING) if block.since is None else Left(block.since.index))
            for block in rank.parameters
        ]
        schedule = self.schedules[rank.number]
        return [blocks, *(kept_state(vars(part), _left, _used) for part in (schedule, schedule.activations))]


def _left(operation: Operation) -> Left:
    return Left(operation.index)


def _used(tier: Tier) -> str:
    return POOLED


class Recording:
    """A tape of a training run, whose numbers are formulas of a profile's floats, and its runs on other machines.

    Raises DecidesAtRunTime for a schedule that only the engine can run, OrderAmongRanks as a run does.
    """

    def __init__(
        self,
        profile: HardwareProfile,
        workload: Workload,
        schedule: type[TrainingSchedule],
        options: Any,
        placed: Placed,
        all_ranks: bool = False,
        stretch: Mapping[str, float] | None = None,
        checkpoint: Checkpoint | None = None,
        max_operations: int | None = None,
        iterations: int = 1,
    ) -> None:
        values = floats_of(profile)
        self._structure = structure_of(profile)
        self._formulas = Formulas(list(values.values()))
        profile = with_floats(profile, dict(zip(values, self._formulas.inputs, strict=True)))
        tape = Tape(stretch, most_operations(max_operations))
        self.run = run_on(tape, profile, workload, schedule, all_ranks, TapedRun)
        schedules = [schedule(options, workload, placed) for _ in self.run.ranks]
        self.run.unused = schedules[0].unused()
        self._taped_iterations = TapedIterations(self.run, schedules, checkpoint)
        for rank in self.run.ranks:
            tape.spawn(rank.host, self._taped_iterations.of(rank))
        self.period = self._taped_iterations.period
        self.iterations = max(iterations, self.period)
        """How many iterations can be run, and the beginning of the next one."""
        with no_garbage_collection():
            tape.record(self.iterations + (len(self.run.ranks) > 1))
            self._taped = Taped(tape)
        number = self._formulas.number
        self._numbers = Hardware(*(np.array([*map(number, part)], np.int64) for part in self._taped.numbers))
        self._left: dict[int, tuple[Ints, Ints] | None] = {}
        """Iteration -> operations of which it and that of a period before have to have the same left, if anything."""

    def on(self, profile: HardwareProfile) -> TapedRun:
        """Run it on a machine until its iterations repeat; the next call overwrites what this one returns.

        Raises ForTheEngine where only the engine can tell what happens.
        """
        if structure_of(profile) != self._structure:
            raise AnotherCourse
        values = self._formulas.of(list(floats_of(profile).values()))
        if values is None:
            raise AnotherCourse
        known = np.array(values, float)
        hardware = Hardware(*(known[numbers] for numbers in self._numbers))
        trace = self._trace(hardware, self.iterations + 1)
        for begun in range(self.period + 1, self.iterations + 2):
            if self._repeats(trace, begun):
                break
        else:
            if self.iterations < MAX_PERIODS * self.period:
                raise TooFewIterations
            return self._run(profile, hardware, trace, begun, settled=False)
        if begun <= self.iterations:
            trace = self._trace(hardware, begun)
        return self._run(profile, hardware, trace, begun, settled=True)

    def _run(self, profile: HardwareProfile, hardware: Hardware, trace: Trace, over_at: int, settled: bool) -> TapedRun:
        run, boundaries, done = self.run, trace.tables["boundaries"]["seconds"], over_at - 1
        marks = trace.tables["marks"]["seconds"].tolist()
        run.profile, run.settled, run.first, run.last = profile, settled, done - self.period + 1, done
        run.started_at, run.ended_at = float(boundaries[done - self.period]), float(boundaries[done])
        phases = [
            Phase(rank, iteration, name, marks[start], marks[end])
            for rank, iteration, name, start, end in self._taped_iterations.phases
            if marks[end] >= 0.0
        ]
        run.phases = sorted(phases, key=attrgetter("end"))
        if not settled:
            before = run.started_at - float(boundaries[done - 2 * self.period])
            run.drift = abs(run.ended_at - run.started_at - before) / before
        for tier, capacity in zip(self._taped.tiers, hardware.tiers.tolist(), strict=True):
            tier.capacity = capacity
        self._taped.trace = trace
        run.taped = self._taped
        return run

    def _trace(self, hardware: Hardware, over_at: int) -> Trace:
        trace = self._taped.run(hardware, over_at)
        if trace.state["status"] != RAN or trace.state["boundary"] < over_at:
            raise ForTheEngine(f"status {trace.state['status']}")
        return trace

    def _repeats(self, trace: Trace, begun: int) -> bool:
        """Whether the state at the beginning of an iteration is that of a period before."""
        now, before = begun - 1, begun - 1 - self.period
        left, held, since = (trace.per_boundary(name) for name in ("left", "held", "since"))
        unfinished, unfinished_before = np.flatnonzero(left[now] >= -1.0), np.flatnonzero(left[before] >= -1.0)
        if len(unfinished) != len(unfinished_before) or (np.abs(held[now] - held[before]) > HALF_A_BYTE).any():
            return False
        if len(since[now]) > 1 and not _close(since[now], since[before]):
            return False
        if begun not in self._left:
            self._left[begun] = self._compared(now, before)
        if (compared := self._left[begun]) is None:
            return False
        if len(unfinished):
            index = trace.tables["operations"]["index"]
            unfinished = unfinished[np.argsort(index[unfinished])]
            unfinished_before = unfinished_before[np.argsort(index[unfinished_before])]
            if self._names(unfinished) != self._names(unfinished_before):
                return False
            if not _close(left[now][unfinished], left[before][unfinished_before]):
                return False
            left = np.append(np.nan_to_num(left), np.zeros((len(left), 1)), axis=1)  # of what is NOTHING
            return _close(left[now][compared[0]], left[before][compared[1]])
        return True

    def _names(self, numbers: Ints) -> list[tuple[int, str, str]]:
        operations = [self._taped.operations[number] for number in numbers.tolist()]
        return [(o.stream.rank, o.stream.name, o.name) for o in operations]

    def _compared(self, now: int, before: int) -> tuple[Ints, Ints] | None:
        """Operations whose left has to be the same for two states to be so; None where they differ otherwise."""
        pairs: list[tuple[int, int]] = []
        states = self._taped_iterations.states
        if not all(_alike(found[now], found[before], pairs) for found in states):
            return None
        one, other = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(one, np.int64), np.array(other, np.int64)


def _close(one: Any, other: Any) -> bool:
    return bool((np.abs(one - other) <= CLOSE + 1e3 * CLOSE * np.maximum(np.abs(one), np.abs(other))).all())


def _alike(one: Any, other: Any, pairs: list[tuple[int, int]]) -> bool:
    """Whether two states are the same but for what operations have left; pairs of these are noted."""
    if isinstance(one, Left) and isinstance(other, Left):
        pairs.append((one.operation, other.operation))
        return True
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_alike(a, b, pairs) for a, b in zip(one, other, strict=True))
    return bool(one == other)


class TapedRun(Run):
    """A run from a tape: its times, operations and the memory that they take. Rates are formulas."""

    @property
    def operations(self) -> list[Operation]:
        """As of any run, in the order in which they were enqueued."""
        assert self.taped is not None
        return [operation for operation in self.taped.filled() if operation.iteration <= self.last]


def floats_of(profile: HardwareProfile) -> dict[tuple[str, str], float]:
    """(Section or tier, field) -> value, of all numbers that are no counts."""
    return {
        (name, field): value
        for name, section in profile.sections().items()
        for field, value in section.__dict__.items()
        if isinstance(value, float)
    }


def structure_of(profile: HardwareProfile) -> list[Any]:
    """What else a profile says that a run may depend on."""
    return [
        profile.gpus_per_node,
        *(
            (name, field, None if isinstance(value, float) else value)
            for name, section in profile.sections().items()
            for field, value in section.__dict__.items()
        ),
    ]


def with_floats(profile: HardwareProfile, values: Mapping[tuple[str, str], Any]) -> HardwareProfile:
    """The profile with other numbers."""
    changes: dict[str, dict[str, Any]] = {}
    for (name, field), value in values.items():
        changes.setdefault(name, {})[field] = value
    return profile.with_values(changes)
