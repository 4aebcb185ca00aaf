"""How fast simulations, tables and starts are."""

from __future__ import annotations

import sys
from copy import copy
from itertools import count
from random import Random

import pytest

from benchmarks.measure import PYTHON, Check, start_python
from offsim import simulate
from offsim.calibration.runs.recipe_file import read_recipe
from offsim.calibration.runs.refit import refit
from offsim.engine import Engine, Operation, Resource, Stream
from offsim.inputs.packaged import packaged_folder
from offsim.programs.recording import TapedRun
from offsim.results.machines import Machines
from offsim.results.simulate import result_of
from offsim.scenario import load_scenario, scenario_profile

SCENARIOS = ["zero3_20b_4xh100", "dos_20b_4xh100"]
"""20B parameters on 4 GPUs; Deep Optimizer States with the update before the iteration."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_if(check: Check, name: str) -> None:
    """From a scenario to its result, one rank for all."""
    scenario = load_scenario(name)
    check(lambda: simulate(scenario))


@pytest.mark.parametrize("name", SCENARIOS)
def test_other_hardware(check: Check, name: str) -> None:
    """The times of a recorded scenario where a value of its hardware is another."""
    pytest.importorskip("numba")
    scenario = load_scenario(name)
    profile = scenario_profile(scenario)
    machines = Machines(scenario, many=True)
    steps = count()

    def run() -> None:
        rate = profile.link.h2d_bytes_per_s * (1 + 1e-6 * next(steps))
        other = profile.with_values({"link": {"h2d_bytes_per_s": rate}})
        assert result_of(scenario, machines.on(other), other).durations

    while not isinstance(machines.on(profile), TapedRun):
        pass  # the loop is compiled where that has never been done
    check(run)


def test_recipes(check: Check) -> None:
    """The recipes of the shipped A100 and H100 machines: fits to all of their runs, and without each group of them."""
    pytest.importorskip("numba")
    folder = packaged_folder("hardware_profiles") / "recipes"
    check(lambda: [refit(read_recipe(folder / name)) for name in ("polaris.yaml", "jlse.yaml")])


@pytest.mark.parametrize("name", SCENARIOS)
def test_activity(check: Check, name: str) -> None:
    """One of a simulation of all ranks."""
    scenario = load_scenario(name)
    activities = len(simulate(scenario, all_ranks=True).run.engine.operations)
    check(lambda: simulate(scenario, all_ranks=True), activities)


@pytest.mark.parametrize("steps", [256, 1024])
def test_micro_step(check: Check, steps: int) -> None:
    """One of many: does its cost stay the same?"""
    scenario = load_scenario("dos_20b_4xh100", [f"training.global_batch={4 * steps}"])
    check(lambda: simulate(scenario, max_operations=sys.maxsize), steps)


@pytest.mark.parametrize("flows", [64, 512])
def test_flows(check: Check, flows: int) -> None:
    """An operation among so many that share a resource, ask for different rates, and end at different times."""

    def run() -> None:
        random, engine, link = Random(0), Engine(), Resource("link", 1.0)
        for number in range(flows):
            stream = Stream(str(number))
            for _ in range(2):
                rate, seconds = random.uniform(0.1, 1), random.uniform(1, 2)
                engine.enqueue(Operation(stream, "work", "work", seconds, ((link, rate),)))
        engine.env.run()

    check(run, 2 * flows)


@pytest.mark.parametrize("view", ["timeline", "memory", "limits", "utilization"])
def test_table(check: Check, view: str) -> None:
    result = simulate("dos_20b_4xh100")
    check(lambda: getattr(copy(result), view))  # a copy, because results keep the tables that were asked for


@pytest.mark.parametrize("arguments", ["--version", "run zero3_20b_4xh100"])
def test_start(check: Check, arguments: str) -> None:
    """From the shell."""
    check(lambda: start_python("-m", "offsim", *arguments.split()), yardstick=PYTHON)
