"""`offsim schema`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def schema(
    of: Annotated[Literal["scenario", "profile"], typer.Argument(help="What the files describe.")],
) -> None:
    """Print the JSON Schema of scenarios or profiles, for editors."""
    from offsim.cli.outputs import STDOUT, give
    from offsim.schema import SCHEMAS

    give(STDOUT, lambda _: "", SCHEMAS[of])
