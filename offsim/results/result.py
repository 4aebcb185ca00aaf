"""Numbers and tables of a simulation: times, limits, memory, utilization.

They are computed from the run's records on access, which imports pandas and numpy where needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from offsim.engine import Operation
from offsim.platform.hardware import HardwareProfile
from offsim.programs.run import Run
from offsim.results import limits, notes, records
from offsim.results.records import Peak
from offsim.results.remedies import Attempt, Remedy, find_remedies
from offsim.results.verdict import DoesNotFit, Shortage, Verdict, verdict_of
from offsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

    from offsim.results.interval import PredictionInterval
    from offsim.results.measured_range import MeasuredRange

PHASES = ("forward", "backward", "update")
SPEEDS = (
    *("iteration_s", "tokens_per_s", "tflops_per_gpu", "mfu", "tokens_per_day"),
    *("cost_per_iteration", "cost_per_1e9_tokens"),
)
"""Figures of a result that has times; costs are None without a price."""


class Result:
    """One simulated iteration. Times are seconds since its start, sizes bytes, rates per second.

    A scenario that does not fit in memory has a `verdict` and no times: accessing one raises DoesNotFit.
    """

    def __init__(
        self,
        scenario: Scenario,
        run: Run,
        attempt: Attempt,
        unbounded: Callable[[], Run],
        on: Callable[[HardwareProfile], Result],
    ) -> None:
        self.scenario = scenario
        self.run = run
        self.on = on
        """Simulates the same iteration on another profile, for its times; the next call may overwrite the result."""
        self._attempt = attempt
        self._unbounded = unbounded

    # Numbers

    @property
    def name(self) -> str:
        """The scenario's name, otherwise its scheduler's."""
        return self.scenario.name or self.scenario.scheduler.name

    @property
    def fits(self) -> bool:
        """Whether the scenario fits in every memory tier."""
        return self.run.out_of_memory is None

    @cached_property
    def verdict(self) -> Verdict | None:
        """What ran out first, all shortages, and remedies; None if the scenario fits."""
        cause = self.run.out_of_memory
        if cause is None:
            return None
        return verdict_of(self.run, cause, self._unbounded, lambda: find_remedies(self.scenario, self._attempt))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on how far to trust this very result; none as a rule."""
        return notes.notes(self.run)

    @property
    def gpus(self) -> int:
        """GPUs of the job."""
        return self.run.layout.ranks

    @cached_property
    def durations(self) -> dict[str, float]:
        """Phase -> seconds, summed over micro-steps; mean of the measured iterations. They add up to the iteration."""
        self.require_fit()
        durations: dict[str, float] = {}
        for phase in limits.job_phases(self.run):
            durations[phase.name] = durations.get(phase.name, 0.0) + phase.end - phase.start
        return {name: seconds / self.run.iterations for name, seconds in durations.items()}

    @cached_property
    def iteration_s(self) -> float:
        """Time from the start of an iteration to the next on the slowest rank; mean of the measured iterations."""
        self.require_fit()
        return (self.run.ended_at - self.run.started_at) / self.run.iterations

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the global batch per second."""
        return self.scenario.training.global_batch * self.scenario.model.sequence / self.iteration_s

    @property
    def tflops_per_gpu(self) -> float:
        """Model FLOPs (forward and backward, without recomputation) per second and GPU, in 1e12."""
        workload = self.run.workload
        return workload.model_flops(self.run.forwards) * workload.training.micro_steps / self.iteration_s / 1e12

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization: `tflops_per_gpu` over the profile's gpu.peak_flops_per_s, 0 to 1.

        Chowdhery et al. 2022 (PaLM), appendix B: recomputation is no model FLOP; attention counts in full, not half.
        """
        return self.tflops_per_gpu * 1e12 / self.run.profile.gpu.peak_flops_per_s

    @property
    def tokens_per_day(self) -> float:
        """Tokens in 24 hours of iterations."""
        return self.tokens_per_s * 86_400

    @property
    def cost_per_iteration(self) -> float | None:
        """Of all GPUs at the scenario's `price_per_gpu_hour`, in its currency; None without a price."""
        price = self.scenario.price_per_gpu_hour
        return None if price is None else price * self.gpus * self.iteration_s / 3600

    @property
    def cost_per_1e9_tokens(self) -> float | None:
        """As `cost_per_iteration`."""
        price = self.scenario.price_per_gpu_hour
        return None if price is None else price * self.gpus * 1e9 / self.tokens_per_s / 3600

    @cached_property
    def limits_s(self) -> dict[str, dict[str, float]]:
        """Phase -> name -> seconds of its critical path, largest first; they add up to the phase."""
        return limits.limits(self.run)

    @cached_property
    def peaks(self) -> list[Peak]:
        """The high-water mark of each memory tier; the host's is that of all ranks of a node."""
        return records.peaks(self.run)

    @property
    def gpu_peak_bytes(self) -> float:
        """Peak bytes on the fullest GPU, without those reserved by driver and libraries."""
        return max(peak.bytes for peak in self.peaks if peak.kind == "gpu")

    @property
    def host_peak_bytes(self) -> float:
        """Peak bytes in a node's host memory."""
        return next(peak.bytes for peak in self.peaks if peak.tier == "host")

    @property
    def limited_by(self) -> dict[str, float]:
        """Name -> share (0 to 1) of the iteration's critical path, largest first."""
        seconds: dict[str, float] = {}
        for phase in self.limits_s.values():
            for name, amount in phase.items():
                seconds[name] = seconds.get(name, 0.0) + amount
        total = sum(seconds.values())
        return {name: s / total for name, s in limits.largest_first(seconds).items()}

    @cached_property
    def measured_range(self) -> MeasuredRange:
        """Whether it lies inside what was measured on its hardware, what is outside, and held-out runs near it."""
        from offsim.results.measured_range import measured_range

        return measured_range(self)

    @cached_property
    def _interval(self) -> PredictionInterval | str:
        from offsim.results.interval import prediction_interval

        return prediction_interval(self)

    @property
    def interval(self) -> PredictionInterval | None:
        """The interval of measured times, from held-out runs on this hardware; None without such runs.

        Raises DoesNotFit.
        """
        return None if isinstance(self._interval, str) else self._interval

    @property
    def no_interval(self) -> str:
        """The reason for the absence of an interval; "" if there is one. Raises DoesNotFit."""
        return self._interval if isinstance(self._interval, str) else ""

    def require_fit(self) -> None:
        """Raise DoesNotFit if memory ran out."""
        if not self.fits:
            raise DoesNotFit(f"{self.name} {self.verdict}")

    # Tables

    @cached_property
    def _operations(self) -> list[Operation]:
        return records.kept_operations(self.run)

    @cached_property
    def timeline(self) -> pd.DataFrame:
        """One row per activity of the simulated ranks; `waited_for` is the index of the one that released it."""
        import pandas as pd

        ids, columns = records.timeline_columns(self.run, self._operations)
        return _table(columns).set_axis(pd.Index(ids, name="id", dtype="int64"))

    @cached_property
    def phases(self) -> pd.DataFrame:
        """One row per phase and micro-step; if memory ran out, the last one ends there."""
        return _table(records.phase_columns(self.run))

    @cached_property
    def memory(self) -> pd.DataFrame:
        """One row per change of a tier: bytes of the occupant, and of all, from then on."""
        return _table(records.memory_columns(self.run))

    @cached_property
    def bandwidth(self) -> pd.DataFrame:
        """Bytes per second of each link and of host memory, from then on; for rank 0 and its NUMA domain."""
        from offsim.results.utilization import bandwidth_columns

        return _table(bandwidth_columns(self.run, self._operations))

    @cached_property
    def utilization_columns(self) -> dict[str, list[Any]]:
        """The columns of `utilization` as plain lists."""
        from offsim.results.utilization import utilization_columns

        return utilization_columns(self.run, self._operations)

    @cached_property
    def utilization(self) -> pd.DataFrame:
        """Capacity of each resource that rank 0 uses, and its utilization (0 to 1) in the iteration and each phase."""
        import pandas as pd

        return pd.DataFrame(self.utilization_columns).set_index("resource")

    @cached_property
    def limits(self) -> pd.DataFrame:
        """The breakdown of each phase's critical path in seconds and percent of the phase, largest first."""
        import pandas as pd

        rows = [
            (phase, name, seconds, 100 * seconds / total if total else 0.0)
            for phase, spent in self.limits_s.items()
            for total in [sum(spent.values())]
            for name, seconds in spent.items()
        ]
        return pd.DataFrame(rows, columns=["phase", "limited_by", "seconds", "percent"])

    def figures(self) -> dict[str, Any]:
        """The headline numbers; times are None if the scenario does not fit."""
        times: dict[str, float | None] = dict.fromkeys([*(f"{phase}_s" for phase in PHASES), *SPEEDS])
        if self.fits:
            times |= {f"{phase}_s": seconds for phase, seconds in self.durations.items()}
            times |= {name: getattr(self, name) for name in SPEEDS}
        return {
            "scheduler": self.scenario.scheduler.name,
            "hardware": self.run.profile.name,
            "gpus": self.gpus,
            "fits": self.fits,
            **times,
            "gpu_peak_bytes": self.gpu_peak_bytes,
            "host_peak_bytes": self.host_peak_bytes,
            "limited_by": next(iter(self.limited_by), "") if self.fits else "memory",
        }

    def summary(self) -> pd.Series[Any]:
        """The headline numbers as a Series; times are None if the scenario does not fit."""
        import pandas as pd

        return pd.Series(self.figures(), name=self.name, dtype=object)

    def to_dict(self, *, series: bool = True) -> dict[str, Any]:
        """Everything as plain values for JSON, deterministic.

        `series=False` leaves out the timeline, memory and bandwidth.
        """
        verdict = self.verdict
        document: dict[str, Any] = {
            "name": self.name,
            "scenario": self.scenario.model_dump(mode="json"),
            **self.figures(),
            "verdict": None
            if verdict is None
            else {
                **_fields(verdict, without=("_unbounded", "_find_remedies")),
                "shortages": [_fields(short) | {"missing_bytes": short.missing_bytes} for short in verdict.shortages],
                "remedies": [_fields(remedy) for remedy in verdict.remedies],
                "tried": list(verdict.tried),
                "machine": verdict.machine and _fields(verdict.machine),
            },
            "notes": list(self.notes),
            "measured_range": self.measured_range.to_dict(),
            "phases": records.phase_columns(self.run),
            "limits_s": self.limits_s,
            "peaks": [_fields(peak, without=("kind",)) for peak in self.peaks],
            "utilization": self.utilization_columns,
        }
        if series:
            from offsim.results.utilization import bandwidth_columns

            ids, columns = records.timeline_columns(self.run, self._operations)
            document["timeline"] = {"id": ids, **columns}
            document["memory"] = records.memory_columns(self.run)
            document["bandwidth"] = bandwidth_columns(self.run, self._operations)
        return document


def _table(columns: records.Columns) -> pd.DataFrame:
    """The columns as a table: of numbers as arrays, which pandas takes at once; lists it looks through for types."""
    import numpy as np
    import pandas as pd

    numbers = {name: np.array(column) for name, column in columns.items() if column and not isinstance(column[0], str)}
    return pd.DataFrame(columns | numbers)


def _fields(record: Peak | Verdict | Shortage | Remedy, without: Sequence[str] = ()) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record) if field.name not in without}
