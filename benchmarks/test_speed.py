"""How fast simulations are; run with `pytest benchmarks`. Prints, for each: activities and scenarios per second."""

from __future__ import annotations

import subprocess
import sys
from copy import copy
from time import perf_counter

import pytest
import simpy
from pytest_benchmark.fixture import BenchmarkFixture

from offsim import simulate
from offsim.results.result import Result
from offsim.scenario import Scenario, load_scenario

SCENARIOS = {"zero3_offload": "zero3_20b_4xh100", "deep_optimizer_states": "dos_20b_4xh100"}


def bare_simpy(timeouts: int) -> None:
    """The least that an event-driven simulation of so many activities does."""
    env = simpy.Environment()

    def process() -> simpy.events.ProcessGenerator:
        for _ in range(timeouts):
            yield env.timeout(1.0)

    env.process(process())
    env.run()


def seconds_of_bare_simpy(timeouts: int, repeats: int = 20) -> float:
    times = []
    for _ in range(repeats):
        begin = perf_counter()
        bare_simpy(timeouts)
        times.append(perf_counter() - begin)
    return min(times)


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """20B parameters on 4 GPUs; Deep Optimizer States with the update before the iteration."""
    loaded = load_scenario(SCENARIOS[request.param])
    assert (loaded.training.data_parallel, loaded.scheduler.name) == (4, request.param)
    return loaded


@pytest.mark.parametrize("all_ranks", [False, True], ids=["one_rank_for_all", "all_ranks"])
def test_iteration(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], scenario: Scenario, all_ranks: bool
) -> None:
    def run() -> Result:
        result = simulate(scenario, all_ranks=all_ranks)
        assert result.iteration_s > 0
        return result

    activities = len(benchmark(run).run.engine.operations)
    if benchmark.stats is None:  # --benchmark-disable
        return
    seconds = benchmark.stats.stats.min
    figures = {
        "activities": activities,
        "activities_per_s": activities / seconds,
        "times_bare_simpy": seconds / seconds_of_bare_simpy(activities),
        "scenarios_per_s": 1 / seconds,
    }
    benchmark.extra_info.update(figures)
    with capsys.disabled():
        print("", scenario.scheduler.name, *(f"{name} {value:,.1f}" for name, value in figures.items()), sep="  ")


def test_bare_simpy(benchmark: BenchmarkFixture) -> None:
    benchmark(bare_simpy, 1000)


@pytest.mark.parametrize("view", ["timeline", "memory", "limits", "utilization"])
def test_table(benchmark: BenchmarkFixture, view: str) -> None:
    result = simulate(SCENARIOS["deep_optimizer_states"])
    benchmark(lambda: getattr(copy(result), view))  # a copy, because results keep the tables that were asked for


@pytest.mark.parametrize("arguments", ["--version", "run zero3_20b_4xh100"])
def test_start(benchmark: BenchmarkFixture, arguments: str) -> None:
    """From the shell, with the start of Python itself."""
    command = [sys.executable, "-m", "offsim", *arguments.split()]
    benchmark(subprocess.run, command, check=True, capture_output=True)
