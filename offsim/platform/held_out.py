"""How far measured runs were from predictions by a fit that did not use them: `held_out.json` beside a profile.

    {"my-node": {"13B": {"sum": {"n": 2, "median": 3.1, "p90": 4.1, "worst": 4.4, "residuals": [0.018, -0.043]}}}}

Profile -> what was left out of the fit -> phase, where "sum" is all of them -> absolute relative errors in percent, and
the residual log(measured / predicted) of each run; groups that overlap others have none. `offsim calibrate` writes the
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from offsim.inputs.errors import InputError
from offsim.inputs.fields import Section

FILE_NAME = "held_out.json"


class Score(Section):
    """Errors of the held-out runs of one group in one phase."""

    n: int
    median: float
    p90: float
    worst: float
    residuals: tuple[float, ...] = ()


Groups = dict[str, dict[str, Score]]
"""What was left out -> phase -> its errors."""
_FILE = TypeAdapter(dict[str, Groups])


@dataclass(frozen=True)
class HeldOut:
    """The residuals of a profile by phase, each in the order of `groups`, which were left out one by one."""

    groups: tuple[str, ...]
    residuals: Mapping[str, tuple[float, ...]]


def read_held_out(path: Path) -> dict[str, Groups]:
    """Read the file; empty where there is none. Raises InputError for a file of another form."""
    try:
        return _FILE.validate_json(path.read_bytes()) if path.exists() else {}
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{f'{place}: ' if place else ''}{first['msg']}", str(path)) from None


def held_out_text(table: Mapping[str, Groups]) -> bytes:
    """The file's text."""
    return _FILE.dump_json(dict(table), indent=2) + b"\n"


def held_out_of(profile: Path) -> HeldOut | None:
    """The residuals of the profile in this file; None where no run was held out."""
    known = read_held_out(profile.with_name(FILE_NAME)).get(profile.stem, {})
    groups = {group: scores for group, scores in known.items() if any(score.residuals for score in scores.values())}
    phases = dict.fromkeys(phase for scores in groups.values() for phase in scores)
    residuals = {
        phase: tuple(r for scores in groups.values() if phase in scores for r in scores[phase].residuals)
        for phase in phases
    }
    return HeldOut(tuple(groups), residuals) if residuals.get("sum") else None
