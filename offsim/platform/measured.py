"""The configurations that were measured on a profile's hardware: `measured.json` beside the profile.

    {"my-node": [{"name": "13B dp4", "left_out": "13B", "dimensions": {"model.layers": 40, "scheduler.name": ...}}]}

Those of one group, `left_out`, are in the order of its residuals in `held_out.json`; those without a group were only
fitted to. `offsim calibrate` writes both files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from offsim.inputs.errors import InputError
from offsim.inputs.fields import Section

FILE_NAME = "measured.json"

Dimensions = dict[str, bool | int | float | str]
"""What a prediction depends on besides the hardware, by dotted name -> a number, a word or a flag."""


class Configuration(Section):
    """A measured configuration; `left_out` is the group of runs that it was held out of a fit with, "" if never."""

    name: str
    left_out: str = ""
    dimensions: Dimensions


Measured = Mapping[str, Sequence[Configuration]]
"""Profile -> its configurations."""
_FILE = TypeAdapter(dict[str, list[Configuration]])


def read_measured(path: Path) -> dict[str, list[Configuration]]:
    """Read the file; empty where there is none. Raises InputError for a file of another form."""
    try:
        return _FILE.validate_json(path.read_bytes()) if path.exists() else {}
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", str(path)) from None
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"], str(path)) from None


def measured_text(table: Measured) -> bytes:
    """The file's text, a line for each configuration."""
    between = ",\n"
    profiles = (
        f"{json.dumps(name)}: [\n{between.join(one.model_dump_json() for one in known)}\n]"
        for name, known in table.items()
    )
    return f"{{\n{between.join(profiles)}\n}}\n".encode()
