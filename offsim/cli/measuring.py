"""Declares the commands about what was measured: traces, runs, logs, profiles of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from offsim.cli.arguments import JsonOption, profiles_from

TraceArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRACE",
        help="A trace of PyTorch's profiler (.json) or an SQLite export of Nsight Systems; either may be gzipped.",
    ),
]


def harness(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to write.")] = "harness.pyz",
) -> None:
    """Write the harness: one file that measures a machine.

    Copy it to the machine, which needs PyTorch and nothing of offsim, and run `python harness.pyz --out results`. It
    times copies, kernels and training iterations, for `offsim calibrate` and `offsim validate`.
    """
    from offsim.cli.commands import write_harness_to

    write_harness_to(file)


def trace(
    trace: TraceArgument,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the trace as a timeline (.png, .pdf, .svg).")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Show what is in a recorded trace.

    Copies by direction, memory and size with their rates, kernels by class, how busy each stream was, how much copying
    overlaps with kernels, and how long launches take to start.
    """
    from offsim.cli.commands import show_trace

    show_trace(trace, plot=plot, json=json)


def replay(
    trace: TraceArgument,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=FACTOR,...",
            help="So many times as fast: h2d, d2h, d2d, gemm, attention, gpu_adam, collective, elementwise, other, "
            "cpu_adam, cpu.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            help="Copy at the link rates of this hardware profile.",
            autocompletion=profiles_from,
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Replay a recorded trace, as it was and with changed speeds.

    Rebuilds what each stream and thread waited for, checks that the replay takes as long as the trace did, and says
    how long the same run would take with other links, CPU or GPU kernels.
    """
    from offsim.cli.commands import replay_trace

    replay_trace(trace, scale, profile, json=json)


def validate(
    runs: Annotated[
        str | None,
        typer.Argument(
            metavar="RUNS.csv",
            help="A table of measured runs, or a folder of such tables, as the harness writes it; by default the one "
            "offsim comes with.",
        ),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(metavar="PROFILE", help="Predict with this hardware profile instead of those the table names."),
    ] = None,
    json: JsonOption = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw predicted over measured times (.png, .pdf, .svg)."),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a report in Markdown (.md), its pictures beside it: more errors, and the worst disagreement "
            "activity by activity.",
        ),
    ] = None,
) -> None:
    """Compare predictions with measured runs.

    Predicts each run from its configuration alone. Shows errors per hardware and phase, the worst runs, and whether
    the best scheduler and stride are predicted.
    """
    from offsim.cli.commands import validate_table

    validate_table(runs, hardware, json=json, plot=plot, report=report)


def logs(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Logs of DeepSpeed or Megatron, also gzipped.")],
    out: Annotated[str, typer.Option("--out", metavar="RUNS.csv", help="The table to write.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="COLUMN=VALUE",
            help="Fill a column that logs cannot say, such as hardware=jlse-4xh100. May be repeated.",
        ),
    ] = None,
) -> None:
    """Read training logs into a table of measured runs.

    Takes times, memory and configuration from the lines that DeepSpeed and Megatron print: medians from the third
    iteration on. What a log does not say stays blank and is listed.
    """
    from offsim.cli.commands import read_logs

    read_logs(files, columns or [], out=out)


def calibrate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Folders with microbenchmarks.jsonl, traces, tables of measured runs (.csv), training logs, in any "
            "mix; or recipes (.yaml).",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="MINE.yaml", help="The profile to write; it extends the base. With recipes, a folder for theirs."
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            help="The profile to start from, of like hardware.",
            autocompletion=profiles_from,
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Set a value that is not the base's, such as host.memory_bytes=2e12. May be repeated.",
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="The share of the runs' configurations that is kept to judge by; by default 0.3."
        ),
    ] = None,
) -> None:
    """Fit a hardware profile to your own measurements.

    Microbenchmarks and traces give the values that they time, runs the others that they depend on; the rest stays the
    base's. Shows what was found, and errors of predictions on runs that took no part in the fit. A recipe says all that
    itself: which values of which profiles are fitted together, to which runs, and from where.
    """
    from offsim.cli.commands import calibrate_profile

    calibrate_profile(files, base, assignments or [], out=out, holdout=holdout)
