"""From a scenario to what is run: the same run for all that place states the same."""

from __future__ import annotations

from typing import Any

import pytest
from small_scenarios import scenario, small_buckets

from offsim import simulate
from offsim.engine import Code
from offsim.programs.rank import Rank
from offsim.scenario import Scenario, load_scenario
from offsim.schedulers.registry import BUILT_IN, find_scheduler
from offsim.schedulers.zero3_offload import Zero3Offload
from offsim.simulation import checked, what_runs
from offsim.testing import node

NODE = node()
RATIOS = [0, 1 / 3, 0.5, 0.9, 1]


def sub_groups(name: str, **options: Any) -> Scenario:
    """Of 5,000 parameters, under a schedule."""
    cls = find_scheduler(name)
    given = scenario({"name": name, **options}, training={"subgroup_size": 5_000, "zero_stage": cls.stages[-1]})
    return load_scenario(given)


def again(found: dict[str, Any]) -> dict[str, Any]:
    """The values as a scenario that has nothing else."""
    return {"hardware": "jlse-4xh100", **found}


@pytest.mark.parametrize("name", [name for name, cls in BUILT_IN.items() if "cpu_ratio" in cls.Options.model_fields])
@pytest.mark.parametrize("ratio", RATIOS)
def test_what_runs_is_a_scenario_that_runs_the_same(name: str, ratio: float) -> None:
    given = sub_groups(name, cpu_ratio=ratio)
    found = what_runs(given)
    told = load_scenario(again(found))
    assert checked(told, NODE) == checked(given, NODE)
    assert what_runs(told) == found
    assert checked(given, NODE)[2] == checked(sub_groups(name), NODE)[2]
    with small_buckets():
        one, other = (simulate(each, profile=NODE) for each in (given, told))
    assert one.figures() == other.figures()


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_runs_has_every_choice_made(name: str) -> None:
    given = sub_groups(name)
    told = load_scenario(again(what_runs(given)))
    assert checked(told, NODE) == checked(given, NODE)
    assert what_runs(told) == what_runs(given)


def test_rules_and_recomputed_layers_are_told_apart() -> None:
    placements: list[dict[str, Any]] = [
        {"activations": {"recompute": 2}},
        {"activations": {"recompute": 4}},
        {"activations": {"tier": "host", "recompute": 0, "rule": "torchtune"}},
        {"activations": {"tier": "host", "recompute": 0, "rule": "torchtune", "max_fwd_stash_size": 3}},
        {"parameters": "host"},
    ]
    found = [what_runs(load_scenario({**scenario(), "placement": placement})) for placement in placements]
    assert all(one not in found[:number] for number, one in enumerate(found))
    assert found[1] == what_runs(load_scenario(scenario()))  # all of its layers


def test_a_run_knows_where_states_are_from_what_is_placed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[float, int]] = []

    class Own(Zero3Offload):
        name = "own"

        def update(self, rank: Rank) -> Code:
            read.append((self.options.cpu_ratio, len(self.off_gpu())))
            yield from super().update(rank)

    monkeypatch.setitem(BUILT_IN, "own", Own)
    with small_buckets():
        half = simulate(sub_groups("own", cpu_ratio=0.5), profile=NODE)
    assert half.scenario.scheduler.options == {"cpu_ratio": 0.5}
    assert set(read) == {(1.0, len(half.run.workload.subgroups) // 2)}
