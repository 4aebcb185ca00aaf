"""Declares the commands that simulate a scenario many times over, and the page to send around."""

from __future__ import annotations

from typing import Annotated

import typer

from offsim.cli.arguments import (
    AllRanksOption,
    JobsOption,
    JsonOption,
    ScenarioArgument,
    SetOption,
    scenarios_from,
    scheduler_option,
)


def sweep(
    sweep: Annotated[
        str,
        typer.Argument(metavar="SWEEP", help="A YAML file, or the name of a sweep that comes with offsim."),
    ],
    out: Annotated[str, typer.Option(metavar="RESULTS", help="The folder to keep results in.")],
    jobs: JobsOption = None,
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


def tune(
    scenario: ScenarioArgument,
    overrides: SetOption = None,
    over: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="What to choose among: scheduler, options of schedulers, subgroup_size, micro_batch (these and all "
            "options that declare values to try if not given), activation_checkpointing.",
        ),
    ] = None,
    tries: Annotated[
        list[str] | None,
        typer.Option("--try", metavar="NAME=VALUE,...", help="Values to try in place of the usual. May be repeated."),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="iteration_time: the global batch stays; tokens_per_s: it grows with the micro-batch, and the "
            "accumulation steps stay.",
        ),
    ] = "iteration_time",
    headroom: Annotated[float, typer.Option(metavar="SHARE", help="Share of each memory that must stay free.")] = 0.05,
    budget: Annotated[
        int | None, typer.Option(metavar="N", help="Simulate at most so many settings, a sample of all.")
    ] = None,
    jobs: JobsOption = None,
    with_upgrades: Annotated[
        bool, typer.Option("--upgrades/--no-upgrades", help="Say what better hardware would buy.")
    ] = True,
    json: JsonOption = None,
) -> None:
    """Find the fastest setting that fits in memory.

    Simulates every combination of the settings: the fastest, the fastest with less GPU memory, and what better hardware
    would buy.
    """
    from offsim.cli.tuning import tune_scenario
    from offsim.study.processes import cores

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
    iteration and each phase. Where runs of this hardware were held out of its fit, also how sure
    the time is.
    """
    from offsim.cli.commands import show_sensitivity

    show_sensitivity(scenario, overrides or [], plot=plot, json=json, all_ranks=all_ranks)


def report(
    scenarios: Annotated[
        list[str],
        typer.Argument(
            metavar="SCENARIO",
            help="YAML files, or names of scenarios that come with offsim.",
            autocompletion=scenarios_from,
        ),
    ],
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="The page to write (.html).")],
    schedulers: Annotated[
        list[str] | None,
        scheduler_option("Simulate each scenario under this one instead; may be repeated."),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Write a page about one scenario or several, to send around.

    One HTML file that needs no network: times, what limits each phase, timelines to zoom into, memory over time, and
    where every hardware value comes from.
    """
    from offsim.cli.commands import report_scenarios

    report_scenarios(scenarios, schedulers or [], overrides or [], html=html)
