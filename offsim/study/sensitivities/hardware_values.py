"""The values of a profile that times depend on, one by one, and the profile with one of them changed."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from offsim.inputs.errors import InputError
from offsim.inputs.units import unit_of
from offsim.platform.hardware import HardwareProfile
from offsim.results.result import Result

_ROOM_BYTES = 1e30

Times = dict[str, float]
"""Phase, and "iteration" -> seconds."""


@dataclass(frozen=True, slots=True)
class HardwareValue:
    """A rate, a fixed time, a number of cores or a share; `low` and `high` bound its 95 % interval where known."""

    section: str
    field: str
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def key(self) -> str:
        """The name that `hardware_changes` and a profile's provenance know it by: link.h2d_bytes_per_s."""
        return f"{self.section}.{self.field}"

    @property
    def unit(self) -> str:
        """The unit that its name says; 1 where it says none."""
        return unit_of(self.field)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, None where the value is taken as exact."""
        if self.low is None or self.high is None or self.low == self.high:
            return None
        return self.low, self.high


def hardware_values(profile: HardwareProfile) -> list[HardwareValue]:
    """Return all that times can depend on smoothly and that is not zero, in the profile's order.

    Counts (GPUs, domains) are no matter of degree, capacities decide only whether a scenario fits, and peaks are there
    to check by. Raises InputError for an interval that reaches what the value cannot be.
    """
    found = []
    for section, model in profile.sections().items():
        if section == "measurement":
            continue  # what measuring costs is not simulated
        for field in type(model).model_fields:
            number = getattr(model, field)
            if not isinstance(number, float) or unit_of(field) == "B" or field.startswith("peak_"):
                continue
            origin = profile.provenance.get(f"{section}.{field}")
            value = HardwareValue(section, field, number, *((origin.low, origin.high) if origin else ()))
            if number or value.interval:
                _check(profile, model, value)
                found.append(value)
    return found


def _check(profile: HardwareProfile, model: BaseModel, value: HardwareValue) -> None:
    for bound in value.interval or ():
        try:
            type(model)(**{**model.model_dump(), value.field: bound})
        except ValidationError as error:
            expected = error.errors()[0]["msg"].removeprefix("Input should be ")
            problem = f"{value.key}: found an interval from {value.low:g} to {value.high:g}, expected each {expected}"
            raise InputError(f"profile '{profile.name}', {problem}") from None


def times_with(result: Result, value: HardwareValue, number: float) -> Times:
    """Times of the same iteration where a value of the hardware is another; whether that still fits is not asked."""
    profile = result.run.profile
    changes: dict[str, dict[str, float]] = {"gpu": {"memory_bytes": _ROOM_BYTES}, "host": {"memory_bytes": _ROOM_BYTES}}
    changes.setdefault(value.section, {})[value.field] = number
    return times_of(result.on(profile.with_values(changes)))


def times_of(result: Result) -> Times:
    """Phase, and "iteration" -> seconds. Raises DoesNotFit."""
    return {**result.durations, "iteration": result.iteration_s}
