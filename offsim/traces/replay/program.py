"""A trace as a program: what each GPU stream and host thread did, and what each step had to wait for.

Times between what a step waited for and its beginning are kept, as they are: launch latencies, the host's own time
between calls. So the program takes as long as the trace when nothing is changed, and a step that becomes shorter or
longer moves exactly what depended on it:

- a GPU activity begins after the one before it on its stream, after its launching call, and after events that its
  stream waits for;
- a call that synchronizes ends after the GPU activity that it waited for, a copy that blocks after itself;
- a thread that was idle until another one went idle was waiting for it, as the main thread does while the thread of
  backward runs.

Where a trace does not say what was waited for, timing decides, and only where it leaves little doubt.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from offsim.inputs.errors import InputError
from offsim.traces.classes import cpu_adam
from offsim.traces.events import GPU_KINDS, Trace
from offsim.traces.replay.gpu import stream_steps
from offsim.traces.replay.host import interruptions, thread_steps
from offsim.traces.replay.process import Key, Process, Step


@dataclass(frozen=True, slots=True)
class Program:
    """Steps, each behind those that it waits for, and the trace's own times."""

    steps: list[Step]
    original_s: float
    busy_s: dict[str, float]
    """Stream or thread -> its busy time in the trace."""


def program_of(trace: Trace) -> Program:
    """Rebuild the program; InputError where a trace has nothing to replay."""
    events = trace.events
    adam = cpu_adam(events)
    replayed = events["kind"].isin([*GPU_KINDS, "runtime", "cpu_op"]) | adam
    if not replayed.any():
        problem = "found neither GPU activities nor calls nor operators, expected a trace with something to replay"
        raise InputError(problem, str(trace.path))
    origin = float(events.loc[replayed, "start_s"].min())
    events = events.assign(cpu_adam=adam, start_s=events["start_s"] - origin, end_s=events["end_s"] - origin)
    steps: list[Step] = []
    busy: dict[str, float] = {}
    ranks = events.loc[replayed, "rank"].unique()
    for rank in sorted(ranks.tolist()):
        own = events["rank"] == rank
        prefix = f"rank {rank}, " if len(ranks) > 1 else ""
        process = Process(events, own & replayed, own & (events["kind"] == "sync"), prefix)
        interrupted, blocked_until = interruptions(process)
        steps += [*stream_steps(process, blocked_until), *thread_steps(process, interrupted)]
        busy |= process.busy_s()
    return Program(_in_order(steps), float(events.loc[replayed, "end_s"].max()), busy)


def _in_order(steps: list[Step]) -> list[Step]:
    """The steps behind those that they wait for, which include the step before on their stream."""
    by_key = {step.key: step for step in steps}
    graph: dict[Key, list[Key]] = {}
    last: dict[str, Key] = {}
    for step in steps:
        step.after = [key for key in step.after if key in by_key]
        graph[step.key] = step.after + ([last[step.stream]] if step.stream in last else [])
        last[step.stream] = step.key
    sorter = TopologicalSorter(graph)
    with suppress(CycleError):
        sorter.prepare()
    ordered: list[Step] = []
    while ready := sorter.get_ready():
        ordered += [by_key[key] for key in ready]
        sorter.done(*ready)
    # Where clocks that differ make steps wait for each other in a circle, those wait for their own stream only.
    done = {step.key for step in ordered}
    for step in sorted((step for step in steps if step.key not in done), key=lambda step: step.at):
        step.after = []
        ordered.append(step)
    return ordered
