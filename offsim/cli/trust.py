"""How sure a predicted time is, in words."""

from __future__ import annotations

from offsim.results.interval import WHOLE
from offsim.results.result import Result
from offsim.results.units import format_percent, format_time, plural
from offsim.views.wording import interval_line


def trust_lines(result: Result) -> dict[str, tuple[str, ...]]:
    """How sure the time is, label -> texts, by held-out runs and by those that the profile was fitted to."""
    from offsim.validation.accuracy import accuracy_of

    interval, accuracy = result.interval, accuracy_of(result.run.profile)
    if interval is None:
        lines: dict[str, tuple[str, ...]] = {"interval": (f"none: {result.no_interval}",)}
    else:
        text = f"{interval_line(interval)} (left out of the fit: {', '.join(interval.groups)})"
        phases = [phase for phase in interval.spreads if phase != WHOLE]
        ends = (f"{phase} {' to '.join(map(format_time, interval.bounds_s(phase)))}" for phase in phases)
        lines = {"interval": (text, ", ".join(ends))}
    if accuracy is not None:
        median, p90 = format_percent(accuracy.median), format_percent(accuracy.p90)
        runs = plural(accuracy.runs, "measured run")
        lines["errors"] = (f"{median} (median) and {p90} (90th percentile) on {runs} of this hardware",)
    return lines
