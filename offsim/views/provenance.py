"""The values of hardware profiles and their sources, and how far to trust predictions made from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

from offsim.inputs.errors import InputError
from offsim.inputs.units import unit_of
from offsim.platform.hardware import HardwareProfile, Provenance, Source
from offsim.platform.profiles import available_profiles, load_profile
from offsim.results.result import Result
from offsim.results.units import engineering, plural
from offsim.scenario import scenario_profile
from offsim.views.facts import Table
from offsim.views.wording import validated


@dataclass(frozen=True)
class Value:
    """One value of a profile and where it comes from."""

    section: str
    field: str
    number: float | bool | str | None
    source: str
    description: str
    known: Provenance
    """Of one that the profile does not give, nothing."""

    @property
    def unit(self) -> str:
        """Its unit, "" where it has none."""
        unit = unit_of(self.field)
        return "" if self.number is None or unit == "1" else unit

    @property
    def quantity(self) -> str:
        """The value in engineering notation with its unit."""
        number = self.number
        shown = "none" if number is None else number if isinstance(number, str) else engineering(number)
        return f"{shown} {self.unit}".rstrip()

    @property
    def interval(self) -> str:
        """The 95 % interval with its unit, "" where none is known."""
        low, high = self.known.low, self.known.high
        if low is None or high is None:
            return ""
        return f"{engineering(low)} to {engineering(high)} {self.unit}".rstrip()


@dataclass(frozen=True)
class Scored:
    """Errors of predictions on a profile's measured runs, which runs those are, and errors on models left out."""

    errors: Table | None = None
    runs: str = ""
    left_out: Table | None = None


@dataclass(frozen=True)
class Hardware:
    """A profile, which scenarios use it, and what is known of its errors."""

    profile: HardwareProfile
    description: str
    used_by: Sequence[str]
    values: dict[str, list[Value]]
    """By section of the profile."""
    sources: str
    trust: Sequence[str]
    scored: Scored


def hardware_of(results: Sequence[Result], labels: Sequence[str], scored: Callable[[str], Scored]) -> list[Hardware]:
    """Each different profile of the results, in order of first use; `scored` knows the errors of those shipped."""
    found: list[tuple[Result, list[str]]] = []
    for result, label in zip(results, labels, strict=True):
        known = next((users for first, users in found if first.run.profile == result.run.profile), None)
        if known is None:
            found.append((result, [label]))
        else:
            known.append(label)
    return [_hardware(result, users, scored) for result, users in found]


def _hardware(result: Result, users: Sequence[str], scored: Callable[[str], Scored]) -> Hardware:
    profile = result.run.profile
    values = values_of(profile)
    counts = Counter(value.source for value in values)
    shipped = _shipped(result)
    known = Scored() if shipped is None else scored(shipped)
    return Hardware(
        profile,
        "; ".join(filter(None, [profile.description, f"{plural(profile.gpus_per_node, 'GPU')} a node"])),
        users,
        {section: list(its) for section, its in groupby(values, key=lambda value: value.section)},
        f"{len(values)} values: "
        + ", ".join(f"{counts[source]} {source}" for source in (*get_args(Source), "default") if counts[source]),
        _trust(profile, values, shipped, known.runs),
        known,
    )


def values_of(profile: HardwareProfile) -> list[Value]:
    """Every value of a profile, section by section."""
    values = []
    for section, given in profile.sections().items():
        for field, info in type(given).model_fields.items():
            origin = profile.provenance.get(f"{section}.{field}")
            source, known = (origin.source, origin) if origin else ("default", Provenance(source="assumed"))
            values.append(Value(section, field, getattr(given, field), source, info.description or "", known))
    return values


def _shipped(result: Result) -> str | None:
    """The name of the profile that comes with offsim and that the result's is, or is made from by changes."""
    scenario = result.scenario
    try:
        base = load_profile(scenario.hardware, scenario.folder)
        if result.run.profile != scenario_profile(scenario):
            return None  # another one, given in Python
    except InputError:
        return None
    return base.name if base.name in available_profiles() and base == load_profile(base.name) else None


def _trust(profile: HardwareProfile, values: Sequence[Value], shipped: str | None, measured: str) -> list[str]:
    compared = validated(profile).partition(": ")[2]
    said = [f"{compared[0].upper()}{compared[1:]}."]
    if measured:
        said.append(measured)
        if shipped != profile.name:
            said.append(f"The errors below are those of {shipped}; what the changes to it do was not compared.")
    else:
        known = dict.fromkeys(value.known.error for value in values if value.known.error)
        said += [f"Known errors of fitted values: {error}." for error in known]
    with_interval = sum(bool(value.interval) for value in values)
    if with_interval:
        known_of = f"95 % intervals are known of {with_interval} of {plural(len(values), 'value')}, in the table below"
        said.append(f"{known_of}; the times on this page are those of the values themselves.")
    return said
