"""The commands. What they need is imported when they run, so that `offsim run` starts at once."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

_ORDER = ("run", "compare", "sweep", "tune", "sensitivity", "report", "profiles", "schedulers", "trace", "replay")


class _Commands(TyperGroup):
    def list_commands(self, ctx: object) -> list[str]:
        """In the order of what a newcomer asks: predictions first, then recorded traces, measured runs, calibration."""
        first = [name for name in _ORDER if name in self.commands]
        return first + [name for name in self.commands if name not in first]


app = typer.Typer(
    cls=_Commands,
    help="Simulate offloading schedules of large-model training: how long an iteration takes, what limits it, and "
    "where memory peaks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _scenarios(incomplete: str) -> list[str]:
    from offsim.scenario import available_scenarios

    return [name for name in available_scenarios() if name.startswith(incomplete)]


def _profiles(incomplete: str) -> list[str]:
    from offsim.profiles import available_profiles

    return [name for name in available_profiles() if name.startswith(incomplete)]


def _schedulers(incomplete: str) -> list[str]:
    from offsim.schedulers.registry import available_schedulers

    return [name for name in available_schedulers() if name.startswith(incomplete)]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        from offsim.cli.terminal import show

        try:
            show(f"offsim {version('offsim')}")
        except PackageNotFoundError:
            show("offsim, not installed: it runs from its source tree")
        raise typer.Exit


ScenarioArgument = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO",
        help="A YAML file, or the name of a scenario that comes with offsim.",
        autocompletion=_scenarios,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the scenario, such as scheduler.update_stride=3. May be repeated.",
    ),
]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON; - for standard output.")
]
AllRanksOption = Annotated[
    bool,
    typer.Option("--all-ranks", help="Simulate every rank of a node; otherwise one stands for those that are alike."),
]


@app.callback()
def offsim(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options that come before a command."""


@app.command()
def run(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="SCENARIO",
            help="A YAML file, or the name of a scenario that comes with offsim.",
            autocompletion=_scenarios,
        ),
    ] = None,
    overrides: SetOption = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="NAME[:OPTION=VALUE,...]",
            help="Replace the scenario's scheduler.",
            autocompletion=_schedulers,
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw timeline, bandwidth and memory on one page (.png, .pdf, .svg)."),
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a trace for Perfetto (.json, .json.gz).")
    ] = None,
    json: JsonOption = None,
    all_ranks: AllRanksOption = False,
    interval: Annotated[
        bool,
        typer.Option(
            "--interval", help="Add how sure the time is, from the intervals of hardware values: 2 simulations each."
        ),
    ] = False,
    deepspeed: Annotated[
        str | None,
        typer.Option(metavar="DS_CONFIG.json", help="Instead of a scenario: DeepSpeed's configuration, as it is."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="CONFIG.json", help="With --deepspeed: the config.json of a Hugging Face model."),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(metavar="PROFILE", help="With --deepspeed: what it runs on.", autocompletion=_profiles),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(metavar="COUNT", help="With --deepspeed: GPUs of the job; by default one node's.")
    ] = None,
    sequence: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="With --deepspeed: length of a sequence; by default at most 2048."),
    ] = None,
    emit_scenario: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the scenario, with where its values come from (.yaml)."),
    ] = None,
) -> None:
    """Simulate one iteration of a scenario.

    Says how long each phase takes, what limits it, how busy each resource is, where memory peaks; and where the
    scenario does not fit in memory, what ran out, who held it, and single changes with which it fits. With
    --deepspeed, --model and --hardware it makes the scenario from these, and lists what became of each key.
    """
    from offsim.cli.commands import run_scenario
    from offsim.cli.imports import Files

    run_scenario(
        scenario,
        overrides or [],
        scheduler,
        files=Files(deepspeed, model, hardware, gpus, sequence),
        emit_scenario=emit_scenario,
        plot=plot,
        trace=trace,
        json=json,
        all_ranks=all_ranks,
        interval=interval,
    )


@app.command()
def compare(
    scenario: ScenarioArgument,
    schedulers: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            metavar="NAME[:OPTION=VALUE,...]",
            autocompletion=_schedulers,
            help="A scheduler to compare; may be repeated. Without any, all that apply.",
        ),
    ] = None,
    overrides: SetOption = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw the timelines on one time axis (.png, .pdf, .svg)."),
    ] = None,
    json: JsonOption = None,
    all_ranks: AllRanksOption = False,
) -> None:
    """Compare schedulers side by side.

    Simulates the scenario under each. Options that the scenario gives are kept where a scheduler has them too.
    """
    from offsim.cli.commands import compare_schedulers

    compare_schedulers(scenario, schedulers or [], overrides or [], plot=plot, json=json, all_ranks=all_ranks)


@app.command()
def profiles(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one, or a file's.", autocompletion=_profiles)
    ] = None,
) -> None:
    """List hardware profiles, or show one.

    Shows each value with its unit, where it comes from and what is known of its error.
    """
    from offsim.cli.commands import show_profiles

    show_profiles(name)


@app.command()
def schedulers(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one.", autocompletion=_schedulers)
    ] = None,
) -> None:
    """List schedulers, or show one.

    Shows what it does and its options with type, bounds and default.
    """
    from offsim.cli.commands import show_schedulers

    show_schedulers(name)


@app.command()
def validate(
    runs: Annotated[
        str | None,
        typer.Argument(
            metavar="RUNS.csv",
            help="A table of measured runs, or a folder of such tables, as harness.py writes it; by default the one "
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


TraceArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRACE",
        help="A trace of PyTorch's profiler (.json) or an SQLite export of Nsight Systems; either may be gzipped.",
    ),
]


@app.command()
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


@app.command()
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


@app.command()
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
        typer.Option(metavar="PROFILE", help="The profile to start from, of like hardware.", autocompletion=_profiles),
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

    calibrate_profile(files, base, out=out, holdout=holdout)


@app.command()
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
            metavar="PROFILE", help="Copy at the link rates of this hardware profile.", autocompletion=_profiles
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


@app.command()
def sensitivity(
    scenario: ScenarioArgument,
    overrides: SetOption = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw what each value's range does to the time (.png, .pdf, .svg)."),
    ] = None,
    json: JsonOption = None,
    all_ranks: AllRanksOption = False,
) -> None:
    """Find which hardware values the time depends on.

    Simulates the scenario with each value a little lower and higher: percent of time per percent of the value, for the
    iteration and each phase. Where the profile has intervals, also how sure the time is.
    """
    from offsim.cli.commands import show_sensitivity

    show_sensitivity(scenario, overrides or [], plot=plot, json=json, all_ranks=all_ranks)


@app.command()
def report(
    scenarios: Annotated[
        list[str],
        typer.Argument(
            metavar="SCENARIO",
            help="YAML files, or names of scenarios that come with offsim.",
            autocompletion=_scenarios,
        ),
    ],
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="The page to write (.html).")],
    schedulers: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            metavar="NAME[:OPTION=VALUE,...]",
            autocompletion=_schedulers,
            help="Simulate each scenario under this one instead; may be repeated.",
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Write a page about one scenario or several, to send around.

    One HTML file that needs no network: times, what limits each phase, timelines to zoom into, memory over time, and
    where every hardware value comes from.
    """
    from offsim.cli.commands import report_scenarios

    report_scenarios(scenarios, schedulers or [], overrides or [], html=html)


@app.command()
def tune(
    scenario: ScenarioArgument,
    overrides: SetOption = None,
    over: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="What to choose among: scheduler, update_stride, cpu_ratio, subgroup_size, micro_batch (all of them "
            "if not given), activation_checkpointing.",
        ),
    ] = None,
    tries: Annotated[
        list[str] | None,
        typer.Option("--try", metavar="NAME=VALUE,...", help="Values to try in place of the usual. May be repeated."),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="iteration_time: the global batch stays; tokens_per_s: it grows with the micro-batch, and the "
            "accumulation steps stay.",
        ),
    ] = "iteration_time",
    headroom: Annotated[float, typer.Option(help="Share of each memory that must stay free.")] = 0.05,
    budget: Annotated[int | None, typer.Option(help="Simulate at most so many settings.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; as many as cores if not given.")] = None,
    with_upgrades: Annotated[
        bool, typer.Option("--upgrades/--no-upgrades", help="Say what better hardware would buy.")
    ] = True,
    json: JsonOption = None,
) -> None:
    """Find the fastest setting that fits in memory.

    Also what better hardware would buy. Lower bounds rule out most settings without simulating them; what is found is
    what simulating all would find.
    """
    from offsim.cli.tuning import tune_scenario
    from offsim.study.sweeps.local import cores

    tune_scenario(
        scenario,
        overrides or (),
        over,
        tries or (),
        objective,
        headroom=headroom,
        budget=budget,
        jobs=jobs or cores(),
        with_upgrades=with_upgrades,
        json=json,
    )


@app.command()
def sweep(
    sweep: Annotated[
        str,
        typer.Argument(metavar="SWEEP", help="A YAML file, or the name of a sweep that comes with offsim."),
    ],
    out: Annotated[str, typer.Option(metavar="RESULTS", help="The folder to keep results in.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Worker processes; by default as many as cores.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue in a folder that has results; nothing is simulated twice.")
    ] = False,
    max_points: Annotated[int, typer.Option(min=1, metavar="N", help="Refuse sweeps of more points.")] = 100_000,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Use the workers of this Dask scheduler, such as tcp://host:8786."),
    ] = None,
) -> None:
    """Simulate every combination of many values.

    A sweep names a scenario and values to try of scheduler, hardware, model and training; all combinations become one
    Parquet table in the folder. Whatever interrupts it, --resume continues.
    """
    from offsim.cli.sweeps import sweep_file

    sweep_file(sweep, out=out, jobs=jobs, resume=resume, max_points=max_points, dask=dask)
