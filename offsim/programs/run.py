"""Iterations on every simulated rank of a node, until they repeat."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from offsim.engine import Code, Engine, Operation, OutOfMemory, Tier
from offsim.engine.engine import TooManyOperations
from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile
from offsim.platform.layout import Layout
from offsim.platform.platform import OrderAmongRanks, Platform
from offsim.programs.checkpoints import Checkpoints
from offsim.programs.checks import check_driven, check_run, explained
from offsim.programs.rank import Collectives, Rank
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.training import Training
from offsim.programs.transformer import Workload
from offsim.programs.zeroth_order import ZerothOrder
from offsim.states.block import Block
from offsim.states.checkpoint import Checkpoint
from offsim.states.placement import Placed

if TYPE_CHECKING:
    from offsim.tape.tables import Taped

PROGRAMS: dict[str, Callable[[Rank, Any], Training | ZerothOrder]] = {
    "training": Training,
    "zeroth_order": ZerothOrder,
}
"""What a rank computes, by the name that its schedule gives."""
MAX_PERIODS = 8
"""Periods after which a run that does not repeat is given up."""
CLOSE = 1e-9
"""Relative difference of times that are taken as equal: rounding."""


MAX_OPERATIONS = 500_000
"""Operations of a run, unless an argument or the environment variable OFFSIM_MAX_OPERATIONS says otherwise."""
OPERATIONS_OF_A_LAYER = 13
"""In a micro-step, on a rank: dos_20b_4xh100 has 54,184 in a hundred micro-steps of its 40 layers."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of one rank's iteration; gradient accumulation repeats forward and backward."""

    rank: int
    iteration: int
    name: str
    start: float
    end: float


@dataclass
class Run:
    """What a simulation leaves: operations, phases and memory, or why it could not go on.

    The measured iterations are the last period of the schedule, from `started_at` to `ended_at`.
    """

    profile: HardwareProfile
    workload: Workload
    layout: Layout
    engine: Engine
    platform: Platform
    ranks: list[Rank]
    forwards: int
    """Forward passes that the matrix work of a micro-batch is worth."""
    phases: list[Phase] = field(default_factory=list)
    first: int = 1
    """The first measured iteration."""
    last: int = 1
    started_at: float = 0.0
    ended_at: float = 0.0
    settled: bool = True
    """Whether the measured iterations end in the state that they began in, and so go on to repeat."""
    drift: float = 0.0
    """Share by which the last two periods differ in time where the iterations have not settled."""
    unused: str = ""
    """What the schedule is chosen for, but does not do."""
    out_of_memory: OutOfMemory | None = None
    taped: Taped | None = None
    """The tape that it is the last run of, if it is one's."""

    @property
    def operations(self) -> list[Operation]:
        """What has run, but for the next iteration, which ranks that end early have begun."""
        return [operation for operation in self.engine.operations if operation.iteration <= self.last]

    @property
    def iterations(self) -> int:
        """How many iterations are measured."""
        return self.last - self.first + 1


AnyRun = TypeVar("AnyRun", bound=Run)


def run_training(
    profile: HardwareProfile,
    workload: Workload,
    schedule: type[TrainingSchedule],
    options: Any,
    placed: Placed,
    all_ranks: bool = False,
    stretch: Mapping[str, float] | None = None,
    checkpoint: Checkpoint | None = None,
    bounded: bool = True,
    max_operations: int | None = None,
    record: bool = False,
) -> Run:
    """Simulate iterations until they repeat; all ranks where they share something that has an order.

    Unless `bounded`, memory tiers have room beyond their capacity.
    """
    most = most_operations(max_operations)
    with no_garbage_collection():
        try:
            return _run(
                profile, workload, schedule, options, placed, all_ranks, stretch, checkpoint, bounded, most, record
            )
        except OrderAmongRanks:
            return _run(profile, workload, schedule, options, placed, True, stretch, checkpoint, bounded, most, record)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: a simulation makes many records and no garbage in circles.

    What is left counts as old, so that the collector does not go through all of it as soon as it is on again.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_freeze_count() == 0:  # `unfreeze` would take back what others froze
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def most_operations(given: int | None = None) -> int:
    """How many operations a run may have: as given, or as the environment says; InputError where that is no number."""
    text = str(given) if given is not None else os.environ.get("OFFSIM_MAX_OPERATIONS") or str(MAX_OPERATIONS)
    try:
        most = float(text)
    except ValueError:
        most = math.nan
    if not 1 <= most < math.inf:
        where = "OFFSIM_MAX_OPERATIONS" if given is None else "max_operations"
        raise InputError(f"found '{text[:40]}', expected a number of operations of at least 1", where)
    return int(most)


def check_size(layers: int, micro_steps: int, layout: Layout, most: int) -> None:
    """Raise InputError for what would be too many operations, before anything is made."""
    expected = OPERATIONS_OF_A_LAYER * layers * micro_steps * layout.simulated
    if expected > most:
        of = f"{layers:,} layers x {micro_steps:,} micro-steps x {layout.simulated:,} simulated ranks"
        raise too_many(f"an iteration has about {expected:,} operations ({of})", most)


def too_many(found: str, most: int) -> InputError:
    """The error about too many operations; it names what raises the limit."""
    how = "`offsim --max-operations N COMMAND ...`, max_operations=N in Python"
    return InputError(f"{found}, expected at most {most:,}: more take minutes and gigabytes; raise it by {how}")


def _run(
    profile: HardwareProfile,
    workload: Workload,
    schedule: type[TrainingSchedule],
    options: Any,
    placed: Placed,
    all_ranks: bool,
    stretch: Mapping[str, float] | None,
    checkpoint: Checkpoint | None,
    bounded: bool,
    most: int,
    record: bool,
) -> Run:
    engine = Engine(stretch, most, record)
    run = run_on(engine, profile, workload, schedule, all_ranks, Run)
    for tier in run.platform.tiers:
        tier.memory.grows = not bounded
    ranks = run.ranks
    schedules: list[TrainingSchedule] = []
    try:
        schedules += [schedule(options, workload, placed) for _ in ranks]
        run.unused = schedules[0].unused()
        iterations = Iterations(run, schedules, checkpoint)
        for rank in ranks:
            engine.spawn(rank.host, iterations.of(rank))
        engine.env.run()
        if not iterations.over:
            engine.check_ended()
        check_driven(schedules)
        check_run(run, schedules)
    except OutOfMemory as verdict:
        run.out_of_memory = verdict
        run.last = max((rank.iteration for rank in ranks), default=1)
        run.first = run.last
    except (InputError, OrderAmongRanks):
        raise
    except TooManyOperations:
        at = run.ranks[0].iteration
        raise too_many(f"iteration {at} of {schedule.name} has begun its {most + 1:,}th operation", most) from None
    except Exception as error:
        check_driven(schedules)
        raise explained(error, schedule, engine)  # noqa: B904  # its cause is what the schedule's code raised
    finally:
        engine.close()
    return run


def run_on(
    engine: Engine,
    profile: HardwareProfile,
    workload: Workload,
    schedule: type[TrainingSchedule],
    all_ranks: bool,
    kind: type[AnyRun],
) -> AnyRun:
    """A run that has not begun: a platform and ranks on an engine."""
    training = workload.training
    layout = Layout.of(training.data_parallel * training.tensor_parallel, profile, all_ranks, training.tensor_parallel)
    check_size(workload.model.layers, training.micro_steps, layout, engine.most)
    platform, collectives = Platform(engine, profile, layout), Collectives(layout.simulated)
    ranks = [Rank(engine, platform, number, workload, collectives) for number in range(layout.simulated)]
    return kind(profile, workload, layout, engine, platform, ranks, schedule.forwards)


class Iterations:
    """Repeats the iteration of each rank until the state at its beginning is one seen a period before."""

    def __init__(self, run: Run, schedules: list[TrainingSchedule], checkpoint: Checkpoint | None) -> None:
        self.run = run
        self.schedules = schedules
        self.period = math.lcm(schedules[0].period, checkpoint.every if checkpoint else 1)
        self.programs = [
            PROGRAMS[schedule.program](rank, schedule) for rank, schedule in zip(run.ranks, schedules, strict=True)
        ]
        for rank, schedule in zip(run.ranks, schedules, strict=True):
            version = -int(schedule.starts_with_update)
            rank.parameters = [
                Block(f"the parameters of sub-group {s.index}", version) for s in rank.workload.subgroups
            ]
            schedule.place(rank)
        if checkpoint:
            for program in self.programs:
                assert isinstance(program, Training)
                program.checkpoints = Checkpoints(program.rank, program.schedule, checkpoint)
        self._begun: list[tuple[float, Any]] = []
        """Of each iteration: when its last rank began it, and the state that it found."""
        self._ready = [0] * len(run.ranks)
        self._since = [0.0] * len(run.ranks)
        """The iteration that each rank began last, and when."""
        self.over = False
        """Whether ranks have stopped. Those that had begun the next iteration then wait for the others in vain."""

    def of(self, rank: Rank) -> Code:
        """The host thread's code of a rank."""
        program = self.programs[rank.number]
        if program.schedule.starts_with_update:
            rank.host.phase, update = list(program.phases())[-1]
            yield from update
        while True:
            rank.host.iteration += 1
            self._begin(rank)
            if len(self.run.ranks) > 1:  # those that begin at this instant too find the same state
                yield self.run.engine.pause(rank.host)
            if self.over:
                return
            for name, code in program.phases():
                rank.host.phase = name
                start = self.run.engine.env.now
                yield from code
                phase = Phase(rank.number, rank.iteration, name, start, self.run.engine.env.now)
                self.run.phases.append(phase)

    def _begin(self, rank: Rank) -> None:
        """Note that a rank begins an iteration; the last one to do so sees whether the state repeats."""
        self._ready[rank.number] = rank.iteration
        self._since[rank.number] = self.run.engine.env.now
        if min(self._ready) < rank.iteration or len(self._begun) >= rank.iteration:
            return
        run, now = self.run, self.run.engine.env.now
        self._begun.append((now, self._state(rank.iteration)))
        run.started_at, run.first, run.last = now, rank.iteration, rank.iteration
        done = rank.iteration - 1
        if done < self.period:
            return
        repeats = _alike(self._begun[-1][1], self._begun[-1 - self.period][1])
        if repeats or done >= MAX_PERIODS * self.period:
            self.over = True
            run.settled = repeats
            run.first, run.last = done - self.period + 1, done
            run.started_at, run.ended_at = self._begun[done - self.period][0], now
            if not repeats:
                before = run.started_at - self._begun[done - 2 * self.period][0]
                run.drift = abs(run.ended_at - run.started_at - before) / before

    def _state(self, iteration: int) -> list[Any]:
        """What the next iteration depends on: unfinished work, memory, pools, and what ranks and schedules keep."""
        run = self.run
        now = run.engine.env.now
        unfinished = [[o.stream.rank, o.stream.name, o.name, o.left(now)] for o in run.engine.unfinished()]
        memory = [
            [[name, round(held)] for name, held in sorted(tier.memory.occupants.items()) if held >= 1]
            for tier in run.platform.tiers
        ]
        blocks = [
            (iteration - block.version, 0.0 if block.since is None else block.since.left(now))
            for rank in run.ranks
            for block in rank.parameters
        ]
        kept = [
            kept_state(vars(part), lambda operation: operation.left(now), lambda tier: tier.used)
            for schedule in self.schedules
            for part in (schedule, schedule.activations)
        ]
        skew = [now - since for since in self._since]
        return [unfinished, memory, blocks, kept, skew]


def kept_state(value: Any, left: Callable[[Operation], Any], used: Callable[[Tier], Any]) -> Any:
    """The value of an attribute as it is now, to compare with what it is later. Tuples never change.

    Of operations what is `left` of them matters, of pools what is `used`.
    """
    if isinstance(value, Operation):
        return left(value)
    if isinstance(value, Tier):
        return used(value)
    if isinstance(value, dict):
        return [[key, kept_state(item, left, used)] for key, item in value.items()]
    if isinstance(value, list | set):
        return [kept_state(item, left, used) for item in value]
    return kept_state(value.state(), left, used) if hasattr(type(value), "state") else value


def _alike(one: Any, other: Any) -> bool:
    """Whether two states are the same but for rounding of times."""
    if one == other:
        return True
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_alike(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e3 * CLOSE, abs_tol=CLOSE)
    return False
