"""A comparison as text: how long each takes, what limits it, where its memory peaks."""

from __future__ import annotations

import textwrap

from offsim.cli.report import share_table
from offsim.cli.terminal import PLAIN, Style, labelled, wrapped
from offsim.results.comparison import Comparison
from offsim.results.result import PHASES
from offsim.results.units import format_memory, format_percent, format_time
from offsim.views.wording import (
    asked_line,
    batch_line,
    hardware_line,
    model_line,
    named_peaks,
    options_of,
    validated,
    verdict_line,
)

LABEL_WIDTH, BAR = 39, 15
COLUMNS = 6
"""As many schedulers as a table with a column for each has room for."""


def comparison_report(comparison: Comparison, style: Style = PLAIN) -> str:
    """All of a comparison that fits into lines of 80 characters; the results are numbered."""
    blocks = [_set_up(comparison), _times(comparison, style)]
    if not all(result.fits for result in comparison):
        blocks.append(_verdicts(comparison, style))
    if any(result.fits for result in comparison):
        blocks += [_phases(comparison, style), _limits(comparison, style), _peaks(comparison, style)]
    return "\n\n".join(blocks)


def _set_up(comparison: Comparison) -> str:
    result = comparison[0]
    scenario = result.scenario
    parameters = result.run.workload.parameters * scenario.training.tensor_parallel
    lines = {
        "scenario": result.name,
        "hardware": hardware_line(result),
        "validated": validated(result.run.profile),
        "model": model_line(scenario, parameters),
        "batch": batch_line(scenario),
    }
    schedulers = [
        wrapped(
            f"{result.scenario.scheduler.name} ({options_of(result.scenario) or 'no options'})", f"  {n}  ", "     "
        )
        for n, result in enumerate(comparison, start=1)
    ]
    return "\n".join([*(labelled(*line) for line in lines.items()), "schedulers", *schedulers])


def _times(comparison: Comparison, style: Style) -> str:
    longest = max((result.iteration_s for result in comparison if result.fits), default=0.0)
    rows: list[tuple[object, ...]] = []
    for n, (label, result, speedup) in enumerate(
        zip(comparison.labels, comparison, comparison.speedups, strict=True), start=1
    ):
        name, *more = _lines(label)
        if speedup is None:
            rows.append((n, name, None, None, "does not fit"))
        else:
            bar = style.bar(result.iteration_s / longest, BAR)
            rows.append((n, name, format_time(result.iteration_s), f"{speedup:.2f}x", bar))
        rows += [(None, line, None, None, None) for line in more]
    return style.table(rows, ("", "scheduler", "iteration", "speed-up", ""), "rlrrl")


def _lines(label: str) -> list[str]:
    """A label on lines that break between options only."""
    glued = label.replace(" ", "\xa0").replace(",\xa0", ", ")
    return [line.replace("\xa0", " ") for line in textwrap.wrap(glued, LABEL_WIDTH, subsequent_indent="  ")]


def _verdicts(comparison: Comparison, style: Style) -> str:
    return "\n".join(
        f"{style.alarm(wrapped(verdict_line(result.verdict), f'{n}  ', '   '))}\n"
        + wrapped(asked_line(result.verdict), "   ", "   ")
        for n, result in enumerate(comparison, start=1)
        if result.verdict is not None
    )


def _phases(comparison: Comparison, style: Style) -> str:
    rows = [
        (
            n,
            *(format_time(result.durations[phase]) for phase in PHASES),
            f"{result.tokens_per_s:,.0f}",
            f"{result.tflops_per_gpu:.1f}",
        )
        for n, result in enumerate(comparison, start=1)
        if result.fits
    ]
    return style.table(rows, ("", *PHASES, "tokens/s", "TFLOP/s per GPU"), "rrrrrr")


def _limits(comparison: Comparison, style: Style) -> str:
    shares = [(str(n), result.limited_by) for n, result in enumerate(comparison, start=1) if result.fits]
    tables = [
        share_table("limited by", dict(shares[begin : begin + COLUMNS]), style, bar=False)
        for begin in range(0, len(shares), COLUMNS)
    ]
    title = "what limited the iteration, in percent of it (the critical path)"
    return "\n\n".join([f"{style.heading(title)}\n{tables[0]}", *tables[1:]])


def _peaks(comparison: Comparison, style: Style) -> str:
    rows: list[tuple[object, ...]] = []
    for n, result in enumerate(comparison, start=1):
        if result.fits:
            peaks = named_peaks(result)
            row: list[object] = [n]
            for peak in peaks:
                row += [format_memory(peak.bytes), format_percent(peak.bytes / peak.capacity_bytes)]
            largest = [max(peak.occupants, key=lambda name: peak.occupants[name], default="") for peak in peaks]
            rows.append((*row, *largest[:1]))
    gpu, host = named_peaks(comparison[0])
    headers = (
        "",
        "GPU",
        f"of {format_memory(gpu.capacity_bytes)}",
        "host",
        f"of {format_memory(host.capacity_bytes)}",
        "most of the GPU's",
    )
    return f"{style.heading('peak memory of a GPU and of the host')}\n{style.table(rows, headers, 'rrrrrl')}"
