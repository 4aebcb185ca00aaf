"""One wording for each fact of a result: the model, the hardware, a peak, a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from offsim.platform.hardware import HardwareProfile
from offsim.programs.schedule import LEGEND
from offsim.results.interval import WHOLE
from offsim.results.measured_range import named, shown
from offsim.results.records import phase_columns
from offsim.results.result import Result
from offsim.results.units import (
    engineering,
    format_memory,
    format_percent,
    format_time,
    format_time_interval,
    plural,
)
from offsim.results.verdict import Verdict
from offsim.scenario import Scenario
from offsim.schedulers.registry import scenario_scheduler

if TYPE_CHECKING:
    from offsim.results.interval import PredictionInterval
    from offsim.results.records import Peak

NAMED_FROM = 0.05
"""The share of the iteration from which on a line names what limits it."""


TIER_NAMES = {"host": "host memory"}
"""What to call tiers whose own name does not say that they are memory."""


@dataclass(frozen=True)
class TierPeak:
    """The most that a memory tier held; of equal tiers, such as the GPUs of a node, the fullest one's."""

    name: str
    """Which tier it is: each GPU; GPU 2, the fullest; host memory; nvme."""
    most: Peak

    @property
    def share(self) -> float:
        """Of the capacity."""
        return self.most.bytes / self.most.capacity_bytes

    @property
    def held(self) -> str:
        """How much of the capacity, in words."""
        return held_line(self.most.bytes, self.most.capacity_bytes)


def peaks_by_tier(result: Result) -> dict[str, TierPeak]:
    """The peak of each tier that the result has, by the tier's name, equal tiers together."""
    tiers: dict[str, list[Peak]] = {}
    for peak in result.peaks:
        tiers.setdefault("GPU" if peak.kind == "gpu" else peak.tier, []).append(peak)
    found = {}
    for tier, peaks in tiers.items():
        fullest = max(peaks, key=lambda peak: peak.bytes)
        called = name = TIER_NAMES.get(tier, tier)
        if len({peak.bytes for peak in peaks}) > 1:
            name = f"{fullest.tier}, the fullest"
        elif fullest.kind == "gpu" and result.gpus > 1:
            name = f"each {called}"
        found[called] = TierPeak(name, fullest)
    return found


def tiers_of_rank(peaks: Sequence[Peak], rank: int) -> list[Peak]:
    """The tiers that a rank uses: its GPU, and those that ranks share. ValueError for one that is not simulated."""
    gpus = [peak for peak in peaks if peak.kind == "gpu"]
    if not 0 <= rank < len(gpus):
        raise ValueError(f"found no rank {rank}, expected one of {len(gpus)} simulated from 0")
    return [gpus[rank], *(peak for peak in peaks if peak.kind != "gpu")]


def drawing_title(result: Result) -> str:
    """What a picture shows: scenario, scheduler, hardware."""
    return f"{result.name}: {result.scenario.scheduler.name} on {hardware_line(result)}"


def limited_by(shares: Mapping[str, float], most: int = 4) -> str:
    """What most of the iteration's critical path went to, of its shares, the largest first."""
    named = [(name, share) for name, share in shares.items() if share >= NAMED_FROM][:most]
    return ", ".join(f"{name} {format_percent(share)}" for name, share in named)


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


def measured_lines(result: Result) -> dict[str, str]:
    """Whether the configuration lies inside what was measured, label -> text, and the nearest run held out."""
    known = result.measured_range
    if not known.configurations:
        return {"measured": known.reason} if result.run.profile.validated else {}
    lines = {"measured": str(known)}
    if known.nearest:
        run = known.nearest[0]
        errors = {"iteration" if phase == "sum" else phase: error for phase, error in run.errors.items()}
        off = ", ".join(f"{phase} {100 * error:+.1f} %" for phase, error in errors.items())
        differs = ", ".join(f"{named(name)} {shown(value)}" for name, value in run.differs.items())
        same = f"with {differs}" if differs else "the same configuration"
        lines["nearest"] = f"held-out run {run.name}, {same}: predicted {off}"
    return lines


def outside_note(results: Sequence[tuple[str, Result]]) -> tuple[str, ...]:
    """Which of several results, behind their labels, are outside what was measured on their hardware."""
    outside = [label for label, result in results if result.measured_range.outside]
    if not outside:
        return ()
    return (
        f"Outside the configurations measured on their hardware (`offsim run` says in what): {', '.join(outside)}.",
    )


def speed_line(result: Result, interval: PredictionInterval | None) -> str:
    """How fast an iteration is, and how sure that is where it is known."""
    time = format_time_interval(result.iteration_s, interval.half_s()) if interval else format_time(result.iteration_s)
    flops = f"{result.tflops_per_gpu:.1f} TFLOP/s per GPU"
    return f"{time}, {result.tokens_per_s:,.0f} tokens/s, {flops}, MFU {format_percent(result.mfu)}"


def day_line(result: Result) -> str:
    """What a day of iterations trains and, with a price, what that costs."""
    tokens = f"{tokens_a_day(result)} tokens a day"
    price, spent, cost = result.scenario.price_per_gpu_hour, result.cost_per_iteration, result.cost_per_1e9_tokens
    if price is None or spent is None or cost is None:
        return tokens
    return f"{tokens}; costs {money(spent)} an iteration, {money(cost)} per 1e9 tokens at {price:g} per GPU hour"


def tokens_a_day(result: Result) -> str:
    """Tokens of 24 hours of iterations, to three digits."""
    return engineering(float(f"{result.tokens_per_day:.3g}"))


def interval_line(interval: PredictionInterval) -> str:
    """The ends of the time's interval, and how far measured runs that no fit used were from their predictions."""
    low, high = map(format_time, interval.bounds_s())
    farthest = format_percent(math.expm1(interval.spreads[WHOLE]))
    within = f"{interval.within} of {plural(interval.runs, 'held-out run')} on this hardware were within ± {farthest}"
    return f"{low} to {high} ({100 * interval.coverage:.0f} %): {within} of their prediction"


def explained(exactness: str) -> str:
    """What a schedule computes, with what short words for it mean."""
    return f"{exactness}: {LEGEND[exactness]}" if exactness in LEGEND else exactness


def money(amount: float) -> str:
    """An amount in the currency of the price: cents from 1 on, else three digits."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.3g}"


def held_line(held: float, capacity: float) -> str:
    """How much of a memory tier was taken."""
    return f"{format_memory(held)} of {format_memory(capacity)} ({format_percent(held / capacity)})"


def peak_time(result: Result, time_s: float) -> str:
    """When a peak is reached, and in which phase."""
    if time_s <= 0:
        return "from the start on"
    phases = phase_columns(result.run)
    rows: Sequence[tuple[str, float]] = list(zip(phases["phase"], phases["end_s"], strict=True))
    phase = next((name for name, end in rows if time_s <= end), rows[-1][0])
    return f"at {format_time(time_s)}, in {phase}"


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
