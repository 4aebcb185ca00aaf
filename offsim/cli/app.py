"""The `offsim` command. What its commands need is imported when they run, so that `offsim run` starts at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from offsim.cli.measuring import calibrate, harness, logs, replay, trace, validate
from offsim.cli.profiles import profiles
from offsim.cli.schema import schema
from offsim.cli.simulating import compare, report, run, scenarios, schedulers
from offsim.cli.studying import optimum, sensitivity, sweep, tune

# In the order of what a newcomer asks: predictions first, then measuring a machine, traces, runs, calibration.
COMMANDS: tuple[Callable[..., None] | typer.Typer, ...] = (
    *(run, compare, sweep, tune, sensitivity, report, optimum, scenarios, profiles, schedulers, schema),
    *(harness, trace, replay, validate, logs, calibrate),
)


class _InOrder(TyperGroup):
    """Lists commands in their order, which Typer breaks for commands that have their own."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = [one.info.name if isinstance(one, typer.Typer) else one.__name__ for one in COMMANDS]
        return [str(name) for name in names]


app = typer.Typer(
    cls=_InOrder,
    help="Simulate offloading schedules of large-model training: how long an iteration takes, what limits it, and "
    "where memory peaks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from offsim.cli.terminal import show
        from offsim.inputs.packaged import SOURCE, offsim_version

        found = offsim_version()
        show("offsim, not installed: it runs from its source tree" if found == SOURCE else f"offsim {found}")
        raise typer.Exit


@app.callback()
def offsim(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    max_operations: Annotated[
        str | None,
        typer.Option(metavar="N", help="Operations that a simulation may have, in place of 500,000."),
    ] = None,
) -> None:
    """The options that come before a command."""
    if max_operations is not None:
        os.environ["OFFSIM_MAX_OPERATIONS"] = max_operations  # worker processes have it too


for command in COMMANDS:
    if isinstance(command, typer.Typer):
        app.add_typer(command)
    else:
        app.command()(command)
