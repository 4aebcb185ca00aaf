"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def scenarios_from(incomplete: str) -> list[str]:
    """Complete the name of one of the scenarios."""
    from offsim.scenario import available_scenarios

    return [name for name in available_scenarios() if name.startswith(incomplete)]


def profiles_from(incomplete: str) -> list[str]:
    """Complete the name of one of the profiles."""
    from offsim.platform.profiles import available_profiles

    return [name for name in available_profiles() if name.startswith(incomplete)]


def schedulers_from(incomplete: str) -> list[str]:
    """Complete the name of one of the schedulers."""
    from offsim.schedulers.registry import available_schedulers

    return [name for name in available_schedulers() if name.startswith(incomplete)]


def scheduler_option(help: str) -> Any:
    """Declare `--scheduler`, which may have options behind its name."""
    return typer.Option("--scheduler", metavar="NAME[:OPTION=VALUE,...]", help=help, autocompletion=schedulers_from)


def profile_option(help: str) -> Any:
    """Declare an option whose value is a hardware profile."""
    return typer.Option(metavar="PROFILE", help=help, autocompletion=profiles_from)


def plot_option(help: str) -> Any:
    """Declare `--plot`, whose help says what is drawn."""
    return typer.Option("--plot", metavar="FILE", help=f"{help} (.png, .pdf, .svg).")


SCENARIO = typer.Argument(
    metavar="SCENARIO",
    help="A YAML file, or the name of a scenario that comes with offsim.",
    autocompletion=scenarios_from,
)
ScenarioArgument = Annotated[str, SCENARIO]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the scenario, such as training.micro_batch=2. May be repeated.",
    ),
]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON; - for standard output.")
]
CsvOption = Annotated[
    str | None, typer.Option("--csv", metavar="FILE", help="Write the table as CSV; - for standard output.")
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", min=1, metavar="N", help="Worker processes; by default as many as cores.")
]
AllRanksOption = Annotated[
    bool,
    typer.Option("--all-ranks", help="Simulate every rank of a node; otherwise one stands for those that are alike."),
]
