"""What the commands do: check what is asked for, simulate, print, write files.

Text comes first and is complete before the slower pictures are begun.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from offsim.cli.outputs import PICTURES, STDOUT, TRACES, check_outputs, write_json, write_picture, write_trace
from offsim.cli.terminal import note, show, style_of

if TYPE_CHECKING:
    from offsim.result import Result

_SUFFIXES = {"--plot": PICTURES, "--trace": TRACES}


def run_scenario(
    source: str,
    overrides: Sequence[str],
    scheduler: str | None,
    *,
    plot: str | None,
    trace: str | None,
    json: str | None,
    all_ranks: bool,
) -> None:
    """`offsim run`."""
    from offsim.cli.report import report
    from offsim.cli.schedulers import under
    from offsim.scenario import load_scenario
    from offsim.simulation import simulate

    check_outputs({"--plot": plot, "--trace": trace, "--json": json}, suffixes=_SUFFIXES, inputs=[source])
    scenario = load_scenario(source, overrides)
    if scheduler is not None:
        scenario = under(scenario, scheduler)
    result = simulate(scenario, all_ranks=all_ranks)
    if json != STDOUT:
        show(report(result, style_of(sys.stdout)))
    if json is not None:
        write_json(json, result.to_dict())
    _draw(result, plot, trace)


def _draw(result: Result, plot: str | None, trace: str | None) -> None:
    from offsim.cli.report import drawing_title, headline
    from offsim.verdict import DoesNotFit

    try:
        if plot is not None:
            write_picture(plot, result.plot_page(title=drawing_title(result), subtitle=headline(result)))
        if trace is not None:
            write_trace(trace, result.to_perfetto)
    except DoesNotFit:
        unwritten = " and ".join(path for path in (plot, trace) if path is not None)
        note(f"nothing to draw, {unwritten} not written: memory ran out before the iteration began")


def compare_schedulers(
    source: str,
    schedulers: Sequence[str],
    overrides: Sequence[str],
    *,
    plot: str | None,
    json: str | None,
    all_ranks: bool,
) -> None:
    """`offsim compare`."""
    from offsim.cli.comparison import comparison_report
    from offsim.cli.schedulers import chosen
    from offsim.comparison import compare
    from offsim.scenario import load_scenario

    check_outputs({"--plot": plot, "--json": json}, suffixes=_SUFFIXES, inputs=[source])
    scenarios, left_out = chosen(load_scenario(source, overrides), schedulers)
    comparison = compare(scenarios, all_ranks=all_ranks)
    for line in left_out:
        note(line)
    if json != STDOUT:
        show(comparison_report(comparison, style_of(sys.stdout)))
    if json is not None:
        write_json(json, comparison.to_dict())
    if plot is None:
        return
    if not any(result.fits for result in comparison):
        note(f"nothing to draw, {plot} not written: none of the schedulers fits")
        return
    missing = [label for label, result in zip(comparison.labels, comparison, strict=True) if not result.fits]
    title = comparison[0].name
    if missing:
        title += f"; does not fit: {', '.join(missing)}"
    write_picture(plot, comparison.plot(title=title))


def show_profiles(name: str | None) -> None:
    """`offsim profiles`."""
    from offsim.cli.listings import profile_report, profiles_report
    from offsim.profiles import load_profile

    style = style_of(sys.stdout)
    show(profiles_report(style) if name is None else profile_report(load_profile(name), style))


def show_schedulers(name: str | None) -> None:
    """`offsim schedulers`."""
    from offsim.cli.listings import scheduler_report, schedulers_report

    style = style_of(sys.stdout)
    show(schedulers_report(style) if name is None else scheduler_report(name, style))


def validate_table(table: str | None, *, json: str | None, plot: str | None) -> None:
    """`offsim validate`."""
    from offsim.validation.predictions import validate_runs
    from offsim.validation.report import format_validation, to_json
    from offsim.validation.table import SHIPPED_RUNS, read_runs

    source = SHIPPED_RUNS if table is None else table
    check_outputs({"--plot": plot, "--json": json}, suffixes=_SUFFIXES, inputs=[source])
    validation = validate_runs(read_runs(source))
    if json != STDOUT:
        show(format_validation(validation, unicode=style_of(sys.stdout).unicode))
    if json is not None:
        write_json(json, to_json(validation))
    if plot is None:
        return
    from offsim.validation.plot import plot_scatter
    from offsim.validation.score import comparisons

    compared = comparisons(validation)
    if compared:
        write_picture(plot, plot_scatter(compared))
    else:
        note(f"nothing to draw, {plot} not written: no measured values in the table")


def show_trace(source: str, *, plot: str | None, json: str | None) -> None:
    """`offsim trace`."""
    from offsim.calibration.traces import read_trace
    from offsim.calibration.traces.summary import summarize
    from offsim.cli.traces import trace_report

    check_outputs({"--plot": plot, "--json": json}, suffixes=_SUFFIXES, inputs=[source])
    trace = read_trace(source)
    summary = summarize(trace)
    if json != STDOUT:
        show(trace_report(summary, style_of(sys.stdout)))
    if json is not None:
        write_json(json, summary.to_dict())
    if plot is not None:
        from offsim.calibration.traces.picture import plot_trace

        write_picture(plot, plot_trace(trace, title=trace.path.name))


def replay_trace(source: str, scale: str | None, profile: str | None, *, json: str | None) -> None:
    """`offsim replay`."""
    from offsim.calibration.replay import parse_scales, replay
    from offsim.calibration.traces import read_trace
    from offsim.cli.traces import replay_report
    from offsim.profiles import load_profile

    check_outputs({"--json": json}, inputs=[source])
    scales = parse_scales(scale) if scale is not None else None
    hardware = load_profile(profile) if profile is not None else None
    replayed = replay(read_trace(source), scales, hardware)
    if json != STDOUT:
        show(replay_report(replayed, style_of(sys.stdout)))
    if json is not None:
        write_json(json, replayed.to_dict())
