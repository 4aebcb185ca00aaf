"""What a page says first: which schedule, how long, what limits it, how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from offsim.results.comparison import Comparison
from offsim.results.result import Result
from offsim.results.units import format_time
from offsim.views.wording import asked_line, interval_line, limited_by, verdict_line


@dataclass(frozen=True)
class Headline:
    """A sentence, and what stands below it: label -> text."""

    sentence: str
    lines: dict[str, str]


def headline(comparison: Comparison[Result]) -> Headline:
    """The headline of a result, or of the fastest of several."""
    fitting = [result for result in comparison if result.fits]
    if not fitting:
        verdict = comparison[0].verdict
        if len(comparison) == 1 and verdict is not None:
            sentence = f"{comparison[0].scenario.scheduler.name} {verdict_line(verdict)}"
            return Headline(sentence, {"short of": asked_line(verdict)})
        return Headline(f"None of {len(comparison)} scenarios fits", {})
    labels = [label for label, result in zip(comparison.labels, comparison, strict=True) if result.fits]
    best = min(range(len(fitting)), key=lambda place: fitting[place].iteration_s)
    fastest, first = fitting[best], fitting[0]
    time = format_time(fastest.iteration_s)
    interval = fastest.interval
    sure = interval_line(interval) if interval else f"no interval is known: {fastest.no_interval}"
    lines = {"limited by": limited_by(fastest.limited_by), "how sure": sure}
    if len(comparison) == 1:
        return Headline(f"{fastest.scenario.scheduler.name} takes {time} an iteration", lines)
    name = labels[best]
    if len(fitting) == 1:
        return Headline(f"Only {name} fits: {time} an iteration", lines)
    which = name if len(fitting) == 2 else f"{name}, the fastest of {len(fitting)},"
    sentence = f"{which} takes {time} an iteration"
    if best > 0:
        ratio = f"{first.iteration_s / fastest.iteration_s:.2f}"
        pace = "as fast as" if ratio == "1.00" else f"{ratio} times as fast as"
        sentence += f", {pace} {labels[0]} ({format_time(first.iteration_s)})"
    return Headline(sentence, lines)
