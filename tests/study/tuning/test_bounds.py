"""The lower bounds: never above a simulation, and equal to it where nothing shares anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from random_scenarios import nodes, scenarios
from small_scenarios import SCHEDULERS, profile, scenario, small_buckets

from offsim.platform.hardware import HardwareProfile
from offsim.platform.profiles import scenario_profile
from offsim.scenario import available_scenarios, load_scenario
from offsim.schedulers import register, registry, with_scheduler
from offsim.schedulers.zero3_offload import Zero3Offload
from offsim.simulation import simulate
from offsim.study.tuning.bounds import NOTHING_KNOWN, lower_bound

ROUNDING = 1 + 1e-9


def check(source: Any, node: HardwareProfile) -> None:
    bound, result = lower_bound(load_scenario(source), node), simulate(source, profile=node)
    if not bound.fits:
        assert not result.fits
    elif result.fits:
        assert 0 < bound.iteration_s <= result.iteration_s * ROUNDING
        assert 0 < bound.gpu_bytes <= result.gpu_peak_bytes * ROUNDING


@given(scenarios(), nodes())
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_no_simulation_falls_below(source: dict[str, Any], node: HardwareProfile) -> None:
    with small_buckets():
        check(source, node)


@pytest.mark.parametrize("name", ["dos_20b_4xh100", "twinflow_13b_4xh100", "zero3_3b_rtx4090", "zero3_7b_2_nodes"])
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_no_simulation_of_a_real_model_falls_below(name: str, scheduler: dict[str, Any]) -> None:
    chosen = with_scheduler(load_scenario(name), scheduler)
    check(chosen, scenario_profile(chosen))


def test_bounds_are_close_where_little_is_shared() -> None:
    for name in available_scenarios():
        chosen = load_scenario(name)
        node = scenario_profile(chosen)
        assert lower_bound(chosen, node).iteration_s > 0.75 * simulate(chosen, profile=node).iteration_s


@pytest.mark.parametrize("scheduler", ["no_offload", "zero3_offload"])
def test_alone_with_ample_resources_the_longest_path_is_the_time(scheduler: str) -> None:
    source = scenario(scheduler, training={"data_parallel": 1, "global_batch": 2})
    node = profile(host={"memory_bytes_per_s": 1e15, "cores": 1e6}, link={"duplex_bytes_per_s": 1e15})
    bound = lower_bound(load_scenario(source), node)
    assert bound.iteration_s == pytest.approx(simulate(source, profile=node).iteration_s, rel=1e-9)


def test_one_full_resource_is_the_time_of_a_phase() -> None:
    """Four ranks of one domain convert and update at a quarter of its bandwidth each."""
    source = scenario("zero3_offload", training={"data_parallel": 4})
    node = profile(host={"memory_bytes_per_s": 1e8})
    result = simulate(source, profile=node)
    assert lower_bound(load_scenario(source), node).iteration_s == pytest.approx(result.iteration_s, rel=0.05)


def test_what_cannot_fit_is_known_at_once() -> None:
    source = scenario("no_offload")
    node = profile(gpu={"memory_bytes": 1e6})
    assert not lower_bound(load_scenario(source), node).fits


def test_nothing_is_known_of_a_scheduler_that_decides_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BUILT_IN", dict(registry.BUILT_IN))

    @register
    class Adaptive(Zero3Offload):
        name = "adaptive"
        fixed_work = False

    assert lower_bound(load_scenario(scenario("adaptive")), profile()) == NOTHING_KNOWN
