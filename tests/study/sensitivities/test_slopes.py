"""The slope of a known function, with a bend, and with a jump."""

from __future__ import annotations

import pytest

from offsim.study.sensitivities.slopes import STEP, slope_of


def times(seconds: float) -> dict[str, float]:
    return {"update": seconds / 4, "iteration": seconds}


@pytest.mark.parametrize("power", [-1.0, -0.3, 0.0, 0.5, 1.0])
def test_a_power_has_its_exponent_as_slope(power: float) -> None:
    slope = slope_of(times(3.0), lambda factor: times(3.0 * factor**power))
    assert slope.by_phase == pytest.approx({"update": power, "iteration": power}, abs=1e-9)
    assert (slope.below, slope.above, slope.jump) == (pytest.approx(power), pytest.approx(power), None)


@pytest.mark.parametrize("bend", [1.0, 1.002, 0.994])
def test_a_bend_has_a_slope_on_either_side_and_is_no_jump(bend: float) -> None:
    slope = slope_of(times(max(1.0, 1 / bend)), lambda factor: times(max(1 / factor, 1 / bend)))
    assert slope.jump is None
    assert -1 - 1e-9 <= slope.below <= slope.above <= 0
    assert -1 < slope.by_phase["iteration"] < 0
    if bend == 1.0:
        assert (slope.below, slope.above) == (pytest.approx(-1), 0)
        assert slope.by_phase["iteration"] == pytest.approx(-0.5, abs=0.01)


@pytest.mark.parametrize("place", [1 + 0.9 * STEP, 1 + 0.3 * STEP, 1 - 0.2 * STEP, 1 - 0.7 * STEP])
@pytest.mark.parametrize("height", [1.001, 1.01, 0.99, 1.2])
def test_a_jump_is_found_measured_and_kept_out_of_the_slope(place: float, height: float) -> None:
    def time(factor: float) -> dict[str, float]:
        return times(factor**-0.4 * (height if factor > place else 1.0))

    slope = slope_of(time(1.0), time)
    assert slope.jump is not None
    assert slope.jump.at == pytest.approx(place, abs=STEP / 100)
    assert slope.jump.change["iteration"] == pytest.approx(height - 1, rel=0.15)
    assert slope.by_phase == pytest.approx({"update": -0.4, "iteration": -0.4}, abs=0.01)


def test_few_simulations_where_it_is_smooth() -> None:
    tried = []

    def time(factor: float) -> dict[str, float]:
        tried.append(factor)
        return times(factor)

    slope_of(times(1.0), time)
    assert len(tried) == 2
