"""`offsim optimum`: the fastest plan, and how far schedules are from it, as text."""

from __future__ import annotations

from offsim.cli.terminal import Style, labelled
from offsim.results.units import format_time
from offsim.study.optimum.free_form import Side
from offsim.study.optimum.search import Distances
from offsim.validation.report import signed_percent

SIDE_NAMES: dict[Side, str] = {"gpu": "on the GPU", "cpu": "CPU", "fetch": "fetched"}


def optimum_report(found: Distances, style: Style) -> str:
    """The plan, then a table of schedules."""
    best = found.optimum
    orders = "all orders" if best.all_orders else "ascending and descending order"
    lines = [
        labelled("scenario", found.scenario.name),
        labelled(
            "searched", f"{best.plans:,} plans ({orders}), {best.simulated:,} simulated, bounds rule out the rest"
        ),
        style.heading(labelled("optimum", format_time(best.iteration_s))),
        *(
            labelled("", f"{name}: sub-groups {', '.join(map(str, best.plan.on(side)))}")
            for side, name in SIDE_NAMES.items()
            if best.plan.on(side)
        ),
    ]
    rows = [
        (
            entry.schedule,
            format_time(entry.result.iteration_s),
            signed_percent(found.above(entry)),
            ", ".join(filter(None, (entry.exactness, *entry.changes))),
        )
        for entry in found.entries
        if entry.result is not None
    ]
    table = style.table(rows, ("schedule", "iteration", "above", "result"), "lrrl")
    return "\n".join(lines) + f"\n\n{table}"
