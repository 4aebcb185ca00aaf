"""Replay a trace on the engine, unchanged and with changed speeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from offsim.engine import Engine, Operation, Resource, Stream
from offsim.inputs.errors import InputError, suggestion
from offsim.inputs.fields import parsed_number
from offsim.platform.hardware import HardwareProfile
from offsim.traces.events import Trace
from offsim.traces.graph import Graph
from offsim.traces.replay.links import fullest, link_of, sharing_of
from offsim.traces.replay.process import Key, Step
from offsim.traces.replay.program import Program, program_of
from offsim.traces.replay.simulated import busy_s, run_graph

_KINDS = {"adam": "gpu_adam", "gap": "cpu"}
_FROM_RATES_BYTES = 1e6
"""Smaller copies are bound by latency, not by the rates of a profile."""

SCALES = {
    "h2d": "copies from host to device",
    "d2h": "copies from device to host",
    "d2d": "copies within and between devices",
    "gemm": "matrix products and convolutions",
    "attention": "fused attention",
    "gpu_adam": "Adam and other multi-tensor kernels on the GPU",
    "collective": "collectives",
    "elementwise": "kernels that memory bandwidth bounds",
    "other": "other kernels",
    "cpu_adam": "optimizer steps on the CPU",
    "cpu": "all else that host threads do, between calls too",
}
"""What can be scaled. A factor is a speed: 2 takes half the time."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the whole took, and how long each stream and thread was busy; seconds."""

    makespan_s: float
    busy_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Replay:
    """A trace as it was, replayed unchanged, and with changes where any were asked for."""

    trace: Trace
    original: Timing
    replayed: Timing
    scaled: Timing | None
    scales: Mapping[str, float]
    profile: str
    """The name of the one whose rates copies take; "" without one."""
    sharing: str
    """How copies share links, in a sentence."""

    @property
    def error(self) -> float:
        """Of the replayed makespan, relative to the original."""
        return _error(self.replayed.makespan_s, self.original.makespan_s)

    @property
    def busy_error(self) -> float:
        """The largest error of a stream's busy time, relative to its original."""
        replayed = self.replayed.busy_s
        return max((abs(_error(replayed[name], busy)) for name, busy in self.original.busy_s.items()), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "file": self.trace.path.name,
            "original_s": self.original.makespan_s,
            "replayed_s": self.replayed.makespan_s,
            "error": self.error,
            "busy_error": self.busy_error,
            "profile": self.profile or None,
            "scales": dict(self.scales),
            "sharing": self.sharing,
            "scaled_s": self.scaled.makespan_s if self.scaled else None,
            "streams": {
                name: {
                    "original_busy_s": busy,
                    "replayed_busy_s": self.replayed.busy_s[name],
                    "scaled_busy_s": self.scaled.busy_s[name] if self.scaled else None,
                }
                for name, busy in self.original.busy_s.items()
            },
        }


def replay(trace: Trace, scales: Mapping[str, float] | None = None, profile: HardwareProfile | None = None) -> Replay:
    """Replay a trace unchanged and, where there are scales or a profile, with their speeds.

    A profile's link rates replace those of copies from 1 MB on. Scales (see SCALES) then make what they name so many
    times as fast. A trace of offsim has what activities wait for and share, and is replayed by that.
    """
    if trace.graph is not None:
        return _replay_graph(trace, trace.graph, dict(scales or {}), profile)
    program = program_of(trace)
    changed = None
    if scales or profile is not None:
        factors = dict(scales or {})

        def seconds(step: Step) -> float:
            taken = step.seconds if profile is None else _at_rates_of(profile, step)
            return taken / factors.get(_KINDS.get(step.kind, step.kind), 1.0)

        changed = run(program, seconds)
    original = Timing(program.original_s, program.busy_s)
    unchanged = run(program, lambda step: step.seconds)
    sharing = sharing_of(program.steps)
    return Replay(trace, original, unchanged, changed, dict(scales or {}), profile.name if profile else "", sharing)


def _replay_graph(trace: Trace, graph: Graph, scales: dict[str, float], profile: HardwareProfile | None) -> Replay:
    factors = dict(scales)
    if profile is not None:
        rates = {"h2d": profile.link.h2d_bytes_per_s, "d2h": profile.link.d2h_bytes_per_s}
        for kind, rate in rates.items():
            known = graph.machine.resources.get(f"{kind.upper()} 0", rate)
            factors[kind] = factors.get(kind, 1.0) * rate / known
    changed = Timing(*run_graph(graph, factors)) if factors else None
    original = Timing(graph.machine.seconds, busy_s(graph, [seconds for _, _, seconds in graph.activities]))
    unchanged = Timing(*run_graph(graph, {}))
    sharing = "All resources are shared as in the simulation."
    return Replay(trace, original, unchanged, changed, scales, profile.name if profile else "", sharing)


def run(program: Program, seconds: Callable[[Step], float]) -> Timing:
    """Run a program whose steps take these seconds."""
    operations = _operations(program, seconds)
    busy = dict.fromkeys(program.busy_s, 0.0)
    ended: dict[str, float] = {}
    for step in program.steps:
        operation = operations[step.key]
        if step.work:
            busy[step.stream] += operation.ended_at - operation.started_at
        elif step.waits_busily:
            busy[step.stream] += operation.started_at - ended.get(step.stream, 0.0)
        ended[step.stream] = operation.ended_at
    return Timing(max((operation.ended_at for operation in operations.values()), default=0.0), busy)


def _operations(program: Program, seconds: Callable[[Step], float]) -> dict[Key, Operation]:
    """Run each step as an operation of the engine: nothing else here knows the engine."""
    engine = Engine()
    streams: dict[str, Stream] = {}
    operations: dict[Key, Operation] = {}
    taken = {step.key: seconds(step) for step in program.steps}
    faster: dict[tuple[str, str], float] = {}
    for step in program.steps:
        if link := link_of(step):
            faster[link] = max(faster.get(link, 0.0), step.seconds / taken[step.key])
    links = {link: Resource(" ".join(link), rate * faster[link]) for link, rate in fullest(program.steps).items()}
    for step in program.steps:
        stream = streams.setdefault(step.stream, Stream(step.stream))
        link = link_of(step)
        usage = ((links[link], step.bytes / taken[step.key]),) if link else ()
        operation = Operation(stream, step.kind, step.kind, taken[step.key], usage)
        operations[step.key] = engine.enqueue(operation, [operations[key] for key in step.after])
    engine.env.run()
    engine.close()
    return operations


def _at_rates_of(profile: HardwareProfile, step: Step) -> float:
    link = profile.link
    pageable = step.memory == "pageable"
    rates = {
        "h2d": link.pageable_h2d_bytes_per_s if pageable else link.h2d_bytes_per_s,
        "d2h": link.pageable_d2h_bytes_per_s if pageable else link.d2h_bytes_per_s,
    }
    return step.bytes / rates[step.kind] if step.kind in rates and step.bytes >= _FROM_RATES_BYTES else step.seconds


def _error(found: float, expected: float) -> float:
    return found / expected - 1.0 if expected > 0 else 0.0


def parse_scales(text: str) -> dict[str, float]:
    """Read "h2d=2,cpu_adam=1.5"; InputError for what cannot be scaled and for what is no factor."""
    scales: dict[str, float] = {}
    where = f"--scale '{text}'"
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"found '{part.strip()}', expected NAME=FACTOR such as h2d=2", where)
        if name not in SCALES:
            raise InputError(f"unknown '{name}'{suggestion(name, SCALES)}", where)
        if name in scales:
            raise InputError(f"found {name} twice, expected it once", where)
        scales[name] = parsed_number(value) or 0.0
        if not 1e-6 <= scales[name] <= 1e6:
            raise InputError(f"{name}: found '{value}', expected a factor from 1e-6 to 1e6", where)
    return scales
