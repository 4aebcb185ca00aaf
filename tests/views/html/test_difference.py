"""The difference of two results adds up, and is what the results say."""

from __future__ import annotations

import pytest

from offsim.api import Comparison, Result, simulate
from offsim.results.units import format_time
from offsim.views.html.difference import difference, signed


def test_phases_and_limits_of_two_results(baseline: Result) -> None:
    first, second = baseline, simulate("zo2_30b_1xh100")
    found = difference(Comparison([first, second], ["a", "b"]))
    assert found is not None
    assert found.phases.headers == found.limits.headers == ("", "a", "b", "change")
    rows = {name.text: [cell.text for cell in cells] for name, *cells in found.phases.rows}
    times = {
        label: {**result.durations, "iteration": result.iteration_s}
        for label, result in zip("ab", (first, second), strict=True)
    }
    assert list(rows) == [*first.durations, *second.durations, "iteration"]
    for name, (a, b, change) in rows.items():
        assert a == (format_time(times["a"][name]) if name in times["a"] else "")
        assert b == (format_time(times["b"][name]) if name in times["b"] else "")
        assert change == signed(times["b"].get(name, 0.0) - times["a"].get(name, 0.0))
    *limits, whole = found.limits.rows
    assert [cell.text for cell in whole] == ["iteration", *rows["iteration"]]
    bars = [row[3].share for row in limits]
    assert bars == sorted(bars, reverse=True)
    name, a, b, _ = (cell.text for cell in limits[0])
    for result, text in ((first, a), (second, b)):
        spent = result.limited_by.get(name)
        assert text == ("" if spent is None else format_time(spent * result.iteration_s))


def test_only_two_that_fit_are_told_apart(dos: Result, too_large: Result) -> None:
    assert difference(Comparison([dos], ["a"])) is None
    assert difference(Comparison([dos] * 3, ["a", "b", "c"])) is None
    assert difference(Comparison([dos, too_large], ["a", "b"])) is None


@pytest.mark.parametrize(("seconds", "text"), [(-1.5, "−1.50 s"), (0.25, "+250 ms"), (0.0, "0 s")])  # noqa: RUF001
def test_changes_have_signs(seconds: float, text: str) -> None:
    assert signed(seconds) == text
