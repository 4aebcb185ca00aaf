"""What holds for every schedule, for the tests of packages that have schedules of their own.

from offsim.testing import check_scheduler

def test_my_scheduler():
    check_scheduler(MyScheduler)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

from pydantic import ValidationError

from offsim.engine import Operation, Resource, Tier
from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile, TierSpec
from offsim.platform.platform import GPU, HOST
from offsim.programs.run import Run
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.schedulers import ScheduleOptions, TrainingSchedule, find_scheduler, registry

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


def node(**sections: Mapping[str, Any]) -> HardwareProfile:
    """A node of all kinds of tiers, with some values of some sections or tiers changed."""
    values: dict[str, Any] = {name: {**given, **sections.get(name, {})} for name, given in SECTIONS.items()}
    tiers = {name: TierSpec(**{**given, **sections.get(name, {})}) for name, given in TIERS.items()}
    return HardwareProfile(name="made-up", description="", gpus_per_node=4, validated=False, tiers=tiers, **values)


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
        """What is simulated."""
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
        """The result on a node of all kinds of tiers, or on another one."""
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


# Checks


def check_scheduler(scheduler: type[TrainingSchedule]) -> None:
    """Raise one AssertionError for what a schedule breaks on a small model and node.

    It runs as it is, with each value of its options and each placement that it declares; with several micro-steps,
    ranks, all ranks of a node, one sub-group, and too little memory. Each run holds what `offsim.programs.checks`
    says, comes to repeat, gives its memory back, keeps the order of streams, and is no faster than any of its resources
    allows. The schedule need not be registered.
    """
    with patch.dict(registry.BUILT_IN, {scheduler.name: scheduler}):
        plain, *others = cases(scheduler.name)
        batch = plain.training.get("global_batch", RANKS) // RANKS
        one = plain.on(data_parallel=1, global_batch=batch)
        for case in (plain, one, plain.on(subgroup_size=10**9), plain.on(subgroup_size=60_000), *others):
            with _named(case):
                _check(case.simulate())
        with _named(plain, "all ranks of a node"):
            check_one_for_all(plain)
        with _named(plain, "little memory"):
            for share in (0.3, 0.6, 0.9):
                _simulate_with_less(plain, share)


@contextmanager
def _named(case: Case, what: str = "") -> Iterator[None]:
    try:
        yield
    except (AssertionError, InputError) as error:
        of = f"{case}{', ' * bool(what)}{what}"
        raise AssertionError(f"with {of}: {error}") from error.__cause__


def _check(result: Result) -> None:
    run = result.run
    assert result.fits, str(result.verdict)
    check_memory(run)
    assert run.settled, (
        f"iterations do not come to repeat: the last {run.iterations} differ in time by {100 * run.drift:.2g} %, or "
        "leave something behind; `period` is how many of them repeat, `state()` makes attributes comparable"
    )
    check_order(run)
    check_bounds(run)


def _simulate_with_less(case: Case, share: float) -> None:
    """A share of what it takes is too little: a verdict that names the tier, and no error."""
    full = case.simulate()
    for section, peak in (("gpu", full.gpu_peak_bytes), ("host", full.host_peak_bytes)):
        if peak > 0:
            result = case.simulate(node(**{section: {"memory_bytes": share * peak}}))
            assert not result.fits, f"{section} memory of {share * peak:.3g} B is enough, but {peak:.3g} B were in use"


def close(one: float, other: float, rel: float = CLOSE, least: float = 0.0) -> bool:
    """Whether two numbers are the same but for rounding."""
    return math.isclose(one, other, rel_tol=rel, abs_tol=least)


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
            assert nbytes >= -0.5, f"{tier.name} holds {nbytes:.6g} B, expected at least none"
            assert -0.5 <= used <= tier.capacity, f"{tier.name} holds {used:.6g} B of {tier.capacity:.6g} B"
        if run.started_at > 0:
            before, after = (held_between(tier, time, run.ended_at) for time in (run.started_at, run.ended_at))
            for name in {**before, **after}:
                held, left = before.get(name, 0.0), after.get(name, 0.0)
                problem = f"{tier.name} holds {left:.6g} B of '{name}' after a period, {held:.6g} B before it"
                assert close(left, held, least=0.5), problem


def ended(run: Run) -> list[Operation]:
    """What has run: all but what ranks that end early left waiting in the next iteration."""
    assert all(operation.done for operation in run.operations), "an operation of a measured iteration never ends"
    return [operation for operation in run.engine.operations if operation.done]


def check_order(run: Run) -> None:
    """No stream runs two operations at once; none starts before it is enqueued or what it waited for has ended."""
    by_stream = defaultdict(list)
    for operation in ended(run):
        assert operation.enqueued_at <= operation.started_at <= operation.ended_at, f"{operation} goes back in time"
        before = operation.waited_for
        assert before is None or before.ended_at <= operation.started_at, f"{operation} starts before {before} ends"
        by_stream[operation.stream].append(operation)
    for operations in by_stream.values():
        for before, after in pairwise(operations):
            assert before.ended_at <= after.started_at, f"{after} starts before {before} ends, on one stream"


def check_bounds(run: Run) -> None:
    """Nothing is faster than its resources' work, the chain of what it waited for, or its own time alone."""
    operations = ended(run)
    work: dict[Resource, float] = defaultdict(float)
    chain: dict[int, float] = {}
    for operation in sorted(operations, key=lambda o: (o.started_at, o.index)):
        took = operation.ended_at - operation.started_at
        assert took >= operation.duration * (1 - CLOSE), f"{operation} takes {took} s, {operation.duration} s alone"
        for resource, rate in operation.usage:
            work[resource] += rate * operation.duration / resource.capacity
        before = chain.get(operation.waited_for.index, 0.0) if operation.waited_for else 0.0
        chain[operation.index] = before + operation.duration
    end = max(operation.ended_at for operation in operations)
    busiest = max(work, key=lambda resource: work[resource])
    assert end >= work[busiest] * (1 - CLOSE), f"ends after {end} s, but {busiest.name} has work for {work[busiest]} s"
    assert end >= max(chain.values()) * (1 - CLOSE), f"ends after {end} s, before a chain of {max(chain.values())} s"


def check_one_for_all(case: Case) -> None:
    """On a node whose ranks are all in the same situation, one that stands for all says what all say."""
    wide = case.on(data_parallel=4, global_batch=4 * case.training.get("global_batch", RANKS) // RANKS)
    one, every = (wide.simulate(all_ranks=all_ranks) for all_ranks in (False, True))
    assert len(every.run.ranks) == 4
    for phase, seconds in every.durations.items():
        found = one.durations[phase]
        assert close(found, seconds, 1e-6), f"{phase} takes {found:.9g} s, but {seconds:.9g} s with all ranks simulated"
    (alone, *_), all_moved = moved(one.run), moved(every.run)
    for rank, routes in enumerate(all_moved):
        assert routes.keys() == alone.keys(), f"rank {rank} moves bytes on {set(routes)}, one for all on {set(alone)}"
        for route, nbytes in routes.items():
            assert close(nbytes, alone[route], 1e-6), (
                f"rank {rank} moves {nbytes} B {route}, one for all {alone[route]}"
            )
    peaks = [
        {tier.name: tier.memory.peak * tier.scale for tier in result.run.platform.tiers if tier.kind != GPU}
        for result in (one, every)
    ]
    for name, peak in peaks[1].items():
        assert close(peaks[0][name], peak, 1e-6), f"{name} peaks at {peaks[0][name]} B, at {peak} B with all ranks"


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
