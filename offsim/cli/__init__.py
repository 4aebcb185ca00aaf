"""The `offsim` command."""

from __future__ import annotations

import atexit
import gc
import os
import re
import traceback
from collections.abc import Sequence
from contextlib import suppress

LONG = re.compile(r"\S{1001,}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default those of the process; return its exit status.

    2 for input that is wrong (one message on stderr), 130 where it was interrupted. What does not fit in memory is an
    answer, not an error: 0.
    """
    if arguments is None:
        _start_quickly()
    try:
        # Here, so that an interrupt while modules load is quiet too.
        from offsim.cli.terminal import complain
        from offsim.inputs.errors import InputError, one_line

        try:
            return _run(arguments)
        except InputError as error:
            complain(error)
            return 2
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            # Typer's, about options and arguments
            error.message = LONG.sub(lambda word: one_line(word[0]), error.message)  # type: ignore[attr-defined]
            with suppress(OSError):
                error.show()  # type: ignore[attr-defined]
            return int(error.exit_code)  # type: ignore[attr-defined]
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130


def _start_quickly() -> None:
    """Spare the process what its start and its end need not do."""
    # Modules are no garbage: looking for it as they load finds none, and at the end all goes at once.
    gc.set_threshold(200_000, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
    # Else pydantic looks for plugins in the metadata of every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _run(arguments: Sequence[str] | None) -> int:
    from offsim.cli.app import app
    from offsim.cli.terminal import STDOUT
    from offsim.inputs.errors import InputError

    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"{error.strerror}, expected a folder that is there", "the working directory") from None
    try:
        return int(app(arguments, prog_name="offsim", standalone_mode=False) or 0)
    except OSError as error:
        *_, (last, _) = traceback.walk_tb(error.__traceback__)
        if not str(last.f_globals.get("__name__")).startswith("typer"):
            raise
        # The text of --help, which Typer writes.
        raise InputError(f"cannot be written: {error.strerror}", STDOUT) from None
