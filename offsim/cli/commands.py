"""What the commands do: check what is asked for, simulate, print, write files.

Text comes first and is complete before the slower pictures are begun.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from offsim.cli.outputs import (
    PICTURES,
    REPORT_PICTURES,
    REPORTS,
    SCENARIOS,
    STDOUT,
    TRACES,
    check_has_neighbours,
    check_outputs,
    neighbours,
    write_json,
    write_picture,
    write_report,
    write_trace,
    writing,
)
from offsim.cli.terminal import note, show, style_of

if TYPE_CHECKING:
    from offsim.cli.imports import Files
    from offsim.results.result import Result
    from offsim.validation.predictions import Validation

_SUFFIXES = {"--plot": PICTURES, "--trace": TRACES, "--report": REPORTS, "--emit-scenario": SCENARIOS}


def run_scenario(
    source: str | None,
    overrides: Sequence[str],
    scheduler: str | None,
    *,
    files: Files,
    emit_scenario: str | None,
    plot: str | None,
    trace: str | None,
    json: str | None,
    all_ranks: bool,
    interval: bool,
) -> None:
    """`offsim run`."""
    from offsim.cli.imports import account, scenario_of, write_scenario
    from offsim.cli.report import report
    from offsim.cli.schedulers import under
    from offsim.simulation import simulate

    outputs = {"--plot": plot, "--trace": trace, "--json": json, "--emit-scenario": emit_scenario}
    check_outputs(outputs, suffixes=_SUFFIXES, inputs=files.inputs if source is None else [source])
    scenario, draft = scenario_of(source, files, overrides)
    if scheduler is not None:
        scenario = under(scenario, scheduler)
    result = simulate(scenario, all_ranks=all_ranks)
    if draft is not None and json != STDOUT:
        show(f"{account(draft, scenario, style_of(sys.stdout))}\n")
    elif draft is not None:
        note(account(draft, scenario, style_of(sys.stderr)))
    if json != STDOUT:
        show(report(result, style_of(sys.stdout), interval=interval))
    if json is not None:
        from offsim.results.interval import interval_dict

        write_json(json, result.to_dict() | (interval_dict(result) if interval else {}))
    if emit_scenario is not None:
        write_scenario(emit_scenario, scenario, draft)
    _draw(result, plot, trace)


def _draw(result: Result, plot: str | None, trace: str | None) -> None:
    from offsim.results.verdict import DoesNotFit
    from offsim.views.wording import drawing_title, headline

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
    from offsim.results.comparison import compare
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
    from offsim.platform.profiles import load_profile

    style = style_of(sys.stdout)
    show(profiles_report(style) if name is None else profile_report(load_profile(name), style))


def show_schedulers(name: str | None) -> None:
    """`offsim schedulers`."""
    from offsim.cli.listings import scheduler_report, schedulers_report

    style = style_of(sys.stdout)
    show(schedulers_report(style) if name is None else scheduler_report(name, style))


def validate_table(
    source: str | None, hardware: str | None, *, json: str | None, plot: str | None, report: str | None
) -> None:
    """`offsim validate`."""
    from offsim.validation.folder import read_tables, table_files
    from offsim.validation.predictions import validate_runs
    from offsim.validation.report import format_validation, to_json
    from offsim.validation.table import SHIPPED_RUNS

    runs = SHIPPED_RUNS if source is None else source
    outputs = {"--plot": plot, "--json": json, "--report": report}
    if report is not None:
        check_has_neighbours("--report", report)
        outputs |= {f"{name} of --report": path for name, path in neighbours(report, REPORT_PICTURES).items()}
    check_outputs(outputs, suffixes=_SUFFIXES, inputs=table_files(runs))
    table, left_out = read_tables(runs, hardware)
    for line in left_out:
        note(f"left out {line}")
    validation = validate_runs(table)
    if json != STDOUT:
        show(format_validation(validation, unicode=style_of(sys.stdout).unicode))
    if json is not None:
        write_json(json, to_json(validation))
    if plot is not None:
        _draw_scatter(validation, plot)
    if report is not None:
        from offsim.validation.markdown_report import make_report

        write_report(report, *make_report(validation, neighbours(report, REPORT_PICTURES)))


def _draw_scatter(validation: Validation, plot: str) -> None:
    from offsim.validation.plot import plot_scatter
    from offsim.validation.score import comparisons

    compared = comparisons(validation)
    if compared:
        write_picture(plot, plot_scatter(compared))
    else:
        note(f"nothing to draw, {plot} not written: no measured values in the table")


def write_harness_to(path: str) -> None:
    """`offsim harness`."""
    from offsim.calibration.harness_file import write_harness

    check_outputs({"FILE": path})
    with writing("FILE", path):
        write_harness(Path(path))
    show(f"{path} written; on the machine to measure, run: python {Path(path).name} --out results")


def show_trace(source: str, *, plot: str | None, json: str | None) -> None:
    """`offsim trace`."""
    from offsim.cli.traces import trace_report
    from offsim.traces import read_trace
    from offsim.traces.summary import summarize

    check_outputs({"--plot": plot, "--json": json}, suffixes=_SUFFIXES, inputs=[source])
    trace = read_trace(source)
    summary = summarize(trace)
    if json != STDOUT:
        show(trace_report(summary, style_of(sys.stdout)))
    if json is not None:
        write_json(json, summary.to_dict())
    if plot is not None:
        from offsim.traces.picture import plot_trace

        write_picture(plot, plot_trace(trace, title=trace.path.name))


def read_logs(files: Sequence[str], columns: Sequence[str], *, out: str) -> None:
    """`offsim logs`."""
    from offsim.calibration.logs.logged_runs import fill, missing, read_log, write_rows

    check_outputs({"--out": out}, inputs=files)
    logs = [(file, read_log(file)) for file in files]
    rows = [row for _, found in logs for row in found]
    fill(rows, columns)
    with writing("--out", out):
        write_rows(out, rows)
    blank = [(file, row, missing(row)) for file, found in logs for row in found]
    style = style_of(sys.stdout)
    times = ("fwd_ms", "bwd_ms", "step_ms", "iteration_ms", "iterations")
    headers = ("log", "forward ms", "backward ms", "step ms", "iteration ms", "iterations", "blank")
    show(style.table([(file, *(row[name] for name in times), len(names)) for file, row, names in blank], headers))
    for file, _, names in blank:
        if names:
            note(f"{file} does not say: {', '.join(names)}; fill them with --set COLUMN=VALUE")


def calibrate_profile(
    files: Sequence[str], base: str | None, assignments: Sequence[str], *, out: str, holdout: float | None
) -> None:
    """`offsim calibrate`."""
    from offsim.inputs.errors import InputError

    try:
        from offsim.calibration.calibrate import HOLDOUT, calibrate
        from offsim.calibration.own_profile import write_profile
        from offsim.cli.calibration import calibration_report
        from offsim.cli.recipes import is_recipe, refit_profiles
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("scipy", "ruamel"):
            raise
        raise InputError("calibrating needs SciPy and ruamel.yaml: pip install 'offsim[calibrate]'") from None
    if any(map(is_recipe, files)):
        refit_profiles(files, out, {"--base": base, "--holdout": holdout, "--set": ", ".join(assignments) or None})
        return
    if base is None:
        raise InputError("not given, expected the profile to start from", "--base")
    check_outputs({"--out": out}, suffixes={"--out": (".yaml", ".yml")}, inputs=[*files, base])
    calibration = calibrate(files, base, HOLDOUT if holdout is None else holdout, assignments)
    with writing("--out", out):
        write_profile(out, calibration, base)
    show(calibration_report(calibration, style_of(sys.stdout)))
    for line in calibration.left_out:
        note(f"not used: {line}")


def replay_trace(source: str, scale: str | None, profile: str | None, *, json: str | None) -> None:
    """`offsim replay`."""
    from offsim.cli.traces import replay_report
    from offsim.platform.profiles import load_profile
    from offsim.traces import read_trace
    from offsim.traces.replay import parse_scales, replay

    check_outputs({"--json": json}, inputs=[source])
    scales = parse_scales(scale) if scale is not None else None
    hardware = load_profile(profile) if profile is not None else None
    replayed = replay(read_trace(source), scales, hardware)
    if json != STDOUT:
        show(replay_report(replayed, style_of(sys.stdout)))
    if json is not None:
        write_json(json, replayed.to_dict())


def show_sensitivity(
    source: str, overrides: Sequence[str], *, plot: str | None, json: str | None, all_ranks: bool
) -> None:
    """`offsim sensitivity`."""
    from offsim.cli.report import report
    from offsim.cli.sensitivity import sensitivity_report
    from offsim.simulation import simulate
    from offsim.study.sensitivities.sensitivity import sensitivity_of
    from offsim.views.wording import drawing_title

    check_outputs({"--plot": plot, "--json": json}, suffixes=_SUFFIXES, inputs=[source])
    result = simulate(source, overrides, all_ranks=all_ranks)
    found = sensitivity_of(result) if result.fits else None
    style = style_of(sys.stdout)
    if json != STDOUT:
        show(sensitivity_report(found, style) if found else report(result, style))
    if json is not None:
        write_json(json, found.to_dict() if found else result.to_dict(series=False))
    if plot is not None and found:
        write_picture(plot, found.plot(title=drawing_title(result)))
    elif plot is not None:
        note(f"nothing to draw, {plot} not written: the scenario does not fit")


def report_scenarios(sources: Sequence[str], schedulers: Sequence[str], overrides: Sequence[str], *, html: str) -> None:
    """`offsim report`."""
    from offsim.cli.schedulers import under
    from offsim.cli.terminal import wrapped
    from offsim.results.comparison import compare
    from offsim.scenario import load_scenario
    from offsim.views.wording import headline

    check_outputs({"--html": html}, suffixes={"--html": (".html", ".htm")}, inputs=sources)
    scenarios = [load_scenario(source, overrides) for source in sources]
    if schedulers:
        scenarios = [under(scenario, text) for scenario in scenarios for text in schedulers]
    labels = [scenario.name for scenario in scenarios] if len(scenarios) == 1 else []
    comparison = compare(scenarios, labels=labels)
    style = style_of(sys.stdout)
    for label, result in zip(comparison.labels, comparison, strict=True):
        lines = [wrapped(line, "  ", "    ") for line in headline(result).splitlines()]
        show("\n".join([style.heading(label), *lines]))
    with writing("--html", html):
        comparison.to_html(html)
