"""The fastest setting that fits: every combination of schedulers, their options and the training set-up, simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, get_args

from offsim.inputs.errors import InputError
from offsim.results.machines import TAPED_FROM, Machines
from offsim.results.result import Result
from offsim.results.simulate import Source, result_of, simulate
from offsim.results.units import format_memory, format_time, plural
from offsim.scenario import Scenario, load_scenario, scenario_profile
from offsim.schedulers.registry import scenario_scheduler
from offsim.simulation import what_runs
from offsim.study.tuning.space import TRAINING, Candidate, Settings, Space

if TYPE_CHECKING:
    import pandas as pd

    from offsim.views.figure import Picture

Objective = Literal["iteration_time", "tokens_per_s"]

FASTEST = 5
"""How many of the settings that fit are shown as the fastest."""
HEADROOM = 0.05
"""Share of each memory that a setting leaves free: predicted peaks are off by up to about that much (README)."""
PROCESSES_FROM_S = 1.0
"""Simulations that take longer than this together run in other processes, which take about as long to start."""

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""As `map`: `in_order` runs candidates in other processes."""


@dataclass(frozen=True)
class Outcome:
    """A setting and what simulating it showed. One that does not fit takes forever."""

    settings: Settings
    scenario: Scenario
    plainness: tuple[bool, int]
    fits: bool
    iteration_s: float
    tokens_per_s: float
    mfu: float
    cost_per_1e9_tokens: float | None
    gpu_bytes: float
    host_bytes: float
    peaks: tuple[float, ...]
    """Most bytes in each memory tier."""
    limited_by: Mapping[str, float]
    notes: tuple[str, ...]
    """How far to trust it (`Result.notes`)."""
    unused: str
    """What its scheduler is chosen for and does not do."""

    @property
    def same(self) -> tuple[str, ...]:
        """Time and memory, alike but for rounding where two settings simulate the same."""
        return tuple(f"{number:.9g}" for number in (self.iteration_s, self.tokens_per_s, *self.peaks))

    @property
    def exactness(self) -> str:
        """What training with it computes, compared with waiting for every update."""
        cls, options = scenario_scheduler(self.scenario)
        return cls.exactness(options)


@dataclass(frozen=True)
class Question:
    """What to tune.

    `over` are dimensions (docs/tune.md), by default the scheduler, the options of schedulers that declare values to
    try, `subgroup_size` and `micro_batch`; `values` are what to try of some of them. With the objective
    "iteration_time" the global batch stays and micro-batches divide it; with "tokens_per_s" the accumulation steps
    stay and the global batch grows with the micro-batch. Of more than `budget` settings a random sample is simulated,
    the same each time.
    """

    over: Sequence[str] | None = None
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    objective: Objective = "iteration_time"
    headroom: float = HEADROOM
    budget: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range and an unknown objective."""
        if self.objective not in get_args(Objective):
            raise InputError(f"found '{self.objective}', expected {' or '.join(get_args(Objective))}", "--objective")
        if self.budget is not None and self.budget < 1:
            raise InputError(f"found {self.budget}, expected at least 1", "--budget")
        if not 0 <= self.headroom < 1:
            raise InputError(f"found {self.headroom:g}, expected at least 0 and less than 1", "--headroom")


@dataclass(repr=False)
class Tuning:
    """What tuning found."""

    question: Question
    dimensions: Sequence[str]
    given: Outcome
    """The scenario as it is."""
    outcomes: Sequence[Outcome]
    """Of all settings that were simulated."""
    left_out: int = 0
    """Settings that the budget did not reach."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Schedulers that do not apply to the scenario, and why."""

    @property
    def fitting(self) -> list[Outcome]:
        """Settings that fit, the fastest first, and none whose scheduler does not do what it is chosen for.

        Of those equal in time and GPU memory only the plainest, and of those equally plain the one with the least host
        memory.
        """

        def speed(outcome: Outcome) -> tuple[float, float]:
            return -float(f"{outcome.tokens_per_s:.9g}"), float(f"{outcome.gpu_bytes:.9g}")

        fitting = [outcome for outcome in self.outcomes if outcome.fits]
        useful = [outcome for outcome in fitting if not outcome.unused] or fitting
        distinct: dict[tuple[float, float], Outcome] = {}
        for outcome in sorted(useful, key=lambda o: (*speed(o), o.plainness, o.host_bytes)):
            distinct.setdefault(speed(outcome), outcome)
        return list(distinct.values())

    @property
    def fastest(self) -> list[Outcome]:
        """The first of those that fit."""
        return self.fitting[:FASTEST]

    @property
    def best(self) -> Outcome | None:
        """The fastest setting that fits; None where none does."""
        return next(iter(self.fastest), None)

    @property
    def best_of_deepspeed(self) -> Outcome | None:
        """The fastest whose scheduler DeepSpeed has, in a build of its own only if it is the best; None without one."""
        for outcome in (fitting := self.fitting):
            cls, options = scenario_scheduler(outcome.scenario)
            if cls.deepspeed_keys(options) is not None and (outcome is fitting[0] or not cls.special_build):
                return outcome
        return None

    @property
    def front(self) -> list[Outcome]:
        """Settings that no other beats in both tokens per second and GPU memory, the fastest first."""
        front: list[Outcome] = []
        for outcome in self.fitting:
            if not front or outcome.gpu_bytes < front[-1].gpu_bytes:
                front.append(outcome)
        return front

    @property
    def table(self) -> pd.DataFrame:
        """A row for each of `fitting` and for each setting that does not fit, with columns as of a sweep.

        `on_front` tells the rows of `front`; pictures of sweeps (`offsim.views.sweeps`) draw it.
        """
        import pandas as pd

        front = {id(outcome) for outcome in self.front}
        shown = [*self.fitting, *(outcome for outcome in self.outcomes if not outcome.fits)]
        axes = dimensions_of(shown)
        table = pd.DataFrame([outcome_row(outcome, axes) | {"on_front": id(outcome) in front} for outcome in shown])
        table.attrs["axes"] = axes
        return table

    def plot_front(self, **options: Any) -> Picture:
        """Time against GPU memory; options as of `offsim.views.sweeps.plot_front`."""
        from offsim.views.sweeps import plot_front

        return plot_front(self.table, **{"title": self.given.scenario.name, **options})

    @property
    def counts(self) -> str:
        """How many settings were simulated, and how many were not."""
        left = f", {self.left_out} left out by the budget" if self.left_out else ""
        skipped = f"; {plural(len(self.skipped), 'scheduler')} skipped" if self.skipped else ""
        return f"{plural(len(self.outcomes), 'setting')} simulated{left}{skipped}"

    def __repr__(self) -> str:
        best, given = self.best, self.given
        if best is None:
            return f"{given.scenario.name}: none of the settings tried fits in memory\n  {self.counts}"
        as_given = format_time(given.iteration_s) if given.fits else "does not fit"
        lines = [
            f"{given.scenario.name}: {', '.join(f'{name} {value}' for name, value in best.settings.items())}",
            f"{format_time(best.iteration_s)}, {best.tokens_per_s:,.0f} tokens/s (as given: {as_given})",
            f"GPU {format_memory(best.gpu_bytes)}, host {format_memory(best.host_bytes)}",
            self.counts,
        ]
        return "\n  ".join(lines)


def dimensions_of(outcomes: Iterable[Outcome]) -> list[str]:
    """The dimensions of some settings: the scheduler, its options, then the training set-up."""
    return sorted(dict.fromkeys(name for outcome in outcomes for name in outcome.settings), key=TRAINING.__contains__)


def outcome_row(outcome: Outcome, axes: Sequence[str]) -> dict[str, Any]:
    """A row of a table, with columns as of a sweep."""
    return {
        "scheduler": outcome.scenario.scheduler.name,
        **{name: outcome.settings.get(name) for name in axes if name != "scheduler"},
        "fits": outcome.fits,
        "iteration_s": outcome.iteration_s if outcome.fits else None,
        "tokens_per_s": outcome.tokens_per_s if outcome.fits else None,
        "gpu_peak_bytes": outcome.gpu_bytes,
        "host_peak_bytes": outcome.host_bytes,
        "mfu": outcome.mfu if outcome.fits else None,
        **({} if (cost := outcome.cost_per_1e9_tokens) is None else {"cost_per_1e9_tokens": cost}),
        "exactness": outcome.exactness,
        "notes": "; ".join(outcome.notes),
        "limited_by": next(iter(outcome.limited_by), "") if outcome.fits else "memory",
    }


def tune(scenario: Source, question: Question | None = None, mapper: Mapper = map) -> Tuning:
    """Find the settings with the most tokens per second that fit in both memories with headroom.

    Raises InputError for unknown dimensions and values that cannot be.
    """
    asked = question or Question()
    chosen = load_scenario(scenario)
    space = Space(chosen, asked.over, asked.values, asked.objective == "tokens_per_s")
    listed = list(space)
    tried = listed
    if asked.budget is not None and asked.budget < len(listed):
        tried = [listed[index] for index in sorted(Random(0).sample(range(len(listed)), asked.budget))]
    given, *outcomes = simulate_all([Candidate({}, chosen), *tried], asked.headroom, mapper)
    return Tuning(asked, space.dimensions, given, _with_effect(outcomes), len(listed) - len(tried), space.skipped)


def _with_effect(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Leave out of settings the options of which all values tried, with the other settings as they are, do the same."""
    found: dict[tuple[Any, ...], set[tuple[str, ...]]] = {}
    tried: dict[tuple[Any, ...], set[Any]] = {}

    def others(outcome: Outcome, name: str) -> tuple[Any, ...]:
        return name, *(f"{other}={value!r}" for other, value in outcome.settings.items() if other != name)

    for outcome in outcomes:
        for name, value in outcome.settings.items():
            found.setdefault(others(outcome, name), set()).add(outcome.same)
            tried.setdefault(others(outcome, name), set()).add(repr(value))

    def matters(outcome: Outcome, name: str) -> bool:
        key = others(outcome, name)
        return name in ("scheduler", *TRAINING) or len(found[key]) > 1 or len(tried[key]) == 1

    return [
        replace(outcome, settings={name: value for name, value in outcome.settings.items() if matters(outcome, name)})
        if outcome.fits
        else outcome
        for outcome in outcomes
    ]


def simulate_all(candidates: Sequence[Candidate], headroom: float, mapper: Mapper) -> list[Outcome]:
    """Simulate candidates, those that run the same once, with `mapper` where they take long enough for it to pay."""
    groups: dict[str, dict[str, Candidate]] = {}
    keys = [_keys(candidate.scenario) for candidate in candidates]
    for (run, hardware), candidate in zip(keys, candidates, strict=True):
        groups.setdefault(run, {}).setdefault(hardware, candidate)
    listed = [[*group.values()] for group in groups.values()]
    work = partial(_on_machines, headroom=headroom)
    begin = perf_counter()
    found = [work(group) for group in listed[:1]]
    rest_s = (perf_counter() - begin) * (len(listed) - 1)
    found += (mapper if rest_s > PROCESSES_FROM_S else map)(work, listed[1:])
    known = {
        (run, hardware): outcome
        for (run, group), outcomes in zip(groups.items(), found, strict=True)
        for hardware, outcome in zip(group, outcomes, strict=True)
    }
    return [
        replace(known[key], settings=one.settings, scenario=one.scenario, plainness=one.plainness)
        for key, one in zip(keys, candidates, strict=True)
    ]


def _keys(scenario: Scenario) -> tuple[str, str]:
    """What a run depends on besides the hardware, and the hardware."""
    return repr(what_runs(scenario)), repr(scenario.model_dump(include={"hardware", "hardware_changes"}))


def _on_machines(candidates: Sequence[Candidate], headroom: float) -> list[Outcome]:
    """What simulating candidates shows that run the same, each on hardware of its own."""
    if len(candidates) < TAPED_FROM:
        return [_outcome(one, simulate(one.scenario), headroom) for one in candidates]
    machines = Machines(candidates[0].scenario, many=True)
    profiles = [scenario_profile(one.scenario) for one in candidates]
    return [
        _outcome(one, result_of(one.scenario, machines.on(profile), profile), headroom)
        for one, profile in zip(candidates, profiles, strict=True)
    ]


def simulated(candidate: Candidate, headroom: float) -> Outcome:
    """What simulating a candidate shows; it fits where it leaves the headroom free."""
    return _outcome(candidate, simulate(candidate.scenario), headroom)


def _outcome(candidate: Candidate, result: Result, headroom: float) -> Outcome:
    fits = result.fits and all(peak.bytes <= (1 - headroom) * peak.capacity_bytes for peak in result.peaks)
    return Outcome(
        candidate.settings,
        candidate.scenario,
        candidate.plainness,
        fits,
        result.iteration_s if fits else float("inf"),
        result.tokens_per_s if fits else 0.0,
        result.mfu if fits else 0.0,
        result.cost_per_1e9_tokens if fits else None,
        result.gpu_peak_bytes,
        result.host_peak_bytes,
        tuple(peak.bytes for peak in result.peaks),
        result.limited_by if fits else {},
        result.notes,
        result.run.unused,
    )
