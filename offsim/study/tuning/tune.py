"""The fastest setting that fits: branch and bound over schedulers, their options and the training set-up.

Candidates are simulated in the order of their lower bounds. One that cannot be among the fastest, nor on the front of
time against GPU memory, is never simulated: the answer is that of simulating them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, get_args

from offsim.inputs.errors import InputError
from offsim.platform.profiles import scenario_profile
from offsim.scenario import Scenario, load_scenario
from offsim.simulation import Source, simulate
from offsim.study.tuning.bounds import lower_bound
from offsim.study.tuning.space import DEFAULT, Candidate, Settings, candidates, values_of

if TYPE_CHECKING:
    import pandas as pd

    from offsim.views.figure import Picture

Objective = Literal["iteration_time", "tokens_per_s"]

FASTEST = 5
"""How many of the fastest settings are known for certain."""
HEADROOM = 0.05
"""Share of each memory that a setting leaves free: predicted peaks are off by up to about that much (README)."""
TOGETHER = 16
"""Candidates that are simulated before what they show rules out others, in however many processes."""
ROUNDING = 1 + 1e-9

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""As `map`: an executor's runs candidates in other processes."""


@dataclass(frozen=True)
class Outcome:
    """A setting and what simulating it showed. One that does not fit takes forever."""

    settings: Settings
    scenario: Scenario
    fits: bool
    iteration_s: float
    tokens_per_s: float
    gpu_bytes: float
    host_bytes: float
    limited_by: Mapping[str, float]


@dataclass(frozen=True)
class Question:
    """What to tune.

    `over` are dimensions (`offsim.study.tuning.space`), `values` what to try of some of them. With the objective
    "iteration_time" the global batch stays and micro-batches divide it; with "tokens_per_s" the accumulation steps
    stay and the global batch grows with the micro-batch. At most `budget` settings are simulated. `fastest` settings
    are known for certain, and the front of time against GPU memory where `with_front`.
    """

    over: Sequence[str] = DEFAULT
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    objective: Objective = "iteration_time"
    headroom: float = HEADROOM
    budget: int | None = None
    fastest: int = FASTEST
    with_front: bool = True

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
    given: Outcome
    """The scenario as it is."""
    outcomes: list[Outcome] = field(default_factory=list)
    """Of all settings that were simulated."""
    ruled_out: int = 0
    """Settings whose lower bounds are above what was found."""
    left_out: int = 0
    """Settings that the budget did not reach."""
    left_out_tokens_per_s: float = 0.0
    """What those cannot exceed."""

    @property
    def fitting(self) -> list[Outcome]:
        """Settings that fit, the fastest first; of those equal in time and GPU memory, the one with least host memory.

        Equal are settings that differ in name only, as strides do that are larger than the number of sub-groups.
        """
        distinct: dict[tuple[float, float], Outcome] = {}
        for outcome in sorted((o for o in self.outcomes if o.fits), key=lambda o: (_slowness(o), o.host_bytes)):
            distinct.setdefault((outcome.tokens_per_s, outcome.gpu_bytes), outcome)
        return list(distinct.values())

    @property
    def fastest(self) -> list[Outcome]:
        """The first of those that fit, which are known for certain."""
        return self.fitting[: self.question.fastest]

    @property
    def best(self) -> Outcome | None:
        """The fastest setting that fits; None where none does."""
        return next(iter(self.fastest), None)

    @property
    def front(self) -> list[Outcome]:
        """Settings that no other beats in both tokens per second and GPU memory, the fastest first."""
        front: list[Outcome] = []
        for outcome in sorted(self.fitting, key=lambda o: (_slowness(o), o.gpu_bytes)):
            if not front or outcome.gpu_bytes < front[-1].gpu_bytes:
                front.append(outcome)
        return front

    @property
    def table(self) -> pd.DataFrame:
        """A row for each of `fitting` and for each setting simulated that does not fit, with columns as of a sweep.

        `on_front` tells the rows of `front`; pictures of sweeps (`offsim.views.sweeps`) draw it.
        """
        from offsim.study.tuning.tuning_table import tuning_table

        return tuning_table(self)

    def plot_front(self, **options: Any) -> Picture:
        """Time against GPU memory; options as of `offsim.views.sweeps.plot_front`."""
        from offsim.views.sweeps import plot_front

        return plot_front(self.table, **{"title": self.given.scenario.name, **options})

    def __repr__(self) -> str:
        from offsim.study.tuning.tuning_table import tuning_text

        return tuning_text(self)


def _slowness(outcome: Outcome) -> float:
    return -outcome.tokens_per_s


def tune(scenario: Source, question: Question | None = None, mapper: Mapper = map) -> Tuning:
    """Find the settings with the most tokens per second that fit in both memories with headroom.

    Raises InputError for unknown dimensions and values that cannot be.
    """
    asked = question or Question()
    chosen = load_scenario(scenario)
    grow = asked.objective == "tokens_per_s"
    listed = list(candidates(chosen, values_of(chosen, asked.over, asked.values, grow), grow))
    evaluate = partial(evaluated, headroom=asked.headroom)
    tuning = Tuning(asked, evaluate(Candidate({}, chosen)))
    promises: Iterable[_Promise] = mapper(partial(_promise, headroom=asked.headroom), listed)
    search = _open(sorted(promises, key=lambda promise: -promise.tokens_per_s), tuning)
    left = len(listed) if asked.budget is None else asked.budget
    while together := [promise.candidate for promise in islice(search, min(TOGETHER, left))]:
        left -= len(together)
        tuning.outcomes += mapper(evaluate, together)
    remaining = list(search)
    tuning.left_out = len(remaining)
    tuning.left_out_tokens_per_s = max((promise.tokens_per_s for promise in remaining), default=0.0)
    return tuning


def evaluated(candidate: Candidate, headroom: float) -> Outcome:
    """Simulate a candidate."""
    result = simulate(candidate.scenario)
    fits = result.fits and all(peak.bytes <= (1 - headroom) * peak.capacity_bytes for peak in result.peaks)
    return Outcome(
        candidate.settings,
        candidate.scenario,
        fits,
        result.iteration_s if fits else float("inf"),
        result.tokens_per_s if fits else 0.0,
        result.gpu_peak_bytes,
        result.host_peak_bytes,
        result.limited_by if fits else {},
    )


@dataclass(frozen=True)
class _Promise:
    """The most tokens per second that a candidate can reach, and the least GPU memory that it can do with."""

    candidate: Candidate
    tokens_per_s: float
    gpu_bytes: float
    fits: bool


def _promise(candidate: Candidate, headroom: float) -> _Promise:
    scenario = candidate.scenario
    profile = scenario_profile(scenario)
    bound = lower_bound(scenario, profile)
    tokens = scenario.training.global_batch * scenario.model.sequence
    rate = tokens / bound.iteration_s * ROUNDING if bound.iteration_s else float("inf")
    room = (1 - headroom) * (profile.gpu.memory_bytes - profile.gpu.reserved_bytes)
    nbytes = bound.gpu_bytes / ROUNDING
    return _Promise(candidate, rate, nbytes, bound.fits and nbytes <= room)


def _open(waiting: Iterable[_Promise], tuning: Tuning) -> Iterator[_Promise]:
    """Those that are not ruled out by what was simulated until they are asked for."""
    simulated, fastest, front = len(tuning.outcomes), tuning.fastest, tuning.front
    for promise in waiting:
        if simulated != len(tuning.outcomes):  # to sort all outcomes for each promise would cost more than bounds save
            simulated, fastest, front = len(tuning.outcomes), tuning.fastest, tuning.front
        may_be_fast = len(fastest) < tuning.question.fastest or promise.tokens_per_s >= fastest[-1].tokens_per_s
        if promise.fits and (may_be_fast or (tuning.question.with_front and _may_be_on(front, promise))):
            yield promise
        else:
            tuning.ruled_out += 1


def _may_be_on(front: Sequence[Outcome], promise: _Promise) -> bool:
    return not any(
        known.tokens_per_s >= promise.tokens_per_s and known.gpu_bytes <= promise.gpu_bytes for known in front
    )
