"""The interval of a prediction against closed forms and against random profiles."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_scenarios import SCHEDULERS, profile, scenario, small_buckets

from offsim.api import simulate
from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile, Provenance
from offsim.results.result import Result
from offsim.study.sensitivities.hardware_values import HardwareValue, hardware_values
from offsim.study.sensitivities.interval import Interval, Swing

LEVEL = 1.959964
"""Standard deviations that 95 % of a normal distribution lie within."""


def uncertain(hardware: HardwareProfile, spreads: dict[str, float]) -> HardwareProfile:
    """The profile with intervals of these half-widths of ln(value)."""
    values = {value.key: value.value for value in hardware_values(hardware)}
    known = {
        key: Provenance(source="fitted", low=values[key] * math.exp(-spread), high=values[key] * math.exp(spread))
        for key, spread in spreads.items()
    }
    return hardware.model_copy(update={"provenance": known})


def run(hardware: HardwareProfile, scheduler: str | dict[str, Any] = "zero3_offload") -> Result:
    with small_buckets():
        result = simulate(scenario(scheduler), profile=hardware)
        assert result.interval is None or result.interval.times
    return result


def test_without_intervals_of_values_there_is_none() -> None:
    assert run(profile()).interval is None
    exact = Provenance(source="measured", low=1e9, high=1e9)
    assert run(profile().model_copy(update={"provenance": {"host.adam_params_per_s": exact}})).interval is None


def test_a_serial_part_makes_the_interval_as_wide_as_its_own() -> None:
    # The only start of an update takes 1 ms, 0.9 to 1.1 ms: so much wider is the update.
    known = {"host.update_start_s": Provenance(source="fitted", low=0.9e-3, high=1.1e-3)}
    result = run(profile(host={"update_start_s": 1e-3}).model_copy(update={"provenance": known}))
    assert result.interval is not None
    low, high = result.interval.bounds_s()
    assert high - low == pytest.approx(0.2e-3, rel=1e-2)
    assert low < result.iteration_s < high
    assert result.interval.half_s("update") == pytest.approx(0.1e-3, rel=1e-2)
    assert result.interval.half_s("forward") == 0.0


def test_independent_values_add_up_in_quadrature() -> None:
    spreads = {"host.adam_params_per_s": 0.1, "host.scale_params_per_s": 0.05, "link.duplex_bytes_per_s": 0.01}
    together = run(uncertain(profile(), spreads)).interval
    assert together is not None
    alone = [run(uncertain(profile(), {key: spread})).interval for key, spread in spreads.items()]
    assert together.spread() == pytest.approx(math.hypot(*(one.spread() for one in alone if one)))
    assert list(together.contributions_s()) == [
        "host.adam_params_per_s",
        "host.scale_params_per_s",
        "link.duplex_bytes_per_s",
    ]
    assert together.contributions_s()["link.duplex_bytes_per_s"] == 0.0


@pytest.mark.parametrize("common", [0.0, 0.8])
@pytest.mark.parametrize("scheduler", [SCHEDULERS[1], SCHEDULERS[3], SCHEDULERS[5]], ids=str)
def test_random_profiles_spread_as_far(scheduler: dict[str, Any], common: float) -> None:
    # Each value errs partly on its own, partly with all others, every other of them the other way.
    hardware = profile(host={"memory_bytes_per_s": 2e10})
    values = hardware_values(hardware)
    spreads = {value.key: 0.04 + 0.01 * (i % 5) for i, value in enumerate(values) if value.unit != "1"}
    signs = {key: (-1) ** i for i, key in enumerate(spreads)}
    pairs = {(a, b): common * signs[a] * signs[b] for a in spreads for b in spreads if a < b}
    result = run(uncertain(hardware, spreads).model_copy(update={"correlations": pairs}), scheduler)
    assert result.interval is not None
    generator = np.random.default_rng(1)
    logarithms = []
    for _ in range(200):
        data = hardware.model_dump()
        together = common**0.5 * generator.standard_normal()
        for value in values:
            if value.key in spreads:
                alone = (1 - common) ** 0.5 * generator.standard_normal()
                error = (alone + signs[value.key] * together) * spreads[value.key] / LEVEL
                data[value.section][value.field] *= math.exp(error)
        with small_buckets():
            logarithms.append(math.log(result.on(HardwareProfile(**data)).iteration_s))
    independent = Interval(result.interval.times, result.interval.swings).spread()
    assert (independent == pytest.approx(result.interval.spread(), rel=0.2)) == (common == 0.0)
    # The standard deviation of 200 normal numbers is known to 10 % (two standard errors).
    assert result.interval.spread() == pytest.approx(LEVEL * np.std(logarithms), rel=0.15)


@pytest.mark.parametrize(("correlation", "share"), [(-1.0, 0.0), (-0.5, 1.0), (0.5, 3**0.5), (1.0, 2.0)])
def test_values_that_were_fitted_together_may_make_up_for_one_another(correlation: float, share: float) -> None:
    # The start of an update and the launches of its sub-groups take 1 ms each, one after the other.
    groups = len(run(profile()).run.workload.subgroups)
    hardware = profile(host={"update_start_s": 1e-3, "subgroup_launch_s": 1e-3 / groups})
    start, launch = "host.update_start_s", "host.subgroup_launch_s"
    known = uncertain(hardware, {start: 0.05, launch: 0.05})
    interval = run(known.model_copy(update={"correlations": {(launch, start): correlation}})).interval
    assert interval is not None
    alone = interval.contributions_s("update")
    assert alone == pytest.approx(dict.fromkeys((start, launch), 5e-5), rel=1e-2)
    assert interval.half_s("update") == pytest.approx(share * alone[start], rel=1e-2, abs=1e-2 * alone[start])
    together = interval.together_s("update")
    assert together == pytest.approx(dict.fromkeys((start, launch), (1 + correlation) * alone[start]), abs=1e-6)


def test_rounded_correlations_never_leave_less_than_nothing() -> None:
    # Three pairs at -0.51 are what no errors can be: the variance of the sum would be 3 - 6 * 0.51.
    swing = Swing(HardwareValue("host", "a", 1.0), 0.9, 1.1, {"iteration": 1.0}, {"iteration": 1.1})
    swings = tuple(replace(swing, value=HardwareValue("host", name, 1.0)) for name in "abc")
    pairs = {("host.a", "host.b"): -0.51, ("host.a", "host.c"): -0.51, ("host.b", "host.c"): -0.51}
    assert Interval({"iteration": 1.05}, swings, pairs).spread() == 0.0
    assert Interval({"iteration": 1.05}, swings).spread() == pytest.approx(3**0.5 * math.log(1.1) / 2)


def test_a_fixed_time_may_be_nothing_at_the_low_end() -> None:
    known = {"host.update_start_s": Provenance(source="fitted", low=0.0, high=2e-3)}
    interval = run(profile(host={"update_start_s": 0.0}).model_copy(update={"provenance": known})).interval
    assert interval is not None
    assert interval.swings[0].times_high["update"] - interval.swings[0].times_low["update"] == pytest.approx(2e-3)


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
        run(profile().model_copy(update={"provenance": known}))
