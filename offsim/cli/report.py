"""A result as text: how long, what limits, where memory peaks; then each of them in detail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from offsim.cli.terminal import PLAIN, Style, labelled, wrapped
from offsim.hardware import HardwareProfile
from offsim.records import Peak, kept_operations, phase_columns
from offsim.result import Result
from offsim.scenario import Scenario
from offsim.schedulers.registry import scenario_scheduler
from offsim.verdict import Verdict
from offsim.views.style import format_memory, format_rate, format_time, format_time_interval
from offsim.views.tables import format_percent

if TYPE_CHECKING:
    from offsim.study.interval import Interval

PHASE_BAR, LIMIT_BAR, BUSY_BAR = 36, 15, 8
NAMED_FROM = 0.05
"""The share of the iteration from which on the headline names what limits it."""
SHOWN_FROM = 0.0005
"""The share below which a table's cell stays empty."""


def report(result: Result, style: Style = PLAIN, *, interval: bool = False) -> str:
    """All of a result that fits into lines of 80 characters; with `interval`, how sure the time is."""
    blocks = [_set_up(result)]
    if result.verdict is not None:
        blocks += [_verdict(result.verdict, style)]
    else:
        blocks += [
            _headline(result, style, interval),
            _phases(result, style),
            _limits(result, style),
            _utilization(result, style),
        ]
        blocks += [_memory(result, style)]
    return "\n\n".join(blocks)


def headline(result: Result) -> str:
    """How fast, what limits it and where memory peaks, in two lines."""
    if result.verdict is not None:
        return f"{verdict_line(result.verdict)}\n{asked_line(result.verdict)}"
    return f"{_speed(result)}; limited by {limited_by(result)}\n{'; '.join(map(_peak, named_peaks(result)))}"


def drawing_title(result: Result) -> str:
    """What a picture shows: scenario, scheduler, hardware."""
    return f"{result.name}: {result.scenario.scheduler.name} on {hardware_line(result)}"


def limited_by(result: Result, most: int = 4) -> str:
    """What most of the iteration's critical path went to."""
    shares = [(name, share) for name, share in result.limited_by.items() if share >= NAMED_FROM][:most]
    return ", ".join(f"{name} {format_percent(share)}" for name, share in shares)


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


def plural(count: int, noun: str) -> str:
    """Count things: 1 GPU, 4 GPUs."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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


def _set_up(result: Result) -> str:
    scenario = result.scenario
    scheduler = scenario.scheduler.name
    if options := options_of(scenario):
        scheduler += f" ({options})"
    parameters = result.run.workload.parameters * scenario.training.tensor_parallel
    lines = {
        "scenario": result.name,
        "scheduler": scheduler,
        "hardware": hardware_line(result),
        "validated": validated(result.run.profile),
        "model": model_line(scenario, parameters),
        "batch": batch_line(scenario),
    }
    return "\n".join(labelled(label, text) for label, text in lines.items())


def _speed(result: Result, interval: Interval | None = None) -> str:
    time = format_time_interval(result.iteration_s, interval.half_s()) if interval else format_time(result.iteration_s)
    return f"{time}, {result.tokens_per_s:,.0f} tokens/s, {result.tflops_per_gpu:.1f} TFLOP/s per GPU"


def _peak(peak: Peak) -> str:
    share = format_percent(peak.bytes / peak.capacity_bytes)
    return f"{peak.tier} {format_memory(peak.bytes)} of {format_memory(peak.capacity_bytes)} ({share})"


def trust_lines(result: Result) -> list[str]:
    """How sure the time is: as far as the hardware's values are known, and as it was on measured runs."""
    from offsim.validation.accuracy import accuracy_of

    interval, accuracy = result.interval, accuracy_of(result.run.profile)
    if interval is None:
        lines = [labelled("interval", "none: no value of the profile has one")]
    else:
        low, high = map(format_time, interval.bounds_s())
        values = plural(len(interval.swings), "hardware value")
        lines = [labelled("interval", f"{low} to {high} (95 %), from the intervals of {values}")]
    if accuracy is not None:
        median, p90 = format_percent(accuracy.median), format_percent(accuracy.p90)
        runs = plural(accuracy.runs, "measured run")
        lines.append(labelled("errors", f"{median} (median) and {p90} (90th percentile) on {runs} of this hardware"))
    return lines


def _headline(result: Result, style: Style, interval: bool) -> str:
    known = result.interval if interval else None
    lines = [labelled("iteration", _speed(result, known)), labelled("limited by", limited_by(result))]
    lines[1:1] = trust_lines(result) if interval else []
    lines += [labelled("" if i else "peak", _peak(peak)) for i, peak in enumerate(named_peaks(result))]
    return "\n".join(style.heading(line) if i == 0 else line for i, line in enumerate(lines))


def _phases(result: Result, style: Style) -> str:
    steps = result.scenario.training.micro_steps
    times = {**result.durations, "iteration": result.iteration_s}
    rows = [
        (
            f"{phase} ({steps} micro-steps)" if steps > 1 and phase in ("forward", "backward") else phase,
            format_time(seconds),
            format_percent(seconds / result.iteration_s),
            style.bar(seconds / result.iteration_s, PHASE_BAR),
        )
        for phase, seconds in times.items()
    ]
    return style.table(rows, ("phase", "time", "share", ""), "lrrl")


def _limits(result: Result, style: Style) -> str:
    shares = {"iteration": result.limited_by}
    for phase, spent in result.limits_s.items():
        total = sum(spent.values())
        shares[phase] = {name: seconds / total for name, seconds in spent.items()} if total else {}
    title = "what limited it, in percent of the time (the critical path)"
    return f"{style.heading(title)}\n{share_table('limited by', shares, style)}"


def share_table(corner: str, shares: Mapping[str, Mapping[str, float]], style: Style, *, bar: bool = True) -> str:
    """A column per key of `shares`, a row per name in it, empty where there is next to nothing; a bar of the first."""
    names = list(dict.fromkeys(name for column in shares.values() for name in column))
    shown = [name for name in names if any(column.get(name, 0.0) >= SHOWN_FROM for column in shares.values())]
    first = next(iter(shares.values()))
    rows = [
        (name, *(_cell(column.get(name, 0.0)) for column in shares.values()))
        + ((style.bar(first.get(name, 0.0), LIMIT_BAR),) if bar else ())
        for name in shown
    ]
    headers = (corner, *shares, *(("",) if bar else ()))
    return style.table(rows, headers, "l" + "r" * len(shares) + ("l" if bar else ""))


def _cell(share: float) -> str:
    return format_percent(share) if share >= SHOWN_FROM else ""


def _utilization(result: Result, style: Style) -> str:
    from offsim.utilization import utilization_columns

    columns = utilization_columns(result.run, kept_operations(result.run))
    names, capacities, units, *shares = columns.values()
    phases = [name for name in columns if name not in ("resource", "capacity", "unit")]
    rows = [
        (name, _capacity(capacity, unit), *map(format_percent, used), style.bar(used[0], BUSY_BAR))
        for name, capacity, unit, *used in zip(names, capacities, units, *shares, strict=True)
    ]
    table = style.table(rows, ("used", "capacity", *phases, ""), "lr" + "r" * len(phases) + "l")
    return f"{style.heading('how busy each resource was')}\n{table}"


def _capacity(capacity: float, unit: str) -> str:
    return format_rate(capacity) if unit == "B/s" else f"{capacity:g} {unit}"


def _memory(result: Result, style: Style) -> str:
    blocks = []
    for peak in named_peaks(result):
        phase = _phase_at(result, peak.time_s)
        when = f"at {format_time(peak.time_s)}, in {phase}" if peak.time_s > 0 else "from the start on"
        title = style.heading(f"{_peak(peak)}, {when}" if peak.occupants else _peak(peak))
        blocks.append("\n".join([title, *_occupants(peak.occupants, peak.capacity_bytes, style)]))
    return "\n\n".join(blocks)


def _occupants(occupants: Mapping[str, float], capacity: float, style: Style) -> Iterable[str]:
    ordered = sorted(occupants.items(), key=lambda item: (-item[1], item[0]))
    width = max((len(name) for name in occupants), default=0)
    for name, held in ordered:
        share = held / capacity
        line = f"  {name:<{width}}  {format_memory(held):>8}  {format_percent(share):>6}  {style.bar(share, 30)}"
        yield line.rstrip()


def _phase_at(result: Result, time_s: float) -> str:
    phases = phase_columns(result.run)
    rows: Sequence[tuple[str, float]] = list(zip(phases["phase"], phases["end_s"], strict=True))
    return next((name for name, end in rows if time_s <= end), rows[-1][0])


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


def _verdict(verdict: Verdict, style: Style) -> str:
    lines = [style.alarm(verdict_line(verdict)), asked_line(verdict)]
    lines += _occupants(verdict.occupants, verdict.capacity_bytes, style)
    lines += ["", style.heading("single changes with which it fits")]
    rows = [
        (_flags(remedy.change), f"{format_time(remedy.iteration_s)} an iteration", plural(remedy.gpus, "GPU"))
        for remedy in verdict.remedies
    ]
    width = max((len(row[0]) for row in rows), default=0)
    lines += [f"  {flags:<{width}}  {time:>21}  {gpus}" for flags, time, gpus in rows]
    return "\n".join(lines if rows else [*lines, wrapped("none of those tried", "  ", "  ")])


def _flags(change: str) -> str:
    """A change as it is given on the command line."""
    flags = []
    for part in change.split(", "):
        key, _, value = part.partition("=")
        flags.append(f"--scheduler {value}" if key == "scheduler.name" else f"--set {part}")
    return " ".join(flags)
