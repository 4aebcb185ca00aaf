"""One scenario under every registered schedule: what each makes of it, or why it cannot run it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from offsim.inputs.errors import InputError
from offsim.results.result import Result
from offsim.results.simulate import Source, simulate
from offsim.results.units import format_memory
from offsim.results.verdict import Verdict
from offsim.scenario import Scenario, load_scenario, scenario_profile
from offsim.schedulers.registry import alternative, available_schedulers, find_scheduler, scenario_scheduler
from offsim.simulation import checked
from offsim.states.placement import Placement

STATES = tuple(Placement.model_fields)
NAMED_OCCUPANTS = 2


@dataclass(frozen=True)
class Entry:
    """A schedule, and what came of it: a result, or the reason why there is none."""

    schedule: str
    result: Result | None = None
    changes: tuple[str, ...] = ()
    """What of the scenario the schedule needed otherwise."""
    exactness: str = ""
    """What it computes, compared with waiting for every update."""
    reason: str = ""
    """Why it does not apply, or does not fit."""

    @property
    def fits(self) -> bool:
        """Whether there are times."""
        return self.result is not None and self.result.fits


@dataclass(frozen=True)
class Survey:
    """Every registered schedule: the fastest first, those without times last, in the registry's order."""

    scenario: Scenario
    entries: tuple[Entry, ...]

    @property
    def fitting(self) -> list[Entry]:
        """Entries with times, the fastest first."""
        return [entry for entry in self.entries if entry.fits]

    @property
    def too_large(self) -> list[Entry]:
        """Entries of schedules that apply, but for which memory runs out."""
        return [entry for entry in self.entries if entry.result is not None and not entry.fits]

    @property
    def inapplicable(self) -> list[Entry]:
        """Entries of schedules that cannot run the scenario."""
        return [entry for entry in self.entries if entry.result is None]

    def figures(self) -> list[dict[str, Any]]:
        """The headline numbers of each, None for those that do not apply, and why some have none."""
        empty = next((dict.fromkeys(entry.result.figures()) for entry in self.entries if entry.result), {})
        return [
            {
                "schedule": entry.schedule,
                **(entry.result.figures() if entry.result else empty),
                "changes": ", ".join(entry.changes),
                "exactness": entry.exactness,
                "reason": entry.reason,
            }
            for entry in self.entries
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "scenario": self.scenario.model_dump(mode="json"),
            "schedules": [_entry_dict(entry) for entry in self.entries],
        }


def survey(source: Source, *, all_ranks: bool = False) -> Survey:
    """Simulate a scenario under every registered schedule that can run it.

    A schedule for another ZeRO stage, or for other tiers than the scenario's placement names, gets the scenario with
    these changed, and the entry says so. Raises InputError where no schedule can run the scenario.
    """
    scenario = load_scenario(source)
    scenario_scheduler(scenario)
    entries = [_entry(scenario, name, all_ranks) for name in available_schedulers()]
    if all(entry.result is None for entry in entries):
        checked(scenario, scenario_profile(scenario))  # what is wrong with it under each of them
        raise InputError(next(entry.reason for entry in entries if entry.schedule == scenario.scheduler.name))
    entries.sort(key=lambda entry: entry.result.iteration_s if entry.result and entry.fits else float("inf"))
    return Survey(scenario, tuple(entries))


def _entry(scenario: Scenario, name: str, all_ranks: bool) -> Entry:
    complaint: InputError | None = None
    try:
        for variant, changes in _variants(scenario, name):
            try:
                checked(variant, scenario_profile(variant))
            except InputError as error:
                complaint = complaint or error
                continue
            result = simulate(variant, all_ranks=all_ranks)
            cls, options = scenario_scheduler(variant)
            reason = "" if result.verdict is None else reason_of(result.verdict)
            return Entry(name, result, changes, cls.exactness(options), reason)
    except InputError as error:
        complaint = complaint or error
    return Entry(name, reason=complaint.problem if complaint else "")


def _variants(scenario: Scenario, name: str) -> Iterator[tuple[Scenario, tuple[str, ...]]]:
    """The scenario under a schedule, first in a stage that it is made for, then with fewer and fewer of its placements.

    A state whose placement is left out goes where the schedule has it by default.
    """
    changed, changes = alternative(scenario, name), []
    stages, stage = find_scheduler(name).stages, scenario.training.zero_stage
    if stage not in stages:
        nearest = min(stages, key=lambda other: abs(other - stage))
        changed = load_scenario(changed, [f"training.zero_stage={nearest}"])
        changes.append(f"ZeRO stage {nearest}")
    usual = Placement()
    given = [state for state in STATES if getattr(scenario.placement, state) != getattr(usual, state)]
    for left_out in range(len(given) + 1):
        for states in combinations(given, left_out):
            placement = scenario.placement.model_copy(update={state: getattr(usual, state) for state in states})
            variant = changed.model_copy(update={"placement": placement}) if states else changed
            yield variant, (*changes, *(f"default {state}" for state in states))


def reason_of(verdict: Verdict) -> str:
    """Why it does not fit, in a line: the tier, what asked for memory in vain, and who holds the most."""
    held = ", ".join(
        f"{name} {format_memory(nbytes)}" for name, nbytes in list(verdict.occupants.items())[:NAMED_OCCUPANTS]
    )
    return (
        f"{verdict.tier} memory: {verdict.occupant} asks for {format_memory(verdict.asked_bytes)}, "
        f"{format_memory(verdict.used_bytes)} of {format_memory(verdict.capacity_bytes)} taken"
        + (f" ({held})" if held else "")
    )


def _entry_dict(entry: Entry) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schedule": entry.schedule,
        "applies": entry.result is not None,
        "fits": entry.fits,
        "changes": list(entry.changes),
        "exactness": entry.exactness or None,
        "reason": entry.reason or None,
    }
    if entry.result is None:
        return document
    result = entry.result
    return document | {
        "figures": result.figures(),
        "limited_by": result.limited_by if entry.fits else {},
        "peaks": [
            {"tier": peak.tier, "bytes": peak.bytes, "capacity_bytes": peak.capacity_bytes} for peak in result.peaks
        ],
        "notes": list(result.notes),
        "scenario": result.scenario.model_dump(mode="json"),
    }
