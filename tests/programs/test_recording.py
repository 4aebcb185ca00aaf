"""Runs from a tape against runs of the engine: the same scenarios on the same machines."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_scenarios import nodes, scenarios
from small_scenarios import profile as small_profile
from small_scenarios import scenario as small_scenario

from offsim.engine import Operation
from offsim.platform.hardware import HardwareProfile
from offsim.platform.platform import OrderAmongRanks
from offsim.platform.profiles import available_profiles, load_profile
from offsim.programs.run import Run
from offsim.results.limits import CriticalPaths, job_phases, limits
from offsim.results.records import peaks
from offsim.scenario import Scenario, available_scenarios, load_scenario, scenario_profile
from offsim.schedulers import available_schedulers
from offsim.simulation import checked, run_scenario
from offsim.testing import cases, node, small_buckets

pytest.importorskip("numba")

from offsim.programs.recording import (
    AnotherCourse,
    ForTheEngine,
    Recording,
    TapedRun,
    TooFewIterations,
    floats_of,
    structure_of,
    with_floats,
)
from offsim.tape.tape import DecidesAtRunTime

CLOSE = 1e-9
WAITS = {"synchronize", "wait for event", "wait for events"}
"""A tape knows not whether they are over at once, so it has them all; those that the engine leaves out take no time."""
AT_RUN_TIME = {
    "memascend_8b_2xh100": "it takes pinned buffers while there are any",
    "patrickstar_10b_1xa100": "it evicts chunks by how much memory is in use",
    "ssdtrain_bert_2xa100": "it keeps activations that are not written yet, and measures how fast writes are",
    "superoffload_8b_gh200": "it asks whether updates have ended",
}
LARGE = {"llmq_7b_rtx4090", "mlp_offload_70b_4xh100", "greedysnake_65b_a100"}


class Taped:
    """A scenario that runs from tapes alone: a new one for each course that its program takes."""

    def __init__(self, scenario: Scenario, all_ranks: bool = False, stretch: Mapping[str, float] | None = None) -> None:
        self.scenario, self.all_ranks, self.stretch = scenario, all_ranks, stretch
        self.recording: Recording | None = None

    def record(self, profile: HardwareProfile, iterations: int) -> Recording:
        known = checked(self.scenario, profile)
        checkpoint = self.scenario.checkpoint
        try:
            return Recording(profile, *known, self.all_ranks, self.stretch, checkpoint, iterations=iterations)
        except OrderAmongRanks:
            return Recording(profile, *known, True, self.stretch, checkpoint, iterations=iterations)

    def on(self, profile: HardwareProfile) -> TapedRun:
        iterations = 1
        while True:
            recording = self.recording or self.record(profile, iterations)
            self.recording = recording
            try:
                return recording.on(profile)
            except AnotherCourse:
                assert recording.iterations >= iterations
            except TooFewIterations:
                iterations = recording.iterations + 1
            self.recording = None


def another(profile: HardwareProfile, seed: str) -> HardwareProfile:
    """The profile with other rates and latencies, and ample memory."""
    random = Random(seed)
    values = {}
    for (section, field), value in floats_of(profile).items():
        ample = field in ("memory_bytes", "capacity_bytes")
        values[section, field] = 4 * value if ample else value * 1.6 ** random.uniform(-1, 1)
        if "share" in field:
            values[section, field] = min(values[section, field], 1.0)
    return with_floats(profile, values)


def by_stream(run: Run) -> dict[tuple[int, str], list[Operation]]:
    """The work of each stream."""
    found: dict[tuple[int, str], list[Operation]] = {}
    for operation in run.operations:
        if operation.name not in WAITS:
            found.setdefault((operation.stream.rank, operation.stream.name), []).append(operation)
    return found


def times(operations: list[Operation]) -> list[float]:
    return [time for o in operations for time in (o.started_at, o.ended_at)]


def check_same(taped: TapedRun, run: Run) -> None:
    """All that views and studies read of a run is the same."""
    assert run.out_of_memory is None
    close = {"rel": CLOSE, "abs": CLOSE * run.ended_at}
    assert (taped.settled, taped.first, taped.last) == (run.settled, run.first, run.last)
    assert (taped.started_at, taped.ended_at) == pytest.approx((run.started_at, run.ended_at), **close)
    assert taped.drift == pytest.approx(run.drift, abs=CLOSE)
    ours, theirs = by_stream(taped), by_stream(run)
    assert ours.keys() == theirs.keys()
    for stream, operations in theirs.items():
        assert [o.name for o in ours[stream]] == [o.name for o in operations]
        assert times(ours[stream]) == pytest.approx(times(operations), **close)
    paths, parts = CriticalPaths(taped), job_phases(taped)
    for phase, shares in limits(run).items():
        found = limits(taped)[phase]
        spent = paths.spent(part for part in parts if part.name == phase)
        assert list(found.items()) == [(name, seconds / taped.iterations) for name, seconds in spent.items()]
        for name in {**shares, **found}:
            assert found.get(name, 0.0) == pytest.approx(shares.get(name, 0.0), **close), (phase, name)
    for one, other in zip(peaks(taped), peaks(run), strict=True):
        assert (one.tier, one.bytes) == (other.tier, pytest.approx(other.bytes, rel=CLOSE, abs=0.5))
        assert one.time_s == pytest.approx(other.time_s, **close)
        assert dict(one.occupants) == pytest.approx(dict(other.occupants), rel=CLOSE, abs=0.5)
    (phases, starts), (expected, expected_starts) = (phases_of(each) for each in (taped, run))
    assert phases == expected
    assert starts == pytest.approx(expected_starts, **close)


def phases_of(run: Run) -> tuple[list[Any], list[float]]:
    """Which there are, and when they start and end."""
    done = sorted((p for p in run.phases if p.iteration <= run.last), key=lambda p: (p.rank, p.start, p.end))
    return [(p.rank, p.iteration, p.name) for p in done], [time for p in done for time in (p.start, p.end)]


def simulated(scenario: Scenario, profile: HardwareProfile, **how: Any) -> Run:
    return run_scenario(scenario, profile, how.get("all_ranks", False), how.get("stretch"))


@pytest.mark.parametrize("name", sorted(set(available_scenarios()) - AT_RUN_TIME.keys()))
def test_shipped_scenarios_run_as_on_the_engine(name: str) -> None:
    scenario = load_scenario(name)
    profile, taped = scenario_profile(scenario), Taped(scenario)
    machines = [profile, *(another(profile, f"{name} {seed}") for seed in range(1 if name in LARGE else 2))]
    for machine in machines[name in LARGE :]:
        check_same(taped.on(machine), simulated(scenario, machine))


@pytest.mark.parametrize("name", AT_RUN_TIME)
def test_scenarios_that_decide_at_run_time_stay_on_the_engine(name: str) -> None:
    scenario = load_scenario(name)
    with pytest.raises(DecidesAtRunTime):
        Taped(scenario).on(scenario_profile(scenario))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("zero3_3b_4xrtx4080s", ["training.global_batch=24"]),
        ("dos_7b_4xa100", ["training.subgroup_size=1000000000"]),
        ("dos_20b_4xh100", ["scheduler.cpu_ratio=0.5"]),
        ("dos_20b_4xh100", ["training.activation_checkpointing=false"]),
        ("twinflow_13b_4xh100", ["scheduler.cpu_ratio=0.0"]),
        ("zero3_3b_rtx4090", ["placement.activations.tier=host"]),
        ("zero1_offload_3b_rtx4090", ["training.activation_checkpointing=false"]),
        ("zero_infinity_8b_rtx4090", ["placement.optimizer=host"]),
        ("zero_infinity_8b_rtx4090", ["placement.activations.recompute=0"]),
        ("fsdp_8b_8xrtx4090", ["training.micro_batch=2", "training.global_batch=32"]),
    ],
)
def test_variations_of_scenarios_run_as_on_the_engine(name: str, changes: list[str]) -> None:
    scenario = load_scenario(name, changes)
    machine = another(scenario_profile(scenario), f"{name} {changes}")
    check_same(Taped(scenario).on(machine), simulated(scenario, machine))


@pytest.mark.parametrize("scheduler", sorted(set(available_schedulers()) - {"patrickstar", "superoffload"}))
def test_options_and_placements_of_schedules_run_as_on_the_engine(scheduler: str) -> None:
    for number, case in enumerate(cases(scheduler)[::2]):
        scenario, machine, all_ranks = load_scenario(case.scenario), another(node(), str(case)), number % 2 == 1
        with small_buckets():
            run = simulated(scenario, machine, all_ranks=all_ranks)
            check_same(Taped(scenario, all_ranks).on(machine), run)


@pytest.mark.parametrize("name", ["zero3_3b_4xrtx4080s", "dos_7b_4xa100", "zo2_30b_1xh100", "zero3_7b_2_nodes"])
def test_all_ranks_run_as_on_the_engine(name: str) -> None:
    scenario = load_scenario(name)
    profile = scenario_profile(scenario)
    taped = Taped(scenario, all_ranks=True)
    for machine in (profile, another(profile, name)):
        check_same(taped.on(machine), simulated(scenario, machine, all_ranks=True))


def test_a_checkpoint_and_its_period_are_on_the_tape() -> None:
    scenario = load_scenario("datastates_7b_4xh100", ["checkpoint.every=3"])
    machine = another(scenario_profile(scenario), "a checkpoint every third iteration")
    run = Taped(scenario).on(machine)
    assert run.iterations == 3
    check_same(run, simulated(scenario, machine))


@pytest.mark.parametrize("stretch", [{"cpu_adam": 1.7}, {"h2d": 0.5, "gemm": 3.0}])
def test_stretched_work_takes_as_long_as_on_the_engine(stretch: dict[str, float]) -> None:
    scenario = load_scenario("zero3_3b_4xrtx4080s")
    machine = another(scenario_profile(scenario), "stretched")
    check_same(Taped(scenario, stretch=stretch).on(machine), simulated(scenario, machine, stretch=stretch))


def test_one_model_runs_on_all_shipped_nodes_as_on_the_engine() -> None:
    changes = ["training.data_parallel=1", "training.micro_batch=1", "training.global_batch=1"]
    taped = Taped(scenario := load_scenario("zero3_3b_rtx4090", changes))
    compared = 0
    for name in sorted(available_profiles()):
        profile = load_profile(name)
        if (run := simulated(scenario, profile)).out_of_memory is None:
            check_same(taped.on(profile), run)
            compared += 1
    assert compared > 10


@given(scenarios(), nodes(), nodes(), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_scenarios_run_as_on_the_engine(
    source: dict[str, Any], node: HardwareProfile, other: HardwareProfile, all_ranks: bool
) -> None:
    scenario = load_scenario(source)
    taped = Taped(scenario, all_ranks)
    with small_buckets():
        for machine in (node, other):
            check_same(taped.on(machine), run_scenario(scenario, machine, all_ranks, None))


def test_whole_numbers_in_place_of_floats_are_another_course_with_the_same_times() -> None:
    scenario, profile = load_scenario(small_scenario()), small_profile()
    whole = profile.with_values({"link": {"h2d_bytes_per_s": 10**10}})
    taped = Taped(scenario)
    taped.on(profile)
    assert taped.recording is not None
    with pytest.raises(AnotherCourse):
        taped.recording.on(whole)
    check_same(taped.on(whole), simulated(scenario, whole))


def test_counts_are_structure_and_all_else_is_a_number() -> None:
    profile = load_profile("jlse-4xh100-nvme")
    same = with_floats(profile, {key: 2 * value for key, value in floats_of(profile).items()})
    assert structure_of(same) == structure_of(profile)
    for changes in ({"host": {"numa_domains": 1}}, {"link": {"gpus_per_uplink": 2}}, {"nvme": {"scope": "job"}}):
        assert structure_of(profile.with_values(changes)) != structure_of(profile)


def test_one_iteration_is_too_few_to_see_that_it_repeats() -> None:
    scenario = load_scenario("zo2_30b_1xh100")
    profile = scenario_profile(scenario)
    short = Taped(scenario).record(profile, 1)
    with pytest.raises(TooFewIterations):
        short.on(profile)
    assert Taped(scenario).record(profile, 2).on(profile).last == 2


def test_memory_that_runs_out_is_for_the_engine_to_tell() -> None:
    scenario, profile = load_scenario(small_scenario()), small_profile()
    recording = Taped(scenario).record(profile, 1)
    with pytest.raises(ForTheEngine):
        recording.on(profile.with_values({"host": {"memory_bytes": 1e5}}))
    check_same(recording.on(profile), simulated(scenario, profile))  # it leaves no trace
