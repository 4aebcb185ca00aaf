"""Elasticities against closed forms and a conservation law."""

from __future__ import annotations

from typing import Any

import pytest
from small_scenarios import SCHEDULERS, profile, scenario, small_buckets

from offsim.cli.sensitivity import sensitivity_report
from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile, Provenance
from offsim.platform.profiles import load_profile
from offsim.results.simulate import simulate
from offsim.results.verdict import DoesNotFit
from offsim.scenario import available_scenarios, load_scenario
from offsim.study.sensitivities.hardware_values import HardwareValue, hardware_values, times_of
from offsim.study.sensitivities.sensitivity import Effect, Sensitivity, sensitivity, sensitivity_of
from offsim.views.console import PLAIN

NODES: dict[str, dict[str, dict[str, Any]]] = {
    "ample": {},
    "scarce host memory": {"host": {"numa_domains": 2, "memory_bytes_per_s": 1e10}},
    "few cores": {"host": {"cores": 3.0}},
    "two GPUs a switch": {"link": {"gpus_per_uplink": 2, "uplink_bytes_per_s": 2.2e10, "copy_latency_s": 1e-5}},
}


def order(value: HardwareValue) -> int:
    """How a value scales with the unit of time: rates with its inverse, times with it, the rest not."""
    return {"s": 1, "1": 0}.get(value.unit, -1)


def find(source: dict[str, Any], hardware: HardwareProfile) -> Sensitivity:
    with small_buckets():
        return sensitivity_of(simulate(source, profile=hardware))


def effects(found: Sensitivity) -> dict[str, Effect]:
    return {effect.value.key: effect for effect in found.effects}


def faster(hardware: HardwareProfile, factor: float) -> HardwareProfile:
    data = hardware.model_dump()
    for value in hardware_values(hardware):
        data[value.section][value.field] *= factor ** -order(value)
    return HardwareProfile(**data)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_elasticities_of_rates_and_times_add_up_to_those_of_the_clock(scheduler: dict[str, Any], node: str) -> None:
    # All rates times c and all fixed times over c is a clock that runs c times as fast: ln(time) falls by ln(c).
    hardware, source = profile(**NODES[node]), scenario(scheduler)
    with small_buckets():
        base = simulate(source, profile=hardware)
        tripled = times_of(base.on(faster(hardware, 3.0)))
    assert tripled == pytest.approx({phase: seconds / 3 for phase, seconds in times_of(base).items()}, rel=1e-9)
    found = find(source, hardware)
    for phase in ("forward", "backward", "update", "iteration"):
        total = sum(order(effect.value) * effect.elasticity[phase] for effect in found.effects)
        assert total == pytest.approx(1.0, abs=0.02), phase


@pytest.mark.parametrize("name", ["dos_20b_4xh100", "zero3_7b_2_nodes", "no_offload_7b_dgx_h200"])
def test_they_do_for_shipped_scenarios(name: str) -> None:
    found = sensitivity(name)
    bends = sum(abs(effect.above - effect.below) for effect in found.effects)
    total = sum(order(effect.value) * effect.elasticity["iteration"] for effect in found.effects)
    assert total == pytest.approx(1.0, abs=1e-3 + bends / 2)
    assert bends < 0.3
    known = [abs(effect.elasticity["iteration"]) for effect in found.effects]
    assert known == sorted(known, reverse=True)


def test_every_value_of_the_profiles_counts_but_those_that_times_cannot_follow() -> None:
    for name in available_scenarios():
        hardware = load_profile(load_scenario(name).hardware)
        keys = {value.key for value in hardware_values(hardware)}
        fields = {
            f"{section}.{field}"
            for section, values in hardware.sections().items()
            if section != "measurement"
            for field, number in values.model_dump().items()
            if isinstance(number, float) and number
        }
        left_out = {key for key in fields - keys if "peak" not in key}
        capacities = {f"{tier}.capacity_bytes" for tier in hardware.tiers}
        assert left_out == {"gpu.memory_bytes", "gpu.reserved_bytes", "host.memory_bytes", *capacities}
        assert keys <= fields


def test_what_is_not_used_has_no_effect() -> None:
    found = effects(find(scenario("no_offload"), profile()))
    for key, effect in found.items():
        if key.startswith("link.") or key in ("host.adam_params_per_s", "interconnect.nic_bytes_per_s"):
            assert not effect.matters, key
            assert set(effect.elasticity.values()) == {0.0}
    assert found["gpu.adam_params_per_s"].matters


def test_bound_by_matrix_work_alone() -> None:
    instant = {"kernel_latency_s": 1e-15, "hbm_bytes_per_s": 1e18, "adam_params_per_s": 1e20}
    idle = {"module_launch_s": 0.0, "subgroup_launch_s": 0.0, "update_start_s": 0.0}
    training = {"data_parallel": 1, "global_batch": 1}
    found = effects(find(scenario("no_offload", training=training), profile(gpu=instant, host=idle)))
    assert found["gpu.matrix_flops_per_s"].elasticity["iteration"] == pytest.approx(-1.0, abs=1e-3)
    assert "host.module_launch_s" not in found  # zero: there are no percent of it


@pytest.mark.parametrize("name", ["subgroup_launch_s", "update_start_s"])
def test_a_serial_part_counts_with_its_share_of_the_time(name: str) -> None:
    # Nothing runs beside the launches of a blocking update: d ln t / d ln x is what they take over t.
    source = scenario("zero3_offload", training={"data_parallel": 1, "global_batch": 1})
    found = find(source, profile(host={name: 1e-4}))
    times = len(found.result.run.workload.subgroups) if name == "subgroup_launch_s" else 1
    elasticity = effects(found)[f"host.{name}"].elasticity
    assert elasticity["iteration"] == pytest.approx(times * 1e-4 / found.result.iteration_s, rel=1e-3)
    assert elasticity["update"] == pytest.approx(times * 1e-4 / found.result.durations["update"], rel=1e-3)
    assert elasticity["forward"] == 0.0


def test_the_iteration_follows_as_its_phases_do() -> None:
    found = find(scenario("deep_optimizer_states"), profile())
    result = found.result
    for effect in found.effects:
        parts = sum(effect.elasticity[phase] * seconds for phase, seconds in result.durations.items())
        assert effect.elasticity["iteration"] * result.iteration_s == pytest.approx(
            parts, abs=1e-3 * result.iteration_s
        )


def test_one_rank_stands_for_all() -> None:
    source = scenario(training={"data_parallel": 4})
    with small_buckets():
        one, every = (sensitivity_of(simulate(source, profile=profile(), all_ranks=every)) for every in (False, True))
    alone, together = effects(one), effects(every)
    for key in alone:
        assert alone[key].elasticity == pytest.approx(together[key].elasticity, abs=1e-6)


def test_a_scenario_that_just_fits_is_looked_at_as_if_there_were_room() -> None:
    source, hardware = scenario("deep_optimizer_states"), profile()
    peak = simulate(source, profile=hardware).gpu_peak_bytes
    tight = profile(gpu={"memory_bytes": peak})
    loose, found = (effects(find(source, node)) for node in (hardware, tight))
    assert {key: effect.elasticity for key, effect in found.items()} == {k: e.elasticity for k, e in loose.items()}


def test_a_scenario_that_does_not_fit_has_none() -> None:
    with pytest.raises(DoesNotFit, match="GPU 0"):
        sensitivity("zero3_20b_4xh100", ["training.micro_batch=64", "training.global_batch=256"])


def test_an_interval_of_a_value_is_its_range() -> None:
    known = {"host.update_start_s": Provenance(source="fitted", low=0.9e-3, high=1.1e-3)}
    hardware = profile(host={"update_start_s": 1e-3}).model_copy(update={"provenance": known})
    found = find(scenario(), hardware)
    row = found.ranges.set_index("name").loc["host.update_start_s"]
    assert row["known"]
    assert (row["low"], row["high"]) == (0.9e-3, 1.1e-3)
    assert row["time_high_s"] - row["time_low_s"] == pytest.approx(0.2e-3, rel=1e-6)


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("host.adam_params_per_s", 0.0, 2e9),
        ("link.copy_latency_s", -1e-6, 1e-5),
        ("interconnect.collective_gpu_share", 0.05, 1.1),
    ],
)
def test_an_interval_that_reaches_what_the_value_cannot_be(key: str, low: float, high: float) -> None:
    known = {key: Provenance(source="fitted", low=low, high=high)}
    with pytest.raises(InputError, match=f"'made-up', {key}: found an interval from"):
        find(scenario(), profile().model_copy(update={"provenance": known}))


def test_a_bend_has_another_elasticity_on_either_side() -> None:
    # The CPU Adam of two ranks moves 28 B a parameter, exactly as much as host memory can: with less, that limits it.
    hardware = profile(host={"memory_bytes_per_s": 2 * 28 * 1e9})
    effect = effects(find(scenario(), hardware))["host.memory_bytes_per_s"]
    assert effect.below < effect.above - 0.05
    assert effect.elasticity["iteration"] == pytest.approx((effect.below + effect.above) / 2)


def test_tables() -> None:
    found = find(scenario(), profile())
    values, ranges = found.values, found.ranges
    assert list(values.index) == [effect.value.key for effect in found.effects]
    assert values.loc["link.h2d_bytes_per_s", "unit"] == "B/s"
    assert set(ranges["name"]) == {effect.value.key for effect in found.effects if effect.matters}
    assert not ranges["known"].any()
    low = ranges.set_index("name").loc["host.adam_params_per_s"]
    assert (low["low"], low["high"]) == (pytest.approx(0.9e9), pytest.approx(1.1e9))
    assert found.to_dict()["interval"] is None


def test_phases_are_those_of_the_schedule() -> None:
    found = find(scenario("zo2", training={"zero_stage": 0}), profile())
    assert found.columns == ("iteration", "dual forward")
    assert all(set(effect.elasticity) == set(found.columns) for effect in found.effects)
    assert "dual forward" in sensitivity_report(found, PLAIN)
