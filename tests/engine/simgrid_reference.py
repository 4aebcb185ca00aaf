"""End times of graphs according to SimGrid: JSON on standard input and output.

A script for the system's Python, which alone can import Debian's python3-simgrid.
A graph is {"capacities": {resource: amount per second}, "activities": [{"bytes", "demands": {resource: amount per
second at full speed}, "after": [indices]}], "bytes_per_s": full speed}; demands are whole numbers.

An activity is a flow across a link of its own, whose bandwidth is full speed, and as often across the link of each
resource as it demands of it. SimGrid shares links by max-min fairness in the rates of flows; as all have the same full
speed, that is fairness in its fractions.
"""

import json
import os
import sys

from simgrid import Actor, Comm, Engine, LinkInRoute, NetZone

CONFIGURATION = (
    # bandwidth alone matters: no latency, no windows, no protocol overhead
    "network/model:CM02",
    "network/bandwidth-factor:1",
    "network/latency-factor:1",
    "network/weight-S:0",
    "network/crosstraffic:0",
    "network/TCP-gamma:0",
    "maxmin/precision:1e-13",
    "surf/precision:1e-13",
)


def end_times(graph):
    """Seconds, one for each activity."""
    engine = Engine(["simgrid_reference", "--log=root.thresh:error"])
    for setting in CONFIGURATION:
        Engine.set_config(setting)
    zone = NetZone.create_full_zone("zone")
    full_speed = float(graph["bytes_per_s"])
    links = {name: zone.create_link(name, capacity * full_speed) for name, capacity in graph["capacities"].items()}
    for link in links.values():
        link.seal()
    activities = graph["activities"]
    hosts = []
    for index, activity in enumerate(activities):
        ends = [zone.create_host(f"{end} {index}", 1.0) for end in ("sender", "receiver")]
        own = zone.create_link(f"own {index}", full_speed).seal()
        shared = [links[name] for name, demand in activity["demands"].items() for _ in range(demand)]
        route = [LinkInRoute(link) for link in (own, *shared)]
        zone.add_route(ends[0].netpoint, ends[1].netpoint, None, None, route, False)
        hosts.append(ends)
    zone.seal()
    ended = [0.0] * len(activities)
    actors = []

    def run(index):
        for earlier in activities[index]["after"]:
            actors[earlier].join()
        if activities[index]["bytes"]:
            flow = Comm.sendto_init(*hosts[index])
            flow.set_payload_size(activities[index]["bytes"])
            flow.start()
            flow.wait()
        ended[index] = Engine.clock

    for index, (sender, _) in enumerate(hosts):
        actors.append(Actor.create(f"actor {index}", sender, run, index))
    engine.run()
    return ended


def end_times_in_a_child(graph):
    """SimGrid has one engine in a process, so each graph has a process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump(end_times(graph), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        sys.exit(f"SimGrid failed on {json.dumps(graph)}")
    return json.loads(text)


if __name__ == "__main__":
    json.dump([end_times_in_a_child(graph) for graph in json.load(sys.stdin)], sys.stdout)
