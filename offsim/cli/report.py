"""A result as text: how long, what limits, where memory peaks; then each of them in detail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from offsim.cli.terminal import PLAIN, Style, labelled, wrapped
from offsim.results.records import kept_operations
from offsim.results.result import Result
from offsim.results.units import format_memory, format_percent, format_rate, format_time, plural
from offsim.results.verdict import Verdict
from offsim.views.wording import (
    asked_line,
    batch_line,
    flags_of,
    hardware_line,
    limited_by,
    model_line,
    named_peaks,
    options_of,
    peak_line,
    peak_time,
    speed_line,
    validated,
    verdict_line,
)

PHASE_BAR, LIMIT_BAR, BUSY_BAR = 36, 15, 8
SHOWN_FROM = 0.0005
"""The share below which a table's cell stays empty."""


def report(result: Result, style: Style = PLAIN, *, interval: bool = False) -> str:
    """All of a result that fits into lines of 80 characters; with `interval`, how sure the time is."""
    blocks = [_set_up(result)]
    if result.verdict is not None:
        blocks += [_verdict(result.verdict, style)]
    else:
        blocks += [
            _headline(result, style, interval),
            _phases(result, style),
            _limits(result, style),
            _utilization(result, style),
        ]
        blocks += [_memory(result, style)]
    return "\n\n".join(blocks)


def _set_up(result: Result) -> str:
    scenario = result.scenario
    scheduler = scenario.scheduler.name
    if options := options_of(scenario):
        scheduler += f" ({options})"
    parameters = result.run.workload.parameters * scenario.training.tensor_parallel
    lines = {
        "scenario": result.name,
        "scheduler": scheduler,
        "hardware": hardware_line(result),
        "validated": validated(result.run.profile),
        "model": model_line(scenario, parameters),
        "batch": batch_line(scenario),
    }
    return "\n".join(labelled(label, text) for label, text in lines.items())


def trust_lines(result: Result) -> list[str]:
    """How sure the time is: as far as the hardware's values are known, and as it was on measured runs."""
    from offsim.validation.accuracy import accuracy_of

    interval, accuracy = result.interval, accuracy_of(result.run.profile)
    if interval is None:
        lines = [labelled("interval", "none: no value of the profile has one")]
    else:
        low, high = map(format_time, interval.bounds_s())
        values = plural(len(interval.swings), "hardware value")
        together = " and their correlations" if interval.correlations else ""
        lines = [labelled("interval", f"{low} to {high} (95 %), from the intervals of {values}{together}")]
    if accuracy is not None:
        median, p90 = format_percent(accuracy.median), format_percent(accuracy.p90)
        runs = plural(accuracy.runs, "measured run")
        lines.append(labelled("errors", f"{median} (median) and {p90} (90th percentile) on {runs} of this hardware"))
    return lines


def _headline(result: Result, style: Style, interval: bool) -> str:
    known = result.interval if interval else None
    lines = [labelled("iteration", speed_line(result, known)), labelled("limited by", limited_by(result.limited_by))]
    lines[1:1] = trust_lines(result) if interval else []
    lines += [labelled("" if i else "peak", peak_line(peak)) for i, peak in enumerate(named_peaks(result))]
    return "\n".join(style.heading(line) if i == 0 else line for i, line in enumerate(lines))


def _phases(result: Result, style: Style) -> str:
    steps = result.scenario.training.micro_steps
    times = {**result.durations, "iteration": result.iteration_s}
    rows = [
        (
            f"{phase} ({steps} micro-steps)" if steps > 1 and phase in ("forward", "backward") else phase,
            format_time(seconds),
            format_percent(seconds / result.iteration_s),
            style.bar(seconds / result.iteration_s, PHASE_BAR),
        )
        for phase, seconds in times.items()
    ]
    return style.table(rows, ("phase", "time", "share", ""), "lrrl")


def _limits(result: Result, style: Style) -> str:
    shares = {"iteration": result.limited_by}
    for phase, spent in result.limits_s.items():
        total = sum(spent.values())
        shares[phase] = {name: seconds / total for name, seconds in spent.items()} if total else {}
    title = "what limited it, in percent of the time (the critical path)"
    return f"{style.heading(title)}\n{share_table('limited by', shares, style)}"


def share_table(corner: str, shares: Mapping[str, Mapping[str, float]], style: Style, *, bar: bool = True) -> str:
    """A column per key of `shares`, a row per name in it, empty where there is next to nothing; a bar of the first."""
    names = list(dict.fromkeys(name for column in shares.values() for name in column))
    shown = [name for name in names if any(column.get(name, 0.0) >= SHOWN_FROM for column in shares.values())]
    first = next(iter(shares.values()))
    rows = [
        (name, *(_cell(column.get(name, 0.0)) for column in shares.values()))
        + ((style.bar(first.get(name, 0.0), LIMIT_BAR),) if bar else ())
        for name in shown
    ]
    headers = (corner, *shares, *(("",) if bar else ()))
    return style.table(rows, headers, "l" + "r" * len(shares) + ("l" if bar else ""))


def _cell(share: float) -> str:
    return format_percent(share) if share >= SHOWN_FROM else ""


def _utilization(result: Result, style: Style) -> str:
    from offsim.results.utilization import utilization_columns

    columns = utilization_columns(result.run, kept_operations(result.run))
    names, capacities, units, *shares = columns.values()
    phases = [name for name in columns if name not in ("resource", "capacity", "unit")]
    rows = [
        (name, _capacity(capacity, unit), *map(format_percent, used), style.bar(used[0], BUSY_BAR))
        for name, capacity, unit, *used in zip(names, capacities, units, *shares, strict=True)
    ]
    table = style.table(rows, ("used", "capacity", *phases, ""), "lr" + "r" * len(phases) + "l")
    return f"{style.heading('how busy each resource was')}\n{table}"


def _capacity(capacity: float, unit: str) -> str:
    return format_rate(capacity) if unit == "B/s" else f"{capacity:g} {unit}"


def _memory(result: Result, style: Style) -> str:
    blocks = []
    for peak in named_peaks(result):
        title = style.heading(f"{peak_line(peak)}, {peak_time(result, peak)}" if peak.occupants else peak_line(peak))
        blocks.append("\n".join([title, *_occupants(peak.occupants, peak.capacity_bytes, style)]))
    return "\n\n".join(blocks)


def _occupants(occupants: Mapping[str, float], capacity: float, style: Style) -> Iterable[str]:
    ordered = sorted(occupants.items(), key=lambda item: (-item[1], item[0]))
    width = max((len(name) for name in occupants), default=0)
    for name, held in ordered:
        share = held / capacity
        line = f"  {name:<{width}}  {format_memory(held):>8}  {format_percent(share):>6}  {style.bar(share, 30)}"
        yield line.rstrip()


def _verdict(verdict: Verdict, style: Style) -> str:
    lines = [style.alarm(verdict_line(verdict)), asked_line(verdict)]
    lines += _occupants(verdict.occupants, verdict.capacity_bytes, style)
    lines += ["", style.heading("single changes with which it fits")]
    rows = [
        (flags_of(remedy.change), f"{format_time(remedy.iteration_s)} an iteration", plural(remedy.gpus, "GPU"))
        for remedy in verdict.remedies
    ]
    width = max((len(row[0]) for row in rows), default=0)
    lines += [f"  {flags:<{width}}  {time:>21}  {gpus}" for flags, time, gpus in rows]
    return "\n".join(lines if rows else [*lines, wrapped("none of those tried", "  ", "  ")])
