"""How two results differ: the times of their phases, and what their critical paths went to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offsim.results.comparison import Comparison
from offsim.results.result import Result
from offsim.results.units import format_time
from offsim.views.facts import SHOWN_FROM, Cell, Table


@dataclass(frozen=True)
class Difference:
    """Tables with a column for each of two results and one for how much longer the second takes."""

    phases: Table
    limits: Table


def difference(comparison: Comparison[Result]) -> Difference | None:
    """How the second of two results differs from the first; None of any other number, or where one does not fit."""
    if len(comparison) != 2 or not all(result.fits for result in comparison):
        return None
    first, second = comparison
    whole = [{"iteration": result.iteration_s} for result in comparison]
    limits = [_limits(result) for result in comparison]
    seen_from = SHOWN_FROM * max(first.iteration_s, second.iteration_s)
    names = {name for spent in limits for name, seconds in spent.items() if seconds >= seen_from}
    most = sorted(names, key=lambda name: (-abs(limits[1].get(name, 0.0) - limits[0].get(name, 0.0)), name))
    phases = [*first.durations, *(phase for phase in second.durations if phase not in first.durations)]
    return Difference(
        _table(comparison.labels, phases, first.durations, second.durations, whole),
        _table(comparison.labels, most, *limits, whole),
    )


def _limits(result: Result) -> dict[str, float]:
    """Name -> seconds of the critical path of an iteration."""
    seconds: dict[str, float] = {}
    for spent in result.limits_s.values():
        for name, amount in spent.items():
            seconds[name] = seconds.get(name, 0.0) + amount
    return seconds


def _table(
    labels: list[str],
    names: list[str],
    first: Mapping[str, float],
    second: Mapping[str, float],
    whole: list[dict[str, float]],
) -> Table:
    """Rows of seconds; the largest difference has the longest bar."""
    pairs = {name: (first.get(name), second.get(name)) for name in names}
    pairs["iteration"] = (whole[0]["iteration"], whole[1]["iteration"])
    changes = {name: (b or 0.0) - (a or 0.0) for name, (a, b) in pairs.items()}
    largest = max(map(abs, changes.values())) or 1.0
    rows = [
        (
            Cell(name),
            *(Cell("" if seconds is None else format_time(seconds)) for seconds in pair),
            Cell(signed(changes[name]), abs(changes[name]) / largest),
        )
        for name, pair in pairs.items()
    ]
    return Table(("", *labels, "change"), rows)


def signed(seconds: float) -> str:
    """A difference of times with its sign."""
    sign = "\N{MINUS SIGN}" if seconds < 0 else "+" if seconds > 0 else ""
    return f"{sign}{format_time(abs(seconds))}"
