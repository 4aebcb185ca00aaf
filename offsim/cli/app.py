"""The `offsim` command. Modules of its commands, and what they need, are imported when they run: all start at once."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

# In the order of what a newcomer asks: predictions first, then measuring a machine, traces, runs, calibration.
COMMANDS = {
    "run": "simulating",
    "compare": "simulating",
    "sweep": "studying",
    "tune": "studying",
    "sensitivity": "studying",
    "report": "simulating",
    "optimum": "studying",
    "scenarios": "simulating",
    "profiles": "profiles",
    "schedulers": "simulating",
    "schema": "simulating",
    "harness": "measuring",
    "trace": "measuring",
    "replay": "measuring",
    "validate": "measuring",
    "logs": "measuring",
    "calibrate": "measuring",
}
"""Command -> its module."""


class _Lazy(TyperGroup):
    """Makes a command when it is asked for."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given | {"commands": dict.fromkeys(COMMANDS)})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _made(cmd_name)
        return super().get_command(ctx, cmd_name)


def _made(name: str) -> Any:
    command = getattr(import_module(f"offsim.cli.{COMMANDS[name]}"), name)
    if isinstance(command, typer.Typer):
        return get_group(command)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command()(command)
    return get_command(alone)


app = typer.Typer(
    cls=_Lazy,
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
