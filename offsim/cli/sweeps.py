"""`offsim sweep`: progress while it runs, a summary at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic

from offsim.cli.imports import Given
from offsim.cli.terminal import Style, note, wrapped
from offsim.inputs.errors import InputError
from offsim.results.units import format_percent, plural
from offsim.study.sweeps.axes import Sweep
from offsim.study.sweeps.parquet import read_table
from offsim.study.sweeps.store import TABLE
from offsim.study.sweeps.sweep import Progress
from offsim.study.sweeps.sweep_file import read_sweep
from offsim.views.wording import money

SECONDS_BETWEEN_LINES = 5.0
SHOWN = 5


def planned(source: str, given: Given, price: float | None) -> Sweep:
    """The sweep that is asked for, with its scenario made from files and its costs where the command line says so."""
    if given.overrides and not given.files:
        raise InputError("found no files that make the scenario, expected the value in the sweep's file", "--set")
    plan = read_sweep(source, given.load() if given.files else None)
    if price is None:
        return plan
    return replace(plan, bases=tuple(base.model_copy(update={"price_per_gpu_hour": price}) for base in plan.bases))


@contextmanager
def followed(out: str) -> Iterator[Callable[[Progress], None]]:
    """Show how far a sweep is, and where it was interrupted."""
    last = Progress(0)
    try:
        with _progress() as report:

            def follow(progress: Progress) -> None:
                nonlocal last
                last = progress
                report(progress)

            yield follow
    except KeyboardInterrupt:
        note(f"interrupted: {last.done:,} of {last.total:,} points are in {out}; --resume continues")
        raise


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Show how far it is on standard error: a bar on a terminal, else a line every few seconds."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("points, {task.fields[rate]:,.0f}/s,"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rate=0.0)
        begun = monotonic()

        def report(progress: Progress) -> None:
            rate = progress.simulated / max(monotonic() - begun, 1e-9)
            bar.update(task, total=progress.total, completed=progress.done, rate=rate)

        yield report


def _lines() -> Callable[[Progress], None]:
    begun = shown = monotonic()

    def report(progress: Progress) -> None:
        nonlocal shown
        now = monotonic()
        if progress.simulated and now - shown >= SECONDS_BETWEEN_LINES:
            shown = now
            rate = progress.simulated / (now - begun)
            left = (progress.total - progress.done) / rate
            note(f"{progress.done:,} of {progress.total:,} points, {rate:,.0f}/s, about {left:,.0f} s left")

    return report


def sweep_report(out: str, progress: Progress, style: Style) -> str:
    """How many points there are, where, and the fastest."""
    import pyarrow.compute as pc

    table, axes = read_table(out)
    errors = table["error"].drop_null()
    unfit = pc.sum(pc.invert(table["fits"])).as_py()  # null where a point failed
    parts = [f"{plural(progress.total, 'point')}: {progress.simulated:,} simulated"]
    parts += [f"{progress.known:,} known already" if progress.known else ""]
    parts += [f"{unfit:,} do not fit" if unfit else "", f"{len(errors):,} failed" if len(errors) else ""]
    lines = [", ".join(filter(None, parts)), f"table: {Path(out) / TABLE}"]
    if len(errors):
        lines.append(f"the first that failed: {errors[0]}")
    timed = table.filter(pc.is_valid(table["tokens_per_s"])).sort_by([("tokens_per_s", "descending")])
    if fastest := timed.slice(0, SHOWN).to_pylist():
        shown = [name for name in axes if pc.count_distinct(table[name], mode="all").as_py() > 1]
        priced = any(row["cost_per_1e9_tokens"] is not None for row in fastest)
        rows = [
            [
                *(_cell(row[name]) for name in shown),
                f"{row['tokens_per_s']:,.0f}",
                format_percent(row["mfu"]),
                *([money(row["cost_per_1e9_tokens"])] if priced else []),
            ]
            for row in fastest
        ]
        headers = [*(name.rpartition(".")[2] for name in shown), "tokens/s", "MFU", *(["cost/1e9"] if priced else [])]
        align = "l" * len(shown) + "r" * (len(headers) - len(shown))
        lines += ["", "most tokens per second", style.table(rows, headers, align)]
        notes = dict.fromkeys(row["notes"] for row in fastest if row["notes"] is not None)
        lines += [style.alarm(wrapped(note, "note  ", "      ")) for note in notes]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.lower() if text in ("True", "False") else text
