"""The simulated activities of each phase of a run, and which of them could explain its measured time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from offsim.engine import Operation
from offsim.programs.run import Run
from offsim.results.limits import CriticalPaths, PhaseSpan, Step, job_phases, spans
from offsim.results.simulate import simulate
from offsim.scenario import Scenario
from offsim.validation.run_table import COLUMN_OF, MEASURED_PHASES

MOST = 20.0
"""How many times as long, or as short, activities are tried to explain a difference alone."""
_CLOSE = 2e-3
"""Of the phase's measured time: near enough."""
_NARROW = 1e-3
"""Of a factor: told no more exactly."""
_TRIES = 40


@dataclass(slots=True)
class Activities:
    """Sums over one kind of activity on one rank in one phase; activities that run beyond it count in part."""

    kind: str
    count: int = 0
    bytes: float = 0.0
    alone_s: float = 0.0
    """What they take with nothing else running, one after another."""
    lost_s: float = 0.0
    """What contention adds to that."""
    path_s: float = 0.0
    """How long the critical path runs through them, contention included."""


@dataclass(frozen=True, slots=True)
class PhaseAccount:
    """One phase, summed over micro-steps: measured (None: not), predicted, and what the prediction is made of."""

    phase: str
    measured_s: float | None
    predicted_s: float
    path: Mapping[str, float]
    """What the critical path went to -> seconds, largest first; they add up to the prediction."""
    activities: tuple[Activities, ...]
    """Those on the critical path first."""

    @property
    def missing_s(self) -> float | None:
        """Measured less predicted."""
        return None if self.measured_s is None else self.measured_s - self.predicted_s


def phase_accounts(run: Run, measured_ms: Mapping[str, float]) -> list[PhaseAccount]:
    """One account per phase of a run that fits; `measured_ms` has a table's columns of the phases' times."""
    paths = CriticalPaths(run)
    phases: dict[str, list[PhaseSpan]] = {}
    for part in job_phases(run):
        phases.setdefault(part.name, []).append(part)
    accounts = []
    for name, parts in phases.items():
        steps = [step for part in parts for step in paths.walk(part)]
        phase = MEASURED_PHASES.get(name, name)
        measured = measured_ms.get(COLUMN_OF.get(phase, ""))
        accounts.append(
            PhaseAccount(
                phase,
                None if measured is None else measured / 1e3,
                sum(part.end - part.start for part in parts),
                paths.spent(parts),
                tuple(_activities(run.engine.operations, parts, steps)),
            )
        )
    return accounts


def _activities(operations: Iterable[Operation], parts: Iterable[PhaseSpan], steps: Iterable[Step]) -> list[Activities]:
    """Sums by kind of what runs within parts of a phase, each on the rank that ends the part last."""
    listed = list(operations)
    found: dict[str, Activities] = {}
    for part in parts:
        for operation in listed:
            if operation.stream.rank != part.rank:
                continue
            alone, lost = _within(operation, part.start, part.end)
            if alone <= 0:
                continue
            own = found.setdefault(operation.kind, Activities(operation.kind))
            own.count += 1
            own.bytes += operation.bytes * alone / operation.duration
            own.alone_s += alone
            own.lost_s += lost
    for step in steps:
        if step.operation is not None:
            kind = step.operation.kind
            found.setdefault(kind, Activities(kind)).path_s += step.end - step.start
    return sorted(found.values(), key=lambda a: (-a.path_s, -a.alone_s, a.kind))


def _within(operation: Operation, start: float, end: float) -> tuple[float, float]:
    """The part of an operation's time at full speed that it does from start to end, and what it loses meanwhile."""
    if not operation.done or operation.ended_at <= start or operation.started_at >= end:
        return 0.0, 0.0
    alone = lost = 0.0
    for span in spans(operation):
        length = min(span.end, end) - max(span.start, start)
        if length > 0:
            alone += span.fraction * length
            lost += (1.0 - span.fraction) * length
    return alone, lost


def explanations(scenario: Scenario, accounts: Sequence[PhaseAccount]) -> dict[tuple[str, str], float | None]:
    """Phase and kind -> how many times as long the activities take, in a simulation whose phase is as measured.

    All else is as before. None where nothing from 1 / `MOST` to `MOST` times brings about the measured time.
    """

    @cache
    def durations(kind: str, times: float) -> Mapping[str, float] | None:
        result = simulate(scenario, stretch={kind: times})
        return {MEASURED_PHASES.get(name, name): s for name, s in result.durations.items()} if result.fits else None

    found: dict[tuple[str, str], float | None] = {}
    for account in accounts:
        if account.measured_s is None:
            continue
        measured_s = account.measured_s
        for activities in account.activities:
            kind, phase = activities.kind, account.phase

            def missing(times: float, kind: str = kind, phase: str = phase, wanted: float = measured_s) -> float | None:
                simulated = durations(kind, times)
                return None if simulated is None else (wanted - simulated[phase]) / wanted

            found[phase, kind] = _root(missing, 1.0 - account.predicted_s / measured_s)
    return found


def _root(missing: Callable[[float], float | None], at_once: float) -> float | None:
    """Where `missing`, which falls from `at_once` at 1, passes 0, be it in a jump; None where it does not.

    False position in the Illinois variant: what is piecewise linear takes it few steps.
    """
    if abs(at_once) <= _CLOSE:
        return 1.0
    low, short = 1.0, at_once
    high = MOST if at_once > 0 else 1.0 / MOST
    over = missing(high)
    if over is None or over * short > 0:
        return None
    for _ in range(_TRIES):
        at = (low * over - high * short) / (over - short)
        value = missing(at)
        if value is None:
            return None
        if abs(value) <= _CLOSE or abs(high - at) <= _NARROW * at:
            return at
        if value * over < 0:
            low, short = high, over
        else:
            short /= 2
        high, over = at, value
    return high
