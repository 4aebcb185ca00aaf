"""The `offsim` command."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default those of the process; return its exit status.

    2 for input that is wrong (one message on stderr), 130 where it was interrupted. What does not fit in memory is an
    answer, not an error: 0.
    """
    try:
        # Here, so that an interrupt while modules load is quiet too.
        from offsim.cli.app import app
        from offsim.inputs.errors import InputError

        try:
            app(arguments, prog_name="offsim")
        except InputError as error:
            from offsim.cli.terminal import complain

            complain(error)
            return 2
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    return 0
