"""Many operations behind one bottleneck, against theory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import Any

import pytest
from programs import enqueue_at, work_done
from test_random_graphs import Activity, Graph, close, end_times_of_offsim, exact_end_times

from offsim.engine import Engine, Operation, Resource
from offsim.engine.crowd import Crowd
from offsim.results.limits import spans


def crowded_graph(seed: int) -> Graph:
    """Dozens of activities on one memory, in part behind links that are contended now and then."""
    random = Random(seed)
    names = ["link 0", "link 1", "link 2"]
    activities = []
    linked = random.choice([0.0, 0.05, 0.3])
    for index in range(random.randint(40, 70)):
        demands = {"memory": random.randint(1, 12)}
        if random.random() < linked:
            demands[random.choice(names)] = random.randint(1, 12)
        after = random.sample(range(index), min(index, random.choice([0, 0, 1])))
        activities.append(Activity(random.randrange(40), random.randint(1, 2**24), demands, tuple(after)))
    capacities = {"memory": random.uniform(20, 60)} | {name: random.uniform(1, 12) for name in names}
    return Graph(capacities, tuple(activities), unit=10.0 ** random.uniform(-3, 12))


def test_end_times_equal_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """In most of the graphs operations are in a crowd at times; in many it has to be given up."""
    counts: Counter[str] = Counter()
    note_calls(monkeypatch, Crowd, "settle", lambda: counts.update([f"crowd {seed}"]))
    note_calls(monkeypatch, Operation, "leave", lambda: counts.update([f"given up {seed}"]))
    for seed in range(24):
        graph = crowded_graph(seed)
        assert end_times_of_offsim(graph) == close(exact_end_times(graph)), f"crowded_graph({seed})"
    assert sum(name.startswith("crowd") for name in counts) > 12
    assert sum(name.startswith("given up") for name in counts) > 6


def note_calls(monkeypatch: pytest.MonkeyPatch, cls: type, method: str, note: Callable[[], None]) -> None:
    called = getattr(cls, method)

    def call(*given: Any) -> Any:
        note()
        return called(*given)

    monkeypatch.setattr(cls, method, call)


@pytest.mark.parametrize("flows", [16, 100])
def test_flows_that_start_together_end_as_processor_sharing_has_them(flows: int) -> None:
    """Between the ends of the i-th and the next longest, one second of work of each of those left is done."""
    engine, link = Engine(), Resource("link", 1.0)
    operations = [enqueue_at(engine, 0.0, 1.0 + i, [(link, 1.0)]) for i in range(flows)]
    engine.env.run()
    assert [operation.ended_at for operation in operations] == close(list(accumulate(range(flows, 0, -1))))


def test_changes_of_speed_add_up_to_the_work() -> None:
    """Flows come to a crowd of 40 and end in it; at last few enough are left, and one alone."""
    engine, link = Engine(), Resource("link", 1.0)
    random = Random(1)
    operations = [enqueue_at(engine, random.uniform(0, 40), random.uniform(1, 3), [(link, 1.0)]) for _ in range(60)]
    engine.env.run()
    assert [work_done(operation) for operation in operations] == close([operation.duration for operation in operations])
    for operation in operations:
        changes = [span.start for span in spans(operation)]
        others = {t for o in operations for t in (o.started_at, o.ended_at)}
        assert set(changes) <= others
    assert any(len(operation.slowdowns or ()) > 20 for operation in operations)


def test_a_change_of_speed_touches_few_of_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, link = Engine(), Resource("link", 1.0)
    for i in range(200):
        enqueue_at(engine, 0.1 * i, 100.0 + i, [(link, 1.0)])
    touched: list[None] = []
    note_calls(monkeypatch, Operation, "change_speed", lambda: touched.append(None))
    engine.env.run()
    assert len(touched) < 4 * 200


def test_crowds_that_do_the_same_do_it_at_the_same_instant() -> None:
    """To the last bit, though one of them has counted work of others before."""
    engine, links = Engine(), [Resource(f"link {i}", 7.0) for i in range(2)]
    for link in links:
        for _ in range(20):
            enqueue_at(engine, 0.0, 1000.0, [(link, 1.0)])
    for i in range(5):
        enqueue_at(engine, 0.1, 0.3 + 0.1 * i, [(links[0], 1.0)])
    later = [[enqueue_at(engine, 17.3, 0.1 * (i // 2) + 0.7, [(link, 1.0)]) for i in range(10)] for link in links]
    engine.env.run()
    assert [operation.ended_at for operation in later[0]] == [operation.ended_at for operation in later[1]]
