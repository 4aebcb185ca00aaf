"""The `offsim` command. What its commands need is imported when they run, so that `offsim run` starts at once."""

from __future__ import annotations

from typing import Annotated

import typer

from offsim.cli.measuring import calibrate, harness, logs, replay, trace, validate
from offsim.cli.schema import schema
from offsim.cli.simulating import compare, profiles, report, run, schedulers
from offsim.cli.studying import optimum, sensitivity, sweep, tune

app = typer.Typer(
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
) -> None:
    """The options that come before a command."""


# In the order of what a newcomer asks: predictions first, then measuring a machine, traces, runs, calibration.
for command in (
    *(run, compare, sweep, tune, sensitivity, report, optimum, profiles, schedulers, schema),
    *(harness, trace, replay, validate, logs, calibrate),
):
    app.command()(command)
