"""Declares the commands that simulate scenarios one by one, and those that list what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from offsim.cli.arguments import (
    SCENARIO,
    AllRanksOption,
    JsonOption,
    ScenarioArgument,
    SetOption,
    profiles_from,
    scheduler_option,
    schedulers_from,
)


def run(
    scenario: Annotated[str | None, SCENARIO] = None,
    overrides: SetOption = None,
    scheduler: Annotated[str | None, scheduler_option("Replace the scenario's scheduler.")] = None,
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
            "--interval", help="Add how far measured runs that no fit used were from predictions on this hardware."
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
        typer.Option(metavar="PROFILE", help="With --deepspeed: what it runs on.", autocompletion=profiles_from),
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


def compare(
    scenario: ScenarioArgument,
    schedulers: Annotated[
        list[str] | None,
        scheduler_option("A scheduler to compare; may be repeated. Without any, all that apply."),
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


def profiles(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show this one, or a file's.", autocompletion=profiles_from),
    ] = None,
) -> None:
    """List hardware profiles, or show one.

    Shows each value with its unit, where it comes from and what is known of its error.
    """
    from offsim.cli.commands import show_profiles

    show_profiles(name)


def schedulers(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one.", autocompletion=schedulers_from)
    ] = None,
) -> None:
    """List schedulers, or show one.

    Shows what it does and its options with type, bounds and default.
    """
    from offsim.cli.commands import show_schedulers

    show_schedulers(name)
