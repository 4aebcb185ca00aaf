"""What a run's operations wait for and share, as plain values: with it a trace can be replayed at other speeds."""

from __future__ import annotations

from typing import Any

from offsim.engine import Operation, Rendezvous, Resource, Server, Stream
from offsim.programs.run import Run
from offsim.results.limits import spans
from offsim.results.records import kept_operations
from offsim.scenario import Scenario
from offsim.simulation import run_scenario

HELD = ("CPU cores", "GPU compute")
"""Resources that work holds while it runs, however fast: the others carry what it moves."""


def recorded(run: Run, scenario: Scenario) -> Run:
    """The same run again, with what waits for what."""
    engine = run.engine
    all_ranks = not run.layout.one_for_all
    return run_scenario(scenario, run.profile, all_ranks, engine.stretch, engine.most, record=True)


def graph_of(run: Run) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    """Of each operation of a recorded run: what it waits for, where it queues, what it shares; and the resources.

    Times are microseconds, demands per second alone.
    """
    recorder = run.engine.recorder
    assert recorder is not None
    zero, kept = run.started_at, kept_operations(run)
    ids = {operation.index for operation in kept}
    lanes: dict[Stream, int] = {}
    servers: dict[Server, int] = {}
    meetings: dict[Rendezvous, int] = {}
    resources: dict[str, Resource] = {}
    found: dict[int, dict[str, Any]] = {}
    for operation in kept:
        resources.update((resource.name, resource) for resource, _ in operation.usage)
        behind = recorder.after(operation)
        if operation.waited_for is not None and any(tier.waits for tier, _, _ in operation.allocates):
            behind.append(operation.waited_for)  # the buffer that came free
        arguments: dict[str, Any] = {
            "id": operation.index,
            "lane": lanes.setdefault(operation.stream, len(lanes)),
            "after": sorted({each.index for each in behind} & ids),
        }
        if operation.usage:
            arguments["uses"] = {resource.name: rate for resource, rate in operation.usage}
        if operation.holds:
            arguments["holds"] = [servers.setdefault(server, len(servers)) for server in operation.holds]
        if operation.rendezvous is not None:
            arguments["meets"] = meetings.setdefault(operation.rendezvous, len(meetings))
        if operation.started_at < zero:
            arguments["left (us)"] = 1e6 * (operation.duration - _done(operation, zero))
        found[operation.index] = arguments
    ends = {each.index for rank in run.ranks for each in recorder.known(rank.host)}
    document = {
        "seconds": run.ended_at - run.started_at,
        "end": sorted(ends & ids),
        "slots": [server.slots for server in servers],
        "resources": {name: resource.capacity for name, resource in sorted(resources.items())},
        "held": [name for name in sorted(resources) if name.startswith(HELD)],
    }
    return found, document


def _done(operation: Operation, until: float) -> float:
    """Seconds of work alone that an operation has done by then."""
    return sum(span.fraction * (min(span.end, until) - span.start) for span in spans(operation) if span.start < until)
