"""Points are all combinations but those left out: compared with trying every one."""

import math
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from offsim.scenario import load_scenario
from offsim.study.sweeps.axes import Axis, CellIndex, Sweep
from tests.small_scenarios import scenario

NAMES = ("zero3_offload", "deep_optimizer_states")


def axis(length, schedulers=None):
    return Axis(("a",), [(n,) for n in range(length)], [(n,) for n in range(length)], schedulers)


@st.composite
def sweeps(draw):
    """A base under either scheduler or an axis of both anywhere; some axes apply under one of them only."""
    base = draw(st.sampled_from(NAMES))
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axes = [
        axis(length, draw(st.sampled_from([None, *map(lambda name: frozenset([name]), NAMES)]))) for length in lengths
    ]
    if draw(st.booleans()):
        axes.insert(
            draw(st.integers(0, len(axes))), Axis(("scheduler.name",), [(n,) for n in NAMES], [(n,) for n in NAMES])
        )
    axes.insert(0, Axis(("scenario",), [(base,)], [(base,)]))

    def condition():
        numbers = draw(st.lists(st.integers(0, len(axes) - 1), min_size=1, max_size=3, unique=True))
        return {n: frozenset(draw(st.sets(st.integers(0, len(axes[n].values) - 1), min_size=1))) for n in numbers}

    skip = tuple(condition() for _ in range(draw(st.integers(0, 3))))
    return Sweep((load_scenario(scenario(base)),), tuple(axes), skip, {})


def brute_force(sweep):
    """Every combination with and without a position on each axis, of which those stay that mean what they should."""
    for point in product(*([None, *range(len(axis.values))] for axis in sweep.axes)):
        name = sweep.bases[0].scheduler.name
        for axis_, at in zip(sweep.axes, point, strict=True):
            if axis_.columns == ("scheduler.name",) and at is not None:
                name = NAMES[at]
        applies = [one.schedulers is None or name in one.schedulers for one in sweep.axes]
        placed = all((at is not None) == wanted for at, wanted in zip(point, applies, strict=True))
        if placed and not any(all(point[n] in meant for n, meant in one.items()) for one in sweep.skip):
            yield point


@given(sweeps())
def test_positions_are_those_of_brute_force_in_order(sweep):
    by_value = sorted(brute_force(sweep), key=lambda point: [at or 0 for at in point])
    assert list(sweep.positions()) == by_value


CELLS = st.one_of(st.integers(-5, 5), st.floats(-5, 5), st.booleans(), st.sampled_from(["a", "1", "true"]), st.none())


@given(st.lists(CELLS, max_size=20), st.one_of(CELLS, st.sampled_from([math.nan, math.inf, 10**400, [1], 1 + 1e-12])))
def test_cells_found_are_those_that_equal_the_value(cells, wanted):
    def equal(cell):
        numbers = [isinstance(one, int | float) and not isinstance(one, bool) for one in (cell, wanted)]
        if all(numbers):
            return abs(wanted) < 1e30 and math.isclose(cell, wanted, rel_tol=1e-9)
        return type(cell) is type(wanted) and cell == wanted

    assert CellIndex(cells).positions(wanted) == {at for at, cell in enumerate(cells) if equal(cell)}
