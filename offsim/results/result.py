"""What a simulation says: times, what limited them, memory, utilisation; as numbers, tables and pictures.

Everything is made from the run's records when it is asked for: pandas, numpy and matplotlib are imported then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from offsim.engine import Operation
from offsim.platform.hardware import HardwareProfile
from offsim.programs.iteration import Run
from offsim.results import limits, records
from offsim.results.remedies import Attempt, find_remedies
from offsim.results.units import format_memory, format_time
from offsim.results.verdict import DoesNotFit, Verdict, verdict_of
from offsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

    from offsim.study.sensitivities.interval import Interval
    from offsim.views.figure import Picture

PHASES = ("forward", "backward", "update")


class Result:
    """One simulated iteration. Times are seconds since its start, sizes bytes, rates per second.

    A scenario that does not fit in memory has a `verdict` and no times: asking for one raises DoesNotFit.
    """

    def __init__(self, scenario: Scenario, run: Run, attempt: Attempt, on: Callable[[HardwareProfile], Result]) -> None:
        self.scenario = scenario
        self.run = run
        self.on = on
        """Simulate the same iteration on other hardware, in place of the scenario's."""
        self._attempt = attempt

    # Numbers

    @property
    def name(self) -> str:
        """The scenario's name, else its scheduler's."""
        return self.scenario.name or self.scenario.scheduler.name

    @property
    def fits(self) -> bool:
        """Whether every memory tier held what it was asked to."""
        return self.run.out_of_memory is None

    @cached_property
    def verdict(self) -> Verdict | None:
        """Where, when and beside what memory ran out, and what would help; None where all fits."""
        cause = self.run.out_of_memory
        if cause is None:
            return None
        return verdict_of(self.run, cause, lambda: find_remedies(self.scenario, self._attempt))

    @property
    def gpus(self) -> int:
        """GPUs that the job runs on."""
        return self.run.layout.ranks

    @cached_property
    def durations(self) -> dict[str, float]:
        """Phase -> seconds, summed over micro-steps; they add up to the iteration."""
        self._require_fit()
        durations: dict[str, float] = {}
        for phase in limits.job_phases(self.run):
            durations[phase.name] = durations.get(phase.name, 0.0) + phase.end - phase.start
        return durations

    @cached_property
    def iteration_s(self) -> float:
        """From the start of forward to the end of update on the slowest rank."""
        self._require_fit()
        return max(phase.end for phase in self.run.phases) - self.run.started_at

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the global batch per second."""
        return self.scenario.training.global_batch * self.scenario.model.sequence / self.iteration_s

    @property
    def tflops_per_gpu(self) -> float:
        """Model FLOPs (forward and backward, without recomputation) per second and GPU, in 1e12."""
        workload = self.run.workload
        return workload.model_flops() * workload.training.micro_steps / self.iteration_s / 1e12

    @cached_property
    def limits_s(self) -> dict[str, dict[str, float]]:
        """Phase -> what its critical path went to -> seconds, largest first; they add up to the phase."""
        return limits.limits(self.run)

    @cached_property
    def peaks(self) -> list[records.Peak]:
        """The high-water mark of each memory tier; the host's is that of all ranks of a node."""
        return records.peaks(self.run)

    @property
    def gpu_peak_bytes(self) -> float:
        """Bytes on the fullest GPU, without what its driver and libraries reserve."""
        return max(peak.bytes for peak in self.peaks[:-1])

    @property
    def host_peak_bytes(self) -> float:
        """Bytes in a node's host memory."""
        return self.peaks[-1].bytes

    @property
    def limited_by(self) -> dict[str, float]:
        """What the whole iteration's critical path went to -> share of it (0 to 1), largest first."""
        seconds: dict[str, float] = {}
        for phase in self.limits_s.values():
            for name, amount in phase.items():
                seconds[name] = seconds.get(name, 0.0) + amount
        total = sum(seconds.values())
        return {name: s / total for name, s in sorted(seconds.items(), key=lambda item: (-item[1], item[0]))}

    @cached_property
    def interval(self) -> Interval | None:
        """Where the times lie as far as the hardware's values are known; None where no value has an interval.

        Simulates the iteration twice for each value that has one. Raises DoesNotFit.
        """
        from offsim.study.sensitivities.interval import interval_of

        return interval_of(self)

    def _require_fit(self) -> None:
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
        return pd.DataFrame(columns, index=pd.Index(ids, name="id", dtype="int64"))

    @cached_property
    def phases(self) -> pd.DataFrame:
        """One row per phase and micro-step; where memory ran out the last one ends there."""
        import pandas as pd

        return pd.DataFrame(records.phase_columns(self.run))

    @cached_property
    def memory(self) -> pd.DataFrame:
        """One row per change of a tier: bytes of the occupant and of all, from then on."""
        import pandas as pd

        return pd.DataFrame(records.memory_columns(self.run))

    @cached_property
    def bandwidth(self) -> pd.DataFrame:
        """Bytes per second that each link and the host memory move, from then on; rank 0's, and its NUMA domain's."""
        import pandas as pd

        from offsim.results.utilization import bandwidth_columns

        return pd.DataFrame(bandwidth_columns(self.run, self._operations))

    @cached_property
    def utilization(self) -> pd.DataFrame:
        """Capacity of what rank 0 uses and the share in use (0 to 1), over the iteration and each phase."""
        import pandas as pd

        from offsim.results.utilization import utilization_columns

        return pd.DataFrame(utilization_columns(self.run, self._operations)).set_index("resource")

    @cached_property
    def limits(self) -> pd.DataFrame:
        """What the critical path of each phase went to, in seconds and percent of the phase, largest first."""
        import pandas as pd

        rows = [
            (phase, name, seconds, 100 * seconds / total if total else 0.0)
            for phase, spent in self.limits_s.items()
            for total in [sum(spent.values())]
            for name, seconds in spent.items()
        ]
        return pd.DataFrame(rows, columns=["phase", "limited_by", "seconds", "percent"])

    def figures(self) -> dict[str, Any]:
        """The headline numbers; times are None where the scenario does not fit."""
        times: dict[str, float | None] = dict.fromkeys(
            [*(f"{phase}_s" for phase in PHASES), "iteration_s", "tokens_per_s", "tflops_per_gpu"]
        )
        if self.fits:
            times |= {f"{phase}_s": seconds for phase, seconds in self.durations.items()}
            times |= {name: getattr(self, name) for name in ("iteration_s", "tokens_per_s", "tflops_per_gpu")}
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
        """The headline numbers as a Series; times are None where the scenario does not fit."""
        import pandas as pd

        return pd.Series(self.figures(), name=self.name, dtype=object)

    def to_dict(self, *, series: bool = True) -> dict[str, Any]:
        """Everything as plain values for JSON; the same scenario gives the same.

        `series=False` leaves out the timeline, memory and bandwidth.
        """
        verdict = self.verdict
        document: dict[str, Any] = {
            "name": self.name,
            "scenario": self.scenario.model_dump(mode="json"),
            **self.figures(),
            "verdict": None if verdict is None else _verdict_dict(verdict),
            "phases": records.phase_columns(self.run),
            "limits_s": self.limits_s,
            "peaks": [
                {
                    "tier": peak.tier,
                    "bytes": peak.bytes,
                    "capacity_bytes": peak.capacity_bytes,
                    "time_s": peak.time_s,
                    "occupants": peak.occupants,
                }
                for peak in self.peaks
            ],
            "utilization": self.utilization.reset_index().to_dict("list"),
        }
        if series:
            ids, columns = records.timeline_columns(self.run, self._operations)
            document["timeline"] = {"id": ids, **columns}
            document["memory"] = records.memory_columns(self.run)
            document["bandwidth"] = self.bandwidth.to_dict("list")
        return document

    # Views

    def plot_timeline(self, **options: Any) -> Picture:
        """What each stream did when; options as of `offsim.views.timeline.plot_timeline`."""
        from offsim.views.timeline import plot_timeline

        self._require_phases()
        return plot_timeline(self.timeline, self.phases, **{"title": self.name, **options})

    def plot_memory(self, **options: Any) -> Picture:
        """Who held how much of each memory tier; options as of `offsim.views.memory.plot_memory`."""
        from offsim.views.memory import plot_memory

        self._require_phases()
        capacities = {peak.tier: peak.capacity_bytes for peak in self.peaks}
        return plot_memory(self.memory, capacities, self.phases, **{"title": self.name, **options})

    def plot_bandwidth(self, **options: Any) -> Picture:
        """Bytes per second of each link and of host memory; options as of `offsim.views.bandwidth.plot_bandwidth`."""
        from offsim.results.utilization import capacities
        from offsim.views.bandwidth import plot_bandwidth

        self._require_phases()
        return plot_bandwidth(self.bandwidth, capacities(self.run), self.phases, **{"title": self.name, **options})

    def plot_page(self, *, rank: int = 0, **options: Any) -> Picture:
        """All three on one time axis, of one rank; options as of `offsim.views.page.plot_page`."""
        from offsim.results.utilization import capacities
        from offsim.views.page import plot_page

        self._require_phases()
        peaks = [self.peaks[rank], self.peaks[-1]]
        memory = self.memory[self.memory["tier"].isin([peak.tier for peak in peaks])]
        tiers = {peak.tier: peak.capacity_bytes for peak in peaks}
        options = {"title": self.name, **options}
        rates = capacities(self.run)
        return plot_page(self.timeline, self.phases, self.bandwidth, rates, memory, tiers, rank=rank, **options)

    def to_perfetto(self, path: str | os.PathLike[str]) -> None:
        """Write a trace that Perfetto and chrome://tracing open, gzipped where the path ends in ".gz"."""
        from offsim.views.perfetto import write_trace

        self._require_phases()
        metadata = {"name": self.name, "scenario": self.scenario.model_dump(mode="json"), **self.figures()}
        write_trace(path, self.timeline, self.memory, self.bandwidth, phases=self.phases, metadata=metadata)

    def to_html(self, path: str | os.PathLike[str], *, rank: int = 0) -> None:
        """Write a page that needs nothing else: times, what limits them, timeline and memory, where values come from.

        Timeline and GPU memory are those of `rank`.
        """
        from offsim.results.comparison import Comparison

        Comparison([self], [self.name]).to_html(path, rank=rank)

    def _require_phases(self) -> None:
        """A run that ended before it began has nothing to draw, one that ended later has."""
        if self.phases.empty:
            self._require_fit()

    def _lines(self) -> list[str]:
        training = self.scenario.training
        steps = f"{training.micro_steps} micro-step{'s' if training.micro_steps > 1 else ''}"
        batch = f"global batch {training.global_batch} in {steps} of {training.micro_batch} a rank"
        lines = [f"{self.name}: {self.scenario.scheduler.name} on {self.gpus} GPUs of {self.run.profile.name}, {batch}"]
        if self.verdict is not None:
            lines.append(str(self.verdict))
            remedies = self.verdict.remedies
            lines += [f"would fit with {remedy}" for remedy in remedies] or ["no single change tried makes it fit"]
            return lines
        spent = ", ".join(f"{phase} {format_time(seconds)}" for phase, seconds in self.durations.items())
        rates = f"{self.tokens_per_s:,.0f} tokens/s, {self.tflops_per_gpu:.1f} TFLOP/s per GPU (model FLOPs)"
        lines.append(f"{spent}; iteration {format_time(self.iteration_s)}, {rates}")
        shares = [f"{name} {share:.0%}" for name, share in self.limited_by.items() if share >= 0.05]
        lines.append(f"limited by {', '.join(shares)}")
        used = [
            f"{peak.tier} {format_memory(peak.bytes)} of {format_memory(peak.capacity_bytes)}" for peak in self.peaks
        ]
        lines.append(f"peaks: {', '.join(used)}")
        return lines

    def __repr__(self) -> str:
        return "\n  ".join(self._lines())

    def _repr_html_(self) -> str:
        head, *rest = (escape(line) for line in self._lines())
        html = f"<div><b>{head}</b><br>{'<br>'.join(rest)}</div>"
        if not self.fits:
            return html
        cells = "".join(
            f"<tr><th>{escape(phase)}</th><td>{format_time(sum(spent.values()))}</td><td style='text-align:left'>"
            + ", ".join(f"{escape(name)} {format_time(seconds)}" for name, seconds in list(spent.items())[:4])
            + "</td></tr>"
            for phase, spent in self.limits_s.items()
        )
        return f"{html}<table><tr><th>phase</th><th>time</th><th>critical path (largest)</th></tr>{cells}</table>"


def _verdict_dict(verdict: Verdict) -> dict[str, Any]:
    names = (
        "tier",
        "time_s",
        "phase",
        "occupant",
        "asked_bytes",
        "used_bytes",
        "capacity_bytes",
        "occupants",
    )
    remedies = [
        {"change": remedy.change, "iteration_s": remedy.iteration_s, "gpus": remedy.gpus} for remedy in verdict.remedies
    ]
    return {name: getattr(verdict, name) for name in names} | {"remedies": remedies}
