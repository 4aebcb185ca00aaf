"""Use of each resource over time, and its utilization in each phase.

Resources are those of rank 0: its GPU, its link, its NUMA domain, its node's network.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offsim.engine import Operation, Resource
from offsim.platform.platform import Tracked
from offsim.programs.run import Run
from offsim.results.limits import PhaseSpan, job_phases, spans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """A piecewise constant rate, from each time to the next; the last one is 0."""

    times: Array
    rates: Array


def series_of(resources: Iterable[Tracked], operations: Iterable[Operation]) -> dict[str, Series]:
    """Resource name -> its use by the operations over simulation time."""
    import numpy as np

    wanted = {entry.resource: entry for entry in resources}
    parts: dict[Resource, tuple[list[int], list[float]]] = {resource: ([], []) for resource in wanted}
    starts: list[float] = []
    ends: list[float] = []
    fractions: list[float] = []
    for operation in operations:
        asked = [(r, rate) for r, rate in operation.usage if r in wanted]
        if not asked:
            continue
        first = len(starts)
        for span in spans(operation):
            starts.append(span.start)
            ends.append(span.end)
            fractions.append(span.fraction)
        for resource, rate in asked:
            rows, weights = parts[resource]
            rows.extend(range(first, len(starts)))
            weights.extend([rate] * (len(starts) - first))
    begin, finish, speed = np.array(starts), np.array(ends), np.array(fractions)
    return {
        entry.name: _sum(begin[rows], finish[rows], speed[rows] * np.array(weights) * entry.scale, entry.capacity)
        for resource, entry in wanted.items()
        for rows, weights in [(np.array(parts[resource][0], dtype=np.intp), parts[resource][1])]
    }


def _sum(starts: Array, ends: Array, rates: Array, capacity: float) -> Series:
    """Add up rates, each from its start to its end."""
    import numpy as np

    times, places = np.unique(np.concatenate([starts, ends]), return_inverse=True)
    changes = np.bincount(places, np.concatenate([rates, -rates]), len(times))
    total: Array = np.cumsum(changes, dtype=np.float64)
    # What rounding leaves of rates that cancel out would look like a link in use.
    total[np.abs(total) < 1e-9 * capacity] = 0.0
    return Series(times, total)


def bandwidth_columns(run: Run, operations: list[Operation]) -> dict[str, list[Any]]:
    """Bytes per second from an instant on, by resource, from time zero."""
    import numpy as np

    directions = {f"{tier} {way}" for tier in run.platform.in_use for way in ("read", "write")}
    shown = {"H2D", "D2H", "host memory", "GPU interconnect", "network"} | directions
    resources = [entry for entry in run.platform.tracked if entry.name in shown]
    times, names, rates = [], [], []
    for name, series in series_of(resources, operations).items():
        at = series.times - run.started_at
        # What holds at zero began at the last change up to it.
        first = int(np.searchsorted(at, 0.0, side="right")) - 1
        rate = series.rates[max(first, 0) :]
        at = np.maximum(at[max(first, 0) :], 0.0)
        if first < 0:
            at, rate = np.concatenate([[0.0], at]), np.concatenate([[0.0], rate])
        changed = np.concatenate([[True], rate[1:] != rate[:-1]])
        times.append(at[changed])
        rates.append(rate[changed])
        names += [name] * int(changed.sum())
    return {"time_s": np.concatenate(times).tolist(), "resource": names, "bytes_per_s": np.concatenate(rates).tolist()}


def capacities(run: Run) -> dict[str, float]:
    """Resource -> its capacity: bytes per second, cores or GPUs."""
    return {entry.name: entry.capacity for entry in run.platform.tracked}


def utilization_columns(run: Run, operations: Iterable[Operation]) -> dict[str, list[Any]]:
    """Capacity of each resource, and its utilization (0 to 1) in the iteration and in each phase."""
    resources = run.platform.tracked
    phases = job_phases(run)
    used = _used(resources, operations, phases)
    columns: dict[str, list[Any]] = {
        "resource": [entry.name for entry in resources],
        "capacity": [entry.capacity for entry in resources],
        "unit": [entry.unit for entry in resources],
    }
    for name in ("iteration", *dict.fromkeys(phase.name for phase in phases)):
        chosen = [place for place, phase in enumerate(phases) if name in ("iteration", phase.name)]
        seconds = sum(phases[place].end - phases[place].start for place in chosen)
        amounts = [sum(used[entry.resource][place] for place in chosen) for entry in resources]
        columns[name] = [
            amount / (entry.resource.capacity * seconds) if seconds > 0 else 0.0
            for amount, entry in zip(amounts, resources, strict=True)
        ]
    return columns


def _used(
    resources: Iterable[Tracked], operations: Iterable[Operation], phases: list[PhaseSpan]
) -> dict[Resource, list[float]]:
    """Use of each resource by the operations in each phase; phases have no gaps.

    Without numpy, whose import takes longer than the sums of one iteration.
    """
    used = {entry.resource: [0.0] * len(phases) for entry in resources}
    ends = [phase.end for phase in phases]
    for operation in operations:
        asked = [(used[resource], rate) for resource, rate in operation.usage if resource in used]
        if not asked:
            continue
        for span in spans(operation):
            for place in range(bisect_right(ends, span.start), len(phases)):
                seconds = min(span.end, ends[place]) - max(span.start, phases[place].start)
                if seconds <= 0:
                    break
                for amounts, rate in asked:
                    amounts[place] += rate * span.fraction * seconds
    return used
