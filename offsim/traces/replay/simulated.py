"""A trace of offsim on the engine again: activities wait for the same, and share resources by the same rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from offsim.engine import Engine, Operation, Rendezvous, Resource, Server, Stream
from offsim.traces.classes import COLLECTIVES
from offsim.traces.graph import Graph

SCALED_BY = {
    **{kind: kind for kind in ("h2d", "d2h", "gpu_adam", "cpu_adam")},
    **dict.fromkeys(("launch", "scaling", "host copy"), "cpu"),
    **dict.fromkeys(COLLECTIVES, "collective"),
    **dict.fromkeys(("d2d", "conversion"), "elementwise"),
    "compute": "other",
}
"""Kind of activity -> what scales it; storage has no scale."""
LINKS = {"H2D": "h2d", "D2H": "d2h", "GPU interconnect": "collective"}
"""Resource, without its number -> what scales it with the work on it: the rate of the link itself."""


def busy_s(graph: Graph, seconds: Iterable[float]) -> dict[str, float]:
    """Stream -> its seconds where activities take these, without waits and what began before measured iterations."""
    busy: dict[str, float] = {}
    for (stream, each, _), took in zip(graph.activities, seconds, strict=True):
        counted = each.left is None and each.kind != "wait"
        busy[stream] = busy.get(stream, 0.0) + counted * took
    return busy


def run_graph(graph: Graph, factors: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """Run the activities that many times as fast; returns the seconds until the end, and how busy streams were."""
    engine, machine = Engine(), graph.machine
    held = set(machine.held)
    resources = {
        name: Resource(name, capacity * factors.get(LINKS.get(name.rstrip("0123456789 "), ""), 1.0))
        for name, capacity in machine.resources.items()
    }
    servers = [Server(str(number), slots) for number, slots in enumerate(machine.slots)]
    ranks: dict[int, int] = {}
    for _, each, _ in graph.activities:
        if each.meets is not None:
            ranks[each.meets] = ranks.get(each.meets, 0) + 1
    meetings = {number: Rendezvous(count) for number, count in ranks.items()}
    lanes: dict[int, Stream] = {}
    done: dict[int, Operation] = {}
    for stream, each, _ in graph.activities:
        factor = factors.get(SCALED_BY.get(each.kind, ""), 1.0)
        operation = Operation(
            lanes.setdefault(each.lane, Stream(stream)),
            each.kind,
            stream,
            (each.alone if each.left is None else each.left) / 1e6 / factor,
            tuple((resources[name], rate * (1.0 if name in held else factor)) for name, rate in each.uses.items()),
            holds=tuple(servers[number] for number in each.holds),
            rendezvous=None if each.meets is None else meetings[each.meets],
        )
        done[each.id] = engine.enqueue(operation, [done[other] for other in each.after])
    engine.env.run()
    engine.close()
    took = [operation.ended_at - operation.started_at for operation in done.values()]
    return max((done[number].ended_at for number in machine.end), default=0.0), busy_s(graph, took)
