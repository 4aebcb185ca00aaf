"""Results in words, the same in text and on pages: a line for the model, the hardware, a peak, a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from offsim.platform.hardware import HardwareProfile
from offsim.results.records import Peak, phase_columns
from offsim.results.result import Result
from offsim.results.units import format_memory, format_percent, format_time, format_time_interval, plural
from offsim.results.verdict import Verdict
from offsim.scenario import Scenario
from offsim.schedulers.registry import scenario_scheduler

if TYPE_CHECKING:
    from offsim.study.sensitivities.interval import Interval

NAMED_FROM = 0.05
"""The share of the iteration from which on the headline names what limits it."""


def headline(result: Result) -> str:
    """How fast, what limits it and where memory peaks, in two lines."""
    if result.verdict is not None:
        return f"{verdict_line(result.verdict)}\n{asked_line(result.verdict)}"
    peaks = "; ".join(map(peak_line, named_peaks(result)))
    return f"{speed_line(result)}; limited by {limited_by(result.limited_by)}\n{peaks}"


def drawing_title(result: Result) -> str:
    """What a picture shows: scenario, scheduler, hardware."""
    return f"{result.name}: {result.scenario.scheduler.name} on {hardware_line(result)}"


def limited_by(shares: Mapping[str, float], most: int = 4) -> str:
    """What most of the iteration's critical path went to, of its shares, the largest first."""
    named = [(name, share) for name, share in shares.items() if share >= NAMED_FROM][:most]
    return ", ".join(f"{name} {format_percent(share)}" for name, share in named)


def named_peaks(result: Result) -> list[Peak]:
    """The peak of the fullest GPU and that of the host, the GPU under a name that says which it is."""
    *gpus, host = result.peaks
    fullest = max(gpus, key=lambda peak: peak.bytes)
    alike = len({peak.bytes for peak in gpus}) == 1
    name = ("GPU" if result.gpus == 1 else "each GPU") if alike else f"{fullest.tier}, the fullest"
    gpu = Peak(name, fullest.bytes, fullest.capacity_bytes, fullest.time_s, fullest.occupants)
    return [gpu, Peak("host memory", host.bytes, host.capacity_bytes, host.time_s, host.occupants)]


def options_of(scenario: Scenario) -> str:
    """The scheduler's options with what they are where the scenario does not give them."""
    _, options = scenario_scheduler(scenario)
    given = options.model_dump()
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in given.items()
    )


def hardware_line(result: Result) -> str:
    """GPUs, nodes, profile."""
    nodes = result.run.layout.nodes
    spread = f", {nodes} nodes" if nodes > 1 else ""
    return f"{plural(result.gpus, 'GPU')} of {result.run.profile.name}{spread}"


def validated(profile: HardwareProfile) -> str:
    """Whether predictions for this hardware were compared with measurements."""
    answer, were = ("yes", "were") if profile.validated else ("no", "were not")
    return f"{answer}: predictions on this hardware {were} compared with measured runs"


def model_line(scenario: Scenario, parameters: int) -> str:
    """The model in a line."""
    model = scenario.model
    return (
        f"{parameters / 1e9:.3g}e9 parameters, {model.layers} layers, hidden {model.hidden}, sequence {model.sequence}"
    )


def batch_line(scenario: Scenario) -> str:
    """What makes up an iteration's batch."""
    training = scenario.training
    tensor = f", tensor parallel {training.tensor_parallel}" if training.tensor_parallel > 1 else ""
    return (
        f"{plural(training.global_batch, 'sequence')} an iteration: data parallel {training.data_parallel}, "
        f"{plural(training.micro_steps, 'micro-step')} of {training.micro_batch}{tensor}"
    )


def speed_line(result: Result, interval: Interval | None = None) -> str:
    """How fast an iteration is, and how sure that is where it is known."""
    time = format_time_interval(result.iteration_s, interval.half_s()) if interval else format_time(result.iteration_s)
    return f"{time}, {result.tokens_per_s:,.0f} tokens/s, {result.tflops_per_gpu:.1f} TFLOP/s per GPU"


def peak_line(peak: Peak) -> str:
    """How much of a memory tier was taken."""
    share = format_percent(peak.bytes / peak.capacity_bytes)
    return f"{peak.tier} {format_memory(peak.bytes)} of {format_memory(peak.capacity_bytes)} ({share})"


def peak_time(result: Result, peak: Peak) -> str:
    """When a peak is reached, and in which phase."""
    if peak.time_s <= 0:
        return "from the start on"
    phases = phase_columns(result.run)
    rows: Sequence[tuple[str, float]] = list(zip(phases["phase"], phases["end_s"], strict=True))
    phase = next((name for name, end in rows if peak.time_s <= end), rows[-1][0])
    return f"at {format_time(peak.time_s)}, in {phase}"


def verdict_line(verdict: Verdict) -> str:
    """Which memory ran out, and when."""
    if verdict.phase == "set-up":
        when = "in set-up"
    elif verdict.time_s < 0:
        when = f"{format_time(-verdict.time_s)} before the iteration, in the {verdict.phase} before it"
    else:
        when = f"at {format_time(verdict.time_s)}, in {verdict.phase}"
    return f"does not fit: {verdict.tier} memory runs out {when}"


def asked_line(verdict: Verdict) -> str:
    """What was asked for in vain, and how much was taken already."""
    used, capacity = format_memory(verdict.used_bytes), format_memory(verdict.capacity_bytes)
    return f"{format_memory(verdict.asked_bytes)} asked for by {verdict.occupant}, {used} of {capacity} taken"


def flags_of(change: str) -> str:
    """A change as it is given on the command line."""
    flags = []
    for part in change.split(", "):
        key, _, value = part.partition("=")
        flags.append(f"--scheduler {value}" if key == "scheduler.name" else f"--set {part}")
    return " ".join(flags)
