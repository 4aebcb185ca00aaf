"""What holds for every schedule: cases of one, and checks of what they leave.

A package with a schedule of its own can use this file as it is: register the schedule, write down the bytes that it
moves on each route, and run the checks on each of `cases(name)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from offsim.engine import Operation, Resource, Tier
from offsim.platform.hardware import HardwareProfile, TierSpec
from offsim.platform.platform import GPU, HOST, tier_kind
from offsim.programs.run import Run
from offsim.programs.transformer import Workload
from offsim.results.limits import CriticalPaths, job_phases
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.scenario import load_scenario
from offsim.schedulers import ScheduleOptions, TrainingSchedule, find_scheduler, scenario_scheduler
from offsim.simulation import placed_states
from offsim.states.block import Block
from offsim.states.placement import Placed
from offsim.states.pool import Pool

CLOSE = 1e-9

# A small node and a small model

SECTIONS: dict[str, dict[str, Any]] = {
    "gpu": {
        "memory_bytes": 1e12, "reserved_bytes": 0.0, "matrix_flops_per_s": 1e14, "kernel_latency_s": 1e-6,
        "hbm_bytes_per_s": 1e12, "adam_params_per_s": 1e11, "peak_flops_per_s": 2e14,
    },
    "host": {
        "memory_bytes": 4e12, "numa_domains": 2, "memory_bytes_per_s": 1e11, "cores": 16.0, "cores_per_rank": 6.0,
        "adam_params_per_s": 1e9, "scale_params_per_s": 4e9, "downcast_params_per_s": 5e9,
        "upcast_params_per_s": 5e9, "module_launch_s": 1e-6, "subgroup_launch_s": 1e-6, "update_start_s": 1e-5,
    },
    "link": {
        "h2d_bytes_per_s": 2e10, "d2h_bytes_per_s": 2e10, "duplex_bytes_per_s": 3e10, "copy_latency_s": 1e-6,
        "pageable_h2d_bytes_per_s": 5e9, "pageable_d2h_bytes_per_s": 4e9,
    },
    "interconnect": {
        "gpu_bytes_per_s": 1e11, "nic_bytes_per_s": 2e10, "collective_latency_s": 1e-6, "collective_gpu_share": 0.1,
    },
}  # fmt: skip
TIERS: dict[str, dict[str, Any]] = {
    "nvme": {"capacity_bytes": 1e13, "read_bytes_per_s": 8e9, "write_bytes_per_s": 4e9, "latency_s": 1e-5},
    "pfs": {"scope": "job", "capacity_bytes": 1e15, "read_bytes_per_s": 6e9, "write_bytes_per_s": 5e9},
    "csd": {
        "kind": "csd", "capacity_bytes": 1e13, "read_bytes_per_s": 6e9, "write_bytes_per_s": 5e9,
        "device_read_bytes_per_s": 3e9, "device_write_bytes_per_s": 2e9, "device_params_per_s": 2e9, "devices": 3,
    },
    "cxl": {"kind": "memory", "capacity_bytes": 1e12, "read_bytes_per_s": 3e10, "write_bytes_per_s": 2e10},
}  # fmt: skip
MODEL = {
    "layers": 5, "hidden": 512, "ffn_hidden": 1024, "heads": 4, "kv_heads": 4, "vocab": 2048, "sequence": 128,
    "flash_attention": False,
}  # fmt: skip
SUBGROUP, BUCKET, LIVE = 300_000, 2_000_000, 6_000_000
"""Elements: about 15 sub-groups on each of two ranks, each of more than 1 MiB; 7 buckets; 3 layers gathered at once."""
RANKS = 2


def node(gpus_per_node: int = 4, **sections: Mapping[str, Any]) -> HardwareProfile:
    """A node of all kinds of tiers, with some values of some sections or tiers changed."""
    values: dict[str, Any] = {name: {**given, **sections.get(name, {})} for name, given in SECTIONS.items()}
    tiers = {name: TierSpec(**{**given, **sections.get(name, {})}) for name, given in TIERS.items()}
    return HardwareProfile(
        name="made-up", description="", gpus_per_node=gpus_per_node, validated=False, tiers=tiers, **values
    )


FREE = 1e24
"""A rate that makes work free."""


def free_but(**sections: Mapping[str, Any]) -> HardwareProfile:
    """A node on which nothing takes time but what is given."""

    def free(values: Mapping[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        for name in values:
            if name.endswith("_per_s"):
                changed[name] = FREE
            elif name.endswith("_s") or name == "collective_gpu_share":
                changed[name] = 0.0
        return changed

    changed = {name: {**free(values), **sections.get(name, {})} for name, values in {**SECTIONS, **TIERS}.items()}
    changed["host"] = {"cores": FREE, "numa_domains": 1, "copy_bytes_per_s": FREE, **changed["host"]}
    return node(**changed)


@contextmanager
def small_buckets() -> Iterator[None]:
    """Buckets and reuse distances in proportion to the model."""
    with (
        patch("offsim.programs.training.BUCKET_ELEMENTS", BUCKET),
        patch("offsim.programs.training.MAX_LIVE", LIVE),
    ):
        yield


# Cases


@dataclass(frozen=True)
class Case:
    """A schedule with options and a placement."""

    schedule: str
    options: Mapping[str, Any] = field(default_factory=dict)
    placement: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [*self.options.items(), *self.placement.items(), *self.training.items()]
        return " ".join([self.schedule, *(f"{name}={value}" for name, value in parts)])

    def on(self, **training: Any) -> Case:
        """The same with other values of training."""
        return replace(self, training={**self.training, **training})

    @property
    def scenario(self) -> dict[str, Any]:
        training = {"data_parallel": RANKS, "subgroup_size": SUBGROUP, **self.training}
        training.setdefault("global_batch", training["data_parallel"])
        return {
            "hardware": "jlse-4xh100",  # in whose place `node` comes
            "model": {**MODEL, **self.model},
            "training": training,
            "placement": dict(self.placement),
            "scheduler": {"name": self.schedule, **self.options},
        }

    def simulate(self, profile: HardwareProfile | None = None, **how: Any) -> Result:
        with small_buckets():
            return simulate(self.scenario, profile=profile or node(), **how)


def cases(name: str) -> list[Case]:
    """The schedule as it is, then with each value that an option offers, each placement and stage it is made for."""
    schedule = find_scheduler(name)
    found = [Case(name), Case(name, training={"global_batch": 3 * RANKS})]
    for option, values in offered(schedule.Options).items():
        found += [Case(name, options={option: value}) for value in values]
    found += [Case(name, placement=placement) for placement in placements(schedule)]
    found += [Case(name, training={"zero_stage": stage}) for stage in schedule.stages if stage != 3]
    if 3 not in schedule.stages:
        stage = schedule.stages[-1]
        found = [case if "zero_stage" in case.training else case.on(zero_stage=stage) for case in found]
    return found


def offered(options: type[ScheduleOptions]) -> dict[str, list[Any]]:
    """Option -> values worth trying, other than the default: those that it declares, all of a choice.

    Values that need others beside them are left out.
    """
    found: dict[str, list[Any]] = {}
    for name, described in options.model_fields.items():
        extra = described.json_schema_extra
        values = list(extra.get("try", ())) if isinstance(extra, dict) else []  # type: ignore[arg-type]
        if get_origin(described.annotation) is Literal:
            values = list(get_args(described.annotation))
        elif described.annotation is bool:
            values = [False, True]
        values = [value for value in values if value != described.default and accepts(options, {name: value})]
        found[name] = values[:: max(1, -(-len(values) // MOST_VALUES))]
    return found


MOST_VALUES = 4
"""Of one option; of more values some are left out."""


def accepts(options: type[ScheduleOptions], values: Mapping[str, Any]) -> bool:
    """Whether these are options without any other."""
    try:
        options.model_validate(dict(values))
    except ValidationError:
        return False
    return True


def placements(schedule: type[TrainingSchedule]) -> list[dict[str, Any]]:
    """Placements of each state in each kind of tier that the schedule is made for."""
    tiers = {"gpu": GPU, "memory": HOST, "storage": "nvme", "csd": "csd"}
    optimizer: list[Any] = [tiers[kind] for kind in schedule.optimizer_kinds]
    if "memory" in schedule.optimizer_kinds:
        optimizer.append("cxl")
        optimizer.append([{"tier": HOST, "share": 0.6}, {"tier": "cxl", "share": "rest"}])
    parameters = [tiers[kind] for kind in schedule.parameter_kinds if kind != GPU]
    found: list[dict[str, Any]] = []
    if GPU in schedule.optimizer_kinds and len(schedule.optimizer_kinds) > 1:
        split = [{"tier": GPU, "share": 0.4}, {"tier": schedule.optimizer_home, "share": "rest"}]
        optimizer.append(split)
        found += [{"parameters": place, "optimizer": split} for place in parameters]
    found += [{"optimizer": place} for place in optimizer]
    found += [{"parameters": place} for place in parameters]
    if "memory" in schedule.activation_kinds:
        found.append({"activations": {"tier": HOST}})
        found.append({"activations": {"tier": HOST, "recompute": 2}})
    return found


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
    def state_bytes(self) -> int:
        """Bytes of optimizer state for each parameter."""
        return self.schedule(self.options, self.workload, self.placed).state_bytes

    @property
    def owned(self) -> int:
        """Parameters whose update is the rank's."""
        return sum(s.elements for s in self.workload.subgroups)

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


def made(case: Case) -> TrainingSchedule:
    """The schedule of a case with its options."""
    known = facts(case)
    return find_scheduler(case.schedule)(known.options, known.workload, known.placed)


# Checks


def moved(run: Run) -> list[dict[str, float]]:
    """Bytes that each rank moves on each route in an iteration, mean of the measured ones.

    A route is a direction of the link (h2d, d2h), or reads or writes of a tier (nvme read, nvme write).
    """
    routes = {"h2d", "d2h"} | {f"{tier} {way}" for tier in run.profile.tiers for way in ("read", "write")}
    found: list[dict[str, float]] = [defaultdict(float) for _ in run.ranks]
    for operation in run.operations:
        if run.first <= operation.iteration <= run.last and operation.kind in routes:
            found[operation.stream.rank][operation.kind] += operation.bytes / run.iterations
    return [dict(ranks) for ranks in found]


def check_bytes(result: Result, expected: Mapping[str, float]) -> None:
    """Bytes on each route, of each rank, as the closed form says."""
    wanted = {route: nbytes for route, nbytes in expected.items() if nbytes}
    for rank in moved(result.run):
        assert rank == pytest.approx(wanted, rel=CLOSE)


Held = dict[str, dict[str, float]]
"""Tier -> occupant -> bytes of a rank."""


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


def first_held(tier: Tier) -> dict[str, float]:
    """Bytes of each occupant at the end of time zero."""
    return {occupant: nbytes for at, occupant, nbytes, _ in tier.series if at == 0.0}


def held_between(tier: Tier, time: float, end: float) -> dict[str, float]:
    """Bytes of each occupant where one iteration ends, after what it frees, and the next begins, before what it takes.

    `end` says what is a rounding error of the time.
    """
    held: dict[str, float] = {}
    for at, occupant, nbytes, _ in tier.series:
        if at < time - CLOSE * end or (at <= time + CLOSE * end and nbytes < held.get(occupant, 0.0)):
            held[occupant] = nbytes
    return {occupant: nbytes for occupant, nbytes in held.items() if nbytes >= 0.5}


def check_memory(run: Run) -> None:
    """No tier is below zero or above its capacity, and each is after a period as it was before."""
    for tracked in run.platform.tiers:
        tier = tracked.memory
        for _, _, nbytes, used in tier.series:
            assert nbytes >= -0.5
            assert -0.5 <= used <= tier.capacity
        if run.started_at > 0:
            before, after = (held_between(tier, time, run.ended_at) for time in (run.started_at, run.ended_at))
            assert after == pytest.approx(before, rel=CLOSE, abs=0.5), tier.name


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
    schedule = made(case)
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
    period = made(case).period
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


def check_one_for_all(case: Case) -> None:
    """On a node whose ranks are all in the same situation, one that stands for all says what all say."""
    wide = case.on(data_parallel=4, global_batch=4 * case.training.get("global_batch", RANKS) // RANKS)
    one, every = (wide.simulate(all_ranks=all_ranks) for all_ranks in (False, True))
    assert len(every.run.ranks) == 4
    assert one.durations == pytest.approx(every.durations, rel=1e-6)
    assert moved(every.run) == [pytest.approx(moved(one.run)[0])] * 4
    mine, theirs = (
        {tier.name: tier.memory.peak * tier.scale for tier in result.run.platform.tiers if tier.kind != GPU}
        for result in (one, every)
    )
    assert mine == pytest.approx(theirs)


def ended(run: Run) -> list[Operation]:
    """What has run: all but what ranks that end early left waiting in the next iteration."""
    assert all(operation.done for operation in run.operations)
    return [operation for operation in run.engine.operations if operation.done]


def check_order(run: Run) -> None:
    """No stream runs two operations at once; none starts before it is enqueued or what it waited for has ended."""
    by_stream = defaultdict(list)
    for operation in ended(run):
        assert operation.enqueued_at <= operation.started_at <= operation.ended_at
        assert operation.waited_for is None or operation.waited_for.ended_at <= operation.started_at
        by_stream[operation.stream].append(operation)
    for operations in by_stream.values():
        assert all(before.ended_at <= after.started_at for before, after in pairwise(operations))


def check_bounds(run: Run) -> None:
    """Nothing is faster than its resources' work, the chain of what it waited for, or its own time alone."""
    operations = ended(run)
    work: dict[Resource, float] = defaultdict(float)
    chain: dict[int, float] = {}
    for operation in sorted(operations, key=lambda o: (o.started_at, o.index)):
        assert operation.ended_at - operation.started_at >= operation.duration * (1 - CLOSE)
        for resource, rate in operation.usage:
            work[resource] += rate * operation.duration / resource.capacity
        before = chain.get(operation.waited_for.index, 0.0) if operation.waited_for else 0.0
        chain[operation.index] = before + operation.duration
    end = max(operation.ended_at for operation in operations)
    assert end >= max(work.values()) * (1 - CLOSE)
    assert end >= max(chain.values()) * (1 - CLOSE)


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


CPU_KINDS = {"cpu_adam", "scaling", "conversion", "host copy"}


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
