"""How far to trust the figures of one run, in sentences."""

from __future__ import annotations

from offsim.programs.run import Run
from offsim.results.units import format_percent, plural


def notes(run: Run) -> tuple[str, ...]:
    """What the reader of the run's figures has to know; nothing of a run that is like any other."""
    found = []
    if not run.settled:
        found.append(
            f"The {plural(run.last, 'simulated iteration')} did not settle; the last two periods "
            f"({plural(run.iterations, 'iteration')} each) differ by {format_percent(run.drift)} in time. "
            "Times are means over the last period."
        )
    if run.unused:
        found.append(f"{run.unused}.")
    return tuple(found)
