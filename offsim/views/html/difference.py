"""How two results differ: the times of their phases, and what their critical paths went to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from offsim.results.comparison import Comparison
from offsim.results.result import Result
from offsim.results.units import format_time
from offsim.views.facts import SHOWN_FROM, Cell, Table

WHOLE = "iteration"


@dataclass(frozen=True)
class Difference:
    """Tables with a column for each of two results and one for how much longer the second takes."""

    phases: Table
    limits: Table


def difference(comparison: Comparison[Result]) -> Difference | None:
    """How the second of two results differs from the first; None of any other number, or where one does not fit."""
    if len(comparison) != 2 or not all(result.fits for result in comparison):
        return None
    first, second = ({**result.durations, WHOLE: result.iteration_s} for result in comparison)
    phases = _table(comparison.labels, [*dict.fromkeys([*first, *second])], first, second)
    first, second = ({**_limits(result), WHOLE: result.iteration_s} for result in comparison)
    seen_from = SHOWN_FROM * max(first[WHOLE], second[WHOLE])
    names = [name for name in first | second if max(first.get(name, 0.0), second.get(name, 0.0)) >= seen_from]
    names.sort(key=lambda name: (-abs(second.get(name, 0.0) - first.get(name, 0.0)), name))
    return Difference(phases, _table(comparison.labels, names, first, second))


def _limits(result: Result) -> dict[str, float]:
    """Name -> seconds of the critical path of an iteration."""
    return {name: share * result.iteration_s for name, share in result.limited_by.items()}


def _table(
    labels: Sequence[str], names: Iterable[str], first: Mapping[str, float], second: Mapping[str, float]
) -> Table:
    """Rows of seconds, the iteration last; the largest change has the longest bar."""
    changes = {name: second.get(name, 0.0) - first.get(name, 0.0) for name in names}
    changes[WHOLE] = changes.pop(WHOLE)
    largest = max(map(abs, changes.values())) or 1.0
    rows = [
        (
            Cell(name),
            *(Cell(format_time(of[name]) if name in of else "") for of in (first, second)),
            Cell(signed(change), abs(change) / largest),
        )
        for name, change in changes.items()
    ]
    return Table(("", *labels, "change"), rows)


def signed(seconds: float) -> str:
    """A difference of times with its sign."""
    sign = "\N{MINUS SIGN}" if seconds < 0 else "+" if seconds > 0 else ""
    return f"{sign}{format_time(abs(seconds))}"
