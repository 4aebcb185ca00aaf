"""How much of each resource was used over time, and what share of it in each phase.

Rank 0 stands for its equals: its GPU, its link, its NUMA domain, its node's network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offsim.engine import Operation, Resource
from offsim.platform.platform import Tracked
from offsim.programs.run import Run
from offsim.results.limits import job_phases, spans

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """A rate that is constant from each time to the next; the last one is 0."""

    times: Array
    rates: Array

    def amount(self, start: Array, end: Array) -> Array:
        """The integral of the rate over each interval."""
        if not len(self.times):
            return np.zeros_like(start)
        sums = np.concatenate([[0.0], np.cumsum(np.diff(self.times) * self.rates[:-1])])
        return np.asarray(np.interp(end, self.times, sums) - np.interp(start, self.times, sums))


def series_of(resources: Iterable[Tracked], operations: Iterable[Operation]) -> dict[str, Series]:
    """Name -> what the operations use of it over simulation time."""
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
    times, places = np.unique(np.concatenate([starts, ends]), return_inverse=True)
    changes = np.bincount(places, np.concatenate([rates, -rates]), len(times))
    total: Array = np.cumsum(changes, dtype=np.float64)
    # What rounding leaves of rates that cancel out would look like a link in use.
    total[np.abs(total) < 1e-9 * capacity] = 0.0
    return Series(times, total)


def bandwidth_columns(run: Run, operations: list[Operation]) -> dict[str, Any]:
    """Bytes moved per second from an instant on, by resource; begins at time zero."""
    shown = {"H2D", "D2H", "host memory", "GPU interconnect", "network"}
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
    return {"time_s": np.concatenate(times), "resource": names, "bytes_per_s": np.concatenate(rates)}


def capacities(run: Run) -> dict[str, float]:
    """Resource -> what it can do per second, in bytes (in cores and GPUs for those)."""
    return {entry.name: entry.capacity for entry in run.platform.tracked}


def utilization_columns(run: Run, operations: list[Operation]) -> dict[str, list[Any]]:
    """Capacity of each resource and the share of it in use, over the iteration and over each phase (0 to 1)."""
    resources = run.platform.tracked
    phases = job_phases(run)
    names = list(dict.fromkeys(phase.name for phase in phases))
    starts = np.array([phase.start for phase in phases])
    ends = np.array([phase.end for phase in phases])
    columns: dict[str, list[Any]] = {
        "resource": [entry.name for entry in resources],
        "capacity": [entry.capacity for entry in resources],
        "unit": [entry.unit for entry in resources],
        "iteration": [],
        **{name: [] for name in names},
    }
    masks: Mapping[str, NDArray[np.bool_]] = {
        "iteration": np.ones(len(phases), dtype=bool),
        **{name: np.array([phase.name == name for phase in phases]) for name in names},
    }
    used = series_of(resources, operations)
    for entry in resources:
        amounts = used[entry.name].amount(starts, ends)
        for name, mask in masks.items():
            seconds = float((ends - starts)[mask].sum())
            share = float(amounts[mask].sum()) / (entry.capacity * seconds) if seconds > 0 else 0.0
            columns[name].append(share)
    return columns
