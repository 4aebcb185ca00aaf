"""One training iteration on every simulated rank of a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from simpy import AllOf

from offsim.engine import Engine, OutOfMemory
from offsim.platform.hardware import HardwareProfile
from offsim.platform.node import Layout, Node
from offsim.programs.rank import Collectives, Process, Rank
from offsim.programs.transformer import Workload
from offsim.programs.zero3 import PassCosts, Zero3
from offsim.schedulers.base import Scheduler, SchedulerOptions


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of one rank's iteration; gradient accumulation repeats forward and backward."""

    rank: int
    name: str
    start: float
    end: float


@dataclass
class Run:
    """What a simulation leaves: operations, phases and memory, or why it could not go on."""

    profile: HardwareProfile
    workload: Workload
    layout: Layout
    engine: Engine
    node: Node
    ranks: list[Rank]
    phases: list[Phase] = field(default_factory=list)
    started_at: float = 0.0
    out_of_memory: OutOfMemory | None = None


def run_iteration(
    profile: HardwareProfile,
    workload: Workload,
    scheduler: type[Scheduler],
    options: SchedulerOptions,
    all_ranks: bool = False,
    stretch: Mapping[str, float] | None = None,
) -> Run:
    """Simulate one iteration; where the scheduler carries work over, the update before it as well."""
    engine = Engine(stretch)
    training = workload.training
    layout = Layout.of(training.data_parallel * training.tensor_parallel, profile, all_ranks)
    node = Node(engine, profile, layout)
    collectives = Collectives(layout.simulated)
    ranks = [Rank(engine, node, number, workload, collectives) for number in range(layout.simulated)]
    run = Run(profile, workload, layout, engine, node, ranks)
    try:
        processes = [engine.env.process(_train(run, rank, scheduler(options, workload))) for rank in ranks]
        engine.env.run(until=AllOf(engine.env, processes))
        engine.env.run()
    except OutOfMemory as verdict:
        run.out_of_memory = verdict
    finally:
        engine.close()
    return run


def _train(run: Run, rank: Rank, scheduler: Scheduler) -> Process:
    zero3 = Zero3(rank, PassCosts.of(rank))
    scheduler.allocate(rank)
    if scheduler.carries_over:
        rank.phase = "update"
        yield from scheduler.update(rank)
        run.started_at = run.engine.env.now
    run.engine.iteration = 1
    for name, process in phase_processes(rank, zero3, scheduler):
        yield from _phase(run, rank, name, process)
    zero3.release_vocabulary()


def phase_processes(rank: Rank, zero3: Zero3, scheduler: Scheduler) -> Iterator[tuple[str, Process]]:
    """The phases of an iteration in order, each with the host thread's code that runs it."""
    steps = rank.workload.training.micro_steps
    for step in range(steps):
        yield "forward", zero3.forward()
        flush = partial(scheduler.flush, first=step == 0, last=step == steps - 1)
        yield "backward", zero3.backward(flush)
    yield "update", scheduler.update(rank)


def _phase(run: Run, rank: Rank, name: str, process: Process) -> Process:
    rank.phase = name
    start = run.engine.env.now
    yield from process
    run.phases.append(Phase(rank.number, name, start, run.engine.env.now))
