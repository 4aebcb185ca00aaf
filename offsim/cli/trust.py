"""How sure a predicted time is, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offsim.results.result import Result
from offsim.results.units import format_percent, format_time, plural

if TYPE_CHECKING:
    from offsim.study.sensitivities.interval import Interval


def trust_lines(result: Result, interval: Interval | None) -> list[tuple[str, str]]:
    """How sure the time is, (label, text): as far as hardware values are known, and as it was on measured runs."""
    from offsim.validation.accuracy import accuracy_of

    accuracy = accuracy_of(result.run.profile)
    if interval is None:
        lines = [("interval", "none: no value of the profile has one")]
    else:
        low, high = map(format_time, interval.bounds_s())
        values = plural(len(interval.swings), "hardware value")
        together = " and their correlations" if interval.correlations else ""
        lines = [("interval", f"{low} to {high} (95 %), from the intervals of {values}{together}")]
    if accuracy is not None:
        median, p90 = format_percent(accuracy.median), format_percent(accuracy.p90)
        runs = plural(accuracy.runs, "measured run")
        lines.append(("errors", f"{median} (median) and {p90} (90th percentile) on {runs} of this hardware"))
    return lines
