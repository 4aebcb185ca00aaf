"""Points are all combinations but those left out: compared with trying every one."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from offsim.study.sweeps.axes import Axis, count_points, positions


def axis(length, when=None):
    return Axis(("a",), [(n,) for n in range(length)], [(n,) for n in range(length)], when or {})


@st.composite
def sweeps(draw):
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))

    def condition(numbers):
        chosen = draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=3, unique=True))
        return {n: frozenset(draw(st.sets(st.integers(0, lengths[n] - 1), min_size=1))) for n in chosen}

    axes = [
        axis(length, condition(range(number)) if number and draw(st.booleans()) else None)
        for number, length in enumerate(lengths)
    ]
    skip = [condition(range(len(lengths))) for _ in range(draw(st.integers(0, 3)))]
    return axes, skip


def brute_force(axes, skip):
    """Every combination with and without a position on each axis, of which those stay that mean what they should."""

    def meant(condition, point):
        return all(point[number] in positions for number, positions in condition.items())

    for point in product(*([None, *range(len(axis))] for axis in axes)):
        applies = [meant(axis.when, point) for axis in axes]
        placed = all((at is not None) == wanted for at, wanted in zip(point, applies, strict=True))
        if placed and not any(meant(condition, point) for condition in skip):
            yield point


@given(sweeps())
def test_positions_are_those_of_brute_force_in_order(sweep):
    assert list(positions(*sweep)) == list(brute_force(*sweep))


@given(sweeps())
def test_the_count_is_that_of_brute_force(sweep):
    assert count_points(*sweep) == len(list(brute_force(*sweep)))


def test_counting_does_not_list():
    axes = [axis(1000), axis(1000, {0: frozenset([1])}), *[axis(1000)] * 6]
    assert count_points(axes, [{2: frozenset([5]), 7: frozenset([1, 2])}]) == 1999 * (1000**6 - 2 * 1000**4)
