"""Closed forms of bytes, times and memory that schedules are held to, beside what `offsim.testing` checks of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest

from offsim.engine import Operation, Tier
from offsim.platform.hardware import HardwareProfile
from offsim.platform.platform import GPU, tier_kind
from offsim.programs.run import Run
from offsim.programs.transformer import Workload
from offsim.results.limits import CriticalPaths, job_phases
from offsim.results.result import Result
from offsim.scenario import load_scenario
from offsim.schedulers import TrainingSchedule, scenario_scheduler
from offsim.simulation import placed_states
from offsim.states.block import Block
from offsim.states.placement import Placed
from offsim.states.pool import Pool
from offsim.testing import (
    CLOSE,
    FREE,
    LIVE,
    RANKS,
    SECTIONS,
    TIERS,
    Case,
    check_bounds,
    check_memory,
    check_one_for_all,
    check_order,
    free_but,
    moved,
    node,
)

# Facts for closed forms


@dataclass(frozen=True)
class Facts:
    """What closed forms are made of. Elements are those of a rank."""

    workload: Workload
    placed: Placed
    options: Any
    profile: HardwareProfile
    schedule: type[TrainingSchedule]

    @property
    def made(self) -> TrainingSchedule:
        """The schedule with its options."""
        return self.schedule(self.options, self.workload, self.placed)

    @property
    def state_bytes(self) -> int:
        """Bytes of optimizer state for each parameter."""
        return self.made.state_bytes

    @property
    def owned(self) -> int:
        """Parameters whose update is the rank's."""
        return self.workload.partition

    @property
    def micro_steps(self) -> int:
        return self.workload.training.micro_steps

    @property
    def ranks(self) -> int:
        return self.workload.training.data_parallel

    def on(self, *kinds: str) -> int:
        """Elements of sub-groups whose optimizer state is in tiers of these kinds."""
        places = zip(self.workload.subgroups, self.placed.optimizer, strict=True)
        return sum(s.elements for s, tier in places if tier_kind(self.profile, tier) in kinds)

    @property
    def off_gpu(self) -> int:
        return self.on("memory", "storage")

    def fetched(self, live: int | None = None, micro_steps: int = 0) -> float:
        """Elements of the rank's slices that come to the GPU in an iteration, where parameters live elsewhere.

        Each layer in each forward, and in each backward those that have not stayed gathered, which are the last `live`;
        embedding and head once. `micro_steps` are those of the training if none are given.
        """
        model = self.workload.model
        most = max(-(-LIVE // self.workload.layer_elements), 2)
        live = min(most if live is None else live, model.layers)
        layers = (micro_steps or self.micro_steps) * (2 * model.layers - live)
        vocabularies = 1 if model.tied_embeddings else 2
        return (layers * self.workload.layer_elements + vocabularies * self.workload.vocab_elements) / self.ranks

    def activations(self) -> float:
        """Bytes that leave the GPU in forward and come back: those of all layers but the last."""
        layers = self.workload.model.layers - 1
        inputs = min(self.placed.recomputed, layers)
        whole = self.workload.layer_activation_bytes
        return self.micro_steps * (inputs * self.workload.hidden_bytes + (layers - inputs) * whole)


def facts(case: Case, profile: HardwareProfile | None = None) -> Facts:
    """Work out the facts of a case."""
    hardware, scenario = profile or node(), load_scenario(case.scenario)
    schedule, options = scenario_scheduler(scenario)
    workload = Workload(scenario.model, scenario.training, schedule.by_layer)
    placed = placed_states(scenario, hardware, workload, schedule, options)
    return Facts(workload, placed, options, hardware, schedule)


# Checks


Held = dict[str, dict[str, float]]
"""Tier -> occupant -> bytes of a rank."""


CPU_KINDS = {"cpu_adam", "scaling", "conversion", "host copy"}


def last(run: Run, *kinds: str) -> list[Operation]:
    """Operations of the last iteration, of these kinds or of all."""
    return [o for o in run.operations if o.iteration == run.last and (not kinds or o.kind in kinds)]


def check_run(result: Result, known: Facts, expected: Mapping[str, float], held_by: Held | None = None) -> None:
    """It fits and moves these bytes; states are where they are placed; memory, order and bounds are as of any run."""
    assert result.fits
    check_bytes(result, expected)
    check_placement(result, known, held_by)
    check_memory(result.run)
    check_order(result.run)
    check_bounds(result.run)


def check_bytes(result: Result, expected: Mapping[str, float]) -> None:
    """Bytes on each route, of each rank, as the closed form says."""
    wanted = {route: nbytes for route, nbytes in expected.items() if nbytes}
    for rank in moved(result.run):
        assert rank == pytest.approx(wanted, rel=CLOSE)


def check_placement(result: Result, known: Facts, held_by: Held | None = None) -> None:
    """Each tier holds p, m and v of the sub-groups that are placed there, and the parameters that are.

    `held_by` says what tiers hold instead, where the schedule's states are others.
    """
    ranks = len(result.run.ranks)
    occupants: dict[str, dict[str, float]] = {}
    for tracked in result.run.platform.tiers:
        if tracked.kind == GPU and tracked.name != "GPU 0":
            continue
        share = ranks if tracked.kind != GPU else 1
        held = {name: nbytes / share for name, nbytes in first_held(tracked.memory).items()}
        occupants[GPU if tracked.kind == GPU else tracked.name] = held
    if held_by is not None:
        for tier, expected in held_by.items():
            assert {name: occupants[tier].get(name) for name in expected} == pytest.approx(expected), tier
        return
    for tier, held in occupants.items():
        placed = zip(known.workload.subgroups, known.placed.optimizer, strict=True)
        elements = sum(s.elements for s, place in placed if place == tier)
        state = sum(nbytes for name, nbytes in held.items() if name.startswith("optimizer state"))
        assert state == pytest.approx(known.state_bytes * elements), tier
        parameters = known.workload.resident if tier == known.placed.parameters else 0
        assert held.get("parameters (bf16)", 0.0) == pytest.approx(known.schedule.parameter_bytes * parameters), tier


def check_longest_chain(case: Case) -> None:
    """Where nothing that is shared is scarce, an iteration takes the longest chain of work alone."""
    ample = {"memory_bytes_per_s": FREE, "cores": FREE}
    link = {"duplex_bytes_per_s": FREE}
    quick = {name: {rate: FREE for rate in tier if rate.endswith("_per_s")} for name, tier in TIERS.items()}
    hardware = node(host=ample, link=link, interconnect={"collective_gpu_share": 0.0}, **quick)
    # Kernels and casts of several streams share the GPU: these take no time here.
    free = {"hbm_bytes_per_s": FREE, "matrix_flops_per_s": FREE, "adam_params_per_s": FREE, "kernel_latency_s": 0.0}
    result = case.simulate(node(**{**_changes(hardware), "gpu": free}))
    run = result.run
    for operation in run.operations:
        assert operation.slowdowns is None or operation.ended_at - operation.started_at == pytest.approx(
            operation.duration, abs=1e-9
        )
    paths = CriticalPaths(run)
    steps = [step for phase in job_phases(run) for step in paths.walk(phase)]
    assert all(step.operation is not None for step in steps)
    assert sum(step.end - step.start for step in steps) == pytest.approx(run.ended_at - run.started_at)


def _changes(profile: HardwareProfile) -> dict[str, dict[str, Any]]:
    return {name: values.model_dump() for name, values in profile.sections().items() if name != "measurement"}


def check_ranks_on_one_link(case: Case) -> None:
    """With all else free, four ranks behind one port take four times as long as each behind its own."""
    wide = case.on(data_parallel=4, global_batch=4 * case.training.get("global_batch", RANKS) // RANKS)
    seconds = []
    for sharers in (1, 4):
        port = {"gpus_per_uplink": sharers, "uplink_bytes_per_s": 1e9}
        for all_ranks in (False, True):
            seconds.append(wide.simulate(free_but(link=port), all_ranks=all_ranks).iteration_s)
    assert seconds[1] == pytest.approx(seconds[0], rel=1e-6)
    assert seconds[2:] == pytest.approx([4 * seconds[0]] * 2, rel=1e-6)


def check_link_alone(case: Case, expected: Mapping[str, float]) -> None:
    """With all else free, an iteration takes the bytes of both directions over the rate of the link."""
    rate = 1e9
    rates = ("h2d", "d2h", "duplex", "pageable_h2d", "pageable_d2h")
    hardware = free_but(link={f"{name}_bytes_per_s": rate for name in rates})
    crossing = expected.get("h2d", 0.0) + expected.get("d2h", 0.0)
    assert case.simulate(hardware).iteration_s == pytest.approx(crossing / rate, rel=1e-6, abs=1e-6)


def check_storage_alone(case: Case, expected: Mapping[str, float]) -> None:
    """With all else free, an iteration takes what the ranks read and write over the rates of the device."""
    for tier, spec in TIERS.items():
        read, write = (expected.get(f"{tier} {way}", 0.0) for way in ("read", "write"))
        rates = {name: spec[name] for name in ("read_bytes_per_s", "write_bytes_per_s")}
        seconds = RANKS * (read / rates["read_bytes_per_s"] + write / rates["write_bytes_per_s"])
        if seconds:
            assert case.simulate(free_but(**{tier: rates})).iteration_s == pytest.approx(seconds, rel=1e-6)


def check_cpu_alone(case: Case) -> None:
    """With all else free, an iteration takes the sum of the CPU's work, which all cores do together.

    Where threads have shares of the cores, some work is always under way, and no more than the cores can do.
    """
    cores = 6.0
    rates = {name: value for name, value in SECTIONS["host"].items() if name.endswith("params_per_s")}
    result = case.on(data_parallel=1, global_batch=1).simulate(free_but(host={**rates, "cores": cores}))
    run = result.run
    work = [o for o in run.operations if run.first <= o.iteration <= run.last and o.kind in CPU_KINDS and o.usage]
    shares = [sum(rate for resource, rate in o.usage if resource.name.startswith("CPU cores")) / cores for o in work]
    done = sum(o.duration * share for o, share in zip(work, shares, strict=True)) / run.iterations
    if all(share == pytest.approx(1.0) for share in shares if share):
        assert result.iteration_s == pytest.approx(done, rel=1e-6, abs=1e-9)
        return
    assert done <= result.iteration_s * (1 + 1e-6)
    busy, until = 0.0, run.started_at
    for start, end in sorted((o.started_at, o.ended_at) for o in run.operations if o.kind in CPU_KINDS and o.usage):
        busy += max(0.0, min(end, run.ended_at) - max(start, until))
        until = max(until, end)
    assert result.iteration_s == pytest.approx(busy / run.iterations, rel=1e-6, abs=1e-9)


@contextmanager
def pools_of(slots: int) -> Iterator[list[Pool]]:
    """All pools have so many times the buffers that the largest request takes; yields the pools made."""
    made: list[Pool] = []
    make = Pool.__init__

    def record(pool: Pool, tier: Tier, name: str, count: int, nbytes: float) -> None:
        make(pool, tier, name, min(slots, count), nbytes)
        made.append(pool)

    with patch.object(Pool, "__init__", record):
        yield made


def check_small_pools(case: Case, slots: int) -> bool:
    """No deadlock with pools of so few buffers: the run ends, or says that a request is larger than its pool.

    Returns whether the schedule has pools.
    """
    with pools_of(slots) as pools:
        run = case.simulate().run
    if run.out_of_memory is not None:
        assert run.out_of_memory.tier in [pool.slots for pool in pools]
        assert run.out_of_memory.asked > slots
    for pool in pools:
        assert pool.slots.peak <= slots
    return bool(pools)


def first_held(tier: Tier) -> dict[str, float]:
    """Bytes of each occupant at the end of time zero."""
    return {occupant: nbytes for at, occupant, nbytes, _ in tier.series if at == 0.0}


@contextmanager
def reads_of_parameters() -> Iterator[list[tuple[Block, int, int, Operation | None]]]:
    """Record (block, iteration that reads it, updates that it is behind, what wrote it) of all reads."""
    found: list[tuple[Block, int, int, Operation | None]] = []
    check = Block.check

    def record(block: Block, iteration: int, lag: int) -> None:
        found.append((block, iteration, iteration - 1 - block.version, block.since))
        check(block, iteration, lag)

    with patch.object(Block, "check", record):
        yield found


def check_versions(case: Case) -> None:
    """No kernel reads parameters that are more updates behind than the schedule's lag; and it waits for them."""
    schedule = facts(case).made
    with reads_of_parameters() as reads:
        run = case.simulate().run
    assert {iteration for _, iteration, _, _ in reads} >= set(range(1, run.last + 1))
    assert all(0 <= behind <= schedule.lag for _, _, behind, _ in reads)
    if not schedule.waits_for_parameters:
        return
    first = {}  # the first kernel of each layer in each iteration
    layers = run.workload.model.layers
    others = {"embedding": -1, "head and loss": -1 if run.workload.model.tied_embeddings else layers}
    for operation in run.operations:
        layer = operation.layer if operation.layer >= 0 else others.get(operation.name)
        if operation.kind == "compute" and layer is not None:
            first.setdefault((operation.stream.rank, operation.iteration, layer), operation)
    for (rank, iteration, layer), kernel in first.items():
        for index in run.workload.subgroups_of_layers[layer]:
            block = run.ranks[rank].parameters[index]
            writes = [since for read, at, _, since in reads if read is block and at == iteration]
            assert writes
            assert all(since is None or since.ended_at <= kernel.started_at for since in writes)


def check_repeats(case: Case) -> None:
    """An iteration and the one a period later take the same time, phase by phase."""
    period = facts(case).made.period
    run = case.simulate().run
    assert run.settled
    assert run.iterations == period
    periods = -(-run.last // period) + 2
    with patch("offsim.programs.run.MAX_PERIODS", periods), patch("offsim.programs.run._alike", lambda *_: False):
        longer = case.simulate().run
    assert longer.last == periods * period
    for iteration in range(run.first, run.last + 1):
        for rank in run.ranks:
            known, later, last = (
                [(phase.name, phase.end - phase.start) for phase in of.phases
                 if (phase.rank, phase.iteration) == (rank.number, number)]
                for of, number in ((run, iteration), (longer, iteration + period), (longer, iteration + 2 * period))
            )  # fmt: skip
            assert [name for name, _ in known] == [name for name, _ in later]
            scale = (run.ended_at - run.started_at) * 1e-6
            assert [seconds for _, seconds in later] == pytest.approx([s for _, s in known], rel=1e-6, abs=scale)
            assert [seconds for _, seconds in last] == pytest.approx([s for _, s in known], rel=1e-6, abs=scale)


CHECKS = (check_versions, check_repeats, check_one_for_all, check_longest_chain, check_ranks_on_one_link)
"""What holds of every schedule, whatever it moves."""
