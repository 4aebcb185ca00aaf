"""The commands about measurements: traces, runs, logs, and profiles fitted to them."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Annotated

from offsim.cli.arguments import CsvOption, JsonOption, argument, flag, option, plot_option, profile_option
from offsim.cli.imports import Given, takes_scenario
from offsim.cli.outputs import (
    REPORT_PICTURES,
    YAML,
    check_has_neighbours,
    check_outputs,
    give,
    neighbours,
    write_picture,
    write_report,
    writing,
)
from offsim.cli.terminal import note, show
from offsim.inputs.errors import InputError

TraceArgument = Annotated[
    str,
    argument(
        "TRACE", "A trace of PyTorch's profiler (.json) or an SQLite export of Nsight Systems; either may be gzipped."
    ),
]


def harness(
    file: Annotated[str, argument("FILE", "The file to write.")] = "harness.pyz",
) -> None:
    """Write the harness: one file that measures a machine.

    Copy it to the machine, which needs PyTorch and nothing of offsim, and run `python harness.pyz --out results`. It
    times copies, kernels and training iterations, for `offsim calibrate` and `offsim validate`.
    """
    import zipapp

    from offsim.calibration import harness
    from offsim.inputs.files import atomic_write

    check_outputs({"FILE": file})
    package = Path(harness.__file__).parent
    archive = io.BytesIO()
    zipapp.create_archive(
        package.parent,
        archive,
        main=f"{package.name}.command:main",
        filter=lambda path: path.parts[0] == package.name and path.suffix == ".py",
    )
    with writing("FILE", file), atomic_write(file) as out:
        out.write(archive.getvalue())
    show(f"on the machine to measure, run: python {Path(file).name} --out results")


def trace(
    trace: TraceArgument,
    plot: Annotated[str | None, plot_option("Draw the trace as a timeline")] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """Show what is in a recorded trace.

    Copies by direction, memory and size with their rates, kernels by class, how busy each stream was, how much copying
    overlaps with kernels, and how long launches take to start.
    """
    from offsim.cli.traces import trace_report, trace_rows
    from offsim.traces import read_trace
    from offsim.traces.summary import summarize

    check_outputs({"--plot": plot, "--json": json, "--csv": csv}, inputs=[trace])
    recorded = read_trace(trace)
    summary = summarize(recorded)
    give(json, partial(trace_report, summary), summary.to_dict, csv, partial(trace_rows, summary))
    if plot is not None:
        from offsim.traces.picture import plot_trace

        write_picture(plot, plot_trace(recorded, title=recorded.path.name))


def replay(
    trace: TraceArgument,
    scale: Annotated[
        str | None,
        option(
            "NAME=FACTOR,...",
            "So many times as fast: h2d, d2h, d2d, gemm, attention, gpu_adam, collective, elementwise, other, "
            "cpu_adam, cpu.",
        ),
    ] = None,
    profile: Annotated[str | None, profile_option("Copy at the link rates of this hardware profile.")] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """Replay a recorded trace, as it was and with changed speeds.

    Rebuilds what each stream and thread waited for, checks that the replay takes as long as the trace did, and says
    how long the same run would take with other links, CPU or GPU kernels.
    """
    from offsim.cli.traces import replay_report, replay_rows
    from offsim.platform.profiles import load_profile
    from offsim.traces import read_trace
    from offsim.traces.replay import parse_scales
    from offsim.traces.replay import replay as replay_trace

    check_outputs({"--json": json, "--csv": csv}, inputs=[trace])
    scales = parse_scales(scale) if scale is not None else None
    hardware = load_profile(profile) if profile is not None else None
    replayed = replay_trace(read_trace(trace), scales, hardware)
    give(json, partial(replay_report, replayed), replayed.to_dict, csv, partial(replay_rows, replayed))


def validate(
    runs: Annotated[
        str | None,
        argument(
            "RUNS.csv",
            "A table of measured runs, or a folder of such tables, as the harness writes it; by default the one "
            "offsim comes with.",
        ),
    ] = None,
    hardware: Annotated[
        str | None, profile_option("Predict with this hardware profile instead of those the table names.")
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    plot: Annotated[str | None, plot_option("Draw predicted over measured times")] = None,
    report: Annotated[
        str | None,
        option(
            "FILE",
            "Write a report in Markdown (.md), its pictures beside it: more errors, and the worst disagreement "
            "activity by activity.",
        ),
    ] = None,
    published: Annotated[
        bool,
        flag(
            "--published",
            "Compare with published figures of schedules instead: those offsim comes with, or those of RUNS.csv.",
        ),
    ] = False,
) -> None:
    """Compare predictions with measured runs.

    Predicts each run from its configuration alone. Shows errors per hardware and phase, the worst runs, and whether
    the best scheduler and stride are predicted.
    """
    if published:
        from offsim.validation import published as figures

        for option, given in {"--hardware": hardware, "--plot": plot, "--report": report}.items():
            if given is not None:
                raise InputError(f"found {option} as well, expected --json and --csv at most", "--published")
        check_outputs({"--json": json, "--csv": csv}, inputs=[runs] if runs else [])
        scored = figures.score(figures.read_figures(Path(runs)) if runs else figures.shipped_figures())
        document = partial(figures.published_json, scored)
        give(json, partial(figures.published_text, scored), document, csv, lambda: document()["figures"])
        return
    from offsim.validation.folder import read_tables, table_files
    from offsim.validation.predictions import validate_runs
    from offsim.validation.report import format_validation, to_json

    outputs = {"--plot": plot, "--json": json, "--csv": csv, "--report": report}
    if report is not None:
        check_has_neighbours("--report", report)
        outputs |= {f"{name} of --report": path for name, path in neighbours(report, REPORT_PICTURES).items()}
    check_outputs(outputs, inputs=table_files(runs) if runs else [])
    table, left_out = read_tables(runs, hardware)
    for line in left_out:
        note(f"left out {line}")
    validation = validate_runs(table)
    text = partial(format_validation, validation)
    give(json, text, lambda: to_json(validation), csv, lambda: to_json(validation)["runs"])
    if plot is not None:
        from offsim.validation.plot import plot_scatter
        from offsim.validation.score import comparisons

        if compared := comparisons(validation):
            write_picture(plot, plot_scatter(compared))
        else:
            note(f"nothing to draw, {plot} not written: no measured values in the table")
    if report is not None:
        from offsim.validation.markdown_report import make_report

        write_report(report, *make_report(validation, neighbours(report, REPORT_PICTURES)))


@takes_scenario(
    Annotated[str | None, option("SCENARIO", "What was run: fills the columns that logs do not say.", "--scenario")],
    overrides=None,
)
def logs(
    given: Given,
    files: Annotated[
        list[str],
        argument(
            "FILE", "Logs of DeepSpeed, Megatron or Hugging Face's Trainer, also its trainer_state.json; also gzipped."
        ),
    ],
    out: Annotated[str, option("RUNS.csv", "The table to write.")],
    columns: Annotated[
        list[str] | None,
        option(
            "COLUMN=VALUE",
            "Fill a column that logs cannot say, such as hardware=jlse-4xh100. May be repeated.",
            "--set",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Read training logs into a table of measured runs.

    Takes times, memory and configuration from the lines that DeepSpeed, Megatron and Hugging Face's Trainer print:
    medians from the third iteration on, or the Trainer's mean of all. What a log does not say is taken from --scenario,
    or from the files that make one, stays blank otherwise, and is listed.
    """
    from offsim.calibration.logs.logged_runs import fill, missing, read_log, write_rows
    from offsim.validation.names import short
    from offsim.validation.run_table import TIMES, cells_of

    check_outputs({"--out": out, "--json": json}, inputs=[*files, *given.inputs])
    known, unsaid = cells_of(given.load()) if given.inputs or given.files else ({}, [])
    logs = [(file, row) for file in files for row in read_log(file, known)]
    rows = [row for _, row in logs]
    fill(rows, columns or [])
    with writing("--out", out):
        write_rows(out, rows)
    # An iteration's time can be scored without those of its phases, which the Trainer does not say.
    blank = [
        (file, row, [name for name in missing(row) if not (row["iteration_ms"] and name in TIMES)])
        for file, row in logs
    ]
    times = ("fwd_ms", "bwd_ms", "step_ms", "iteration_ms", "iterations")
    headers = ("log", "forward ms", "backward ms", "step ms", "iteration ms", "iterations", "blank")
    shown = [(file, *(row[name] for name in times), len(names)) for file, row, names in blank]
    listed = [{"log": file, "blank": names, **row} for file, row, names in blank]
    give(json, lambda style: style.table(shown, headers), lambda: {"runs": listed})
    for key in unsaid:
        note(f"no column says the scenario's {key}: predictions of the table are without it")
    for file, row, names in blank:
        for column, value in known.items():
            if short(row[column]) != short(value):
                note(f"{file} says {column} {row[column]}, the scenario {value}: the log's is written")
        if names:
            note(f"{file} does not say: {', '.join(names)}; fill them with --set COLUMN=VALUE")


def calibrate(
    files: Annotated[
        list[str],
        argument(
            "FILE",
            "Folders with microbenchmarks.jsonl, traces, tables of measured runs (.csv), training logs, in any "
            "mix; or recipes (.yaml).",
        ),
    ],
    out: Annotated[
        str, option("MINE.yaml", "The profile to write; it extends the base. With recipes, a folder for theirs.")
    ],
    base: Annotated[str | None, profile_option("The profile to start from, of like hardware.")] = None,
    assignments: Annotated[
        list[str] | None,
        option(
            "NAME=VALUE",
            "Set a value that is not the base's, such as host.memory_bytes=2e12. May be repeated.",
            "--set",
        ),
    ] = None,
    holdout: Annotated[
        float | None, option("SHARE", "The share of the runs' configurations that is kept to judge by; by default 0.3.")
    ] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """Fit a hardware profile to your own measurements.

    Microbenchmarks and traces give the values that they time, runs the others that they depend on; the rest stays the
    base's. Shows what was found, and errors of predictions on runs that took no part in the fit. A recipe says all that
    itself: which values of which profiles are fitted together, to which runs, and from where.
    """
    try:
        from offsim.calibration.calibrate import HOLDOUT
        from offsim.calibration.calibrate import calibrate as fit
        from offsim.calibration.own_profile import write_profile
        from offsim.cli.calibration import calibration_report, is_recipe, refit_profiles
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("scipy", "ruamel"):
            raise
        raise InputError("calibrating needs SciPy and ruamel.yaml: pip install 'offsim[calibrate]'") from None
    if any(map(is_recipe, files)):
        others = {"--base": base, "--holdout": holdout, "--set": ", ".join(assignments or []) or None}
        refit_profiles(files, out, others, json, csv)
        return
    if base is None:
        raise InputError("not given, expected the profile to start from", "--base")
    outputs = {"--out": out, "--json": json, "--csv": csv}
    check_outputs(outputs, inputs=[*files, base], suffixes={"--out": YAML})
    calibration = fit(files, base, HOLDOUT if holdout is None else holdout, assignments or [])
    with writing("--out", out):
        write_profile(out, calibration, base)
    report = partial(calibration_report, calibration)
    give(json, report, lambda: {"values": calibration.rows}, csv, lambda: calibration.rows)
    for line in calibration.left_out:
        note(f"not used: {line}")
