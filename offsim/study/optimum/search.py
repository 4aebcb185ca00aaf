"""The fastest plan of all, by simulating every one that a lower bound does not rule out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from typing import Any

from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile
from offsim.platform.platform import GPU
from offsim.programs.run import Run, run_training
from offsim.programs.transformer import FP32, Workload
from offsim.results.survey import Entry, survey
from offsim.scenario import Scenario, load_scenario, scenario_profile
from offsim.simulation import checked, workload_of
from offsim.states.placement import Placed
from offsim.study.optimum.free_form import SIDES, FreeForm, Plan, Side

MOST_SUBGROUPS = 8
ALL_ORDERS_TO = 4
"""Sub-groups up to which all orders of updates are tried; of more, ascending and descending ones."""


@dataclass(frozen=True)
class Optimum:
    """The fastest plan, and how many plans it is the fastest of."""

    plan: Plan
    iteration_s: float
    plans: int
    """All plans of the space."""
    simulated: int
    all_orders: bool


class Search:
    """A scenario's space of plans. Raises InputError where the scenario is too large to search."""

    def __init__(self, scenario: Scenario, profile: HardwareProfile | None = None) -> None:
        self.scenario = scenario
        self.profile = profile or scenario_profile(scenario)
        asked = scenario.placement
        if asked.parameters not in (None, GPU):
            problem = f"found {asked.parameters}, expected gpu: the search places optimizer state alone"
            raise scenario.document.error(("placement", "parameters"), f"placement.parameters: {problem}")
        self.workload: Workload = workload_of(scenario.model, scenario.training, by_layer=False)
        self.subgroups = self.workload.subgroups
        if len(self.subgroups) > MOST_SUBGROUPS:
            size = math.ceil(sum(s.elements for s in self.subgroups) / MOST_SUBGROUPS)
            problem = f"found {len(self.subgroups)} sub-groups a rank, expected at most {MOST_SUBGROUPS}"
            hint = f"; training.subgroup_size={size} or more makes so few"
            raise scenario.document.error(("training", "subgroup_size"), f"training.subgroup_size: {problem}{hint}")
        layers = scenario.model.layers if scenario.training.activation_checkpointing else 0
        self.activations = asked.activations.tier or GPU
        self.recomputed = asked.activations.recomputed(layers)

    def run(self, plan: Plan) -> Run:
        """Simulate a plan."""
        placed = Placed(GPU, plan.tiers, self.activations, self.recomputed)
        return run_training(self.profile, self.workload, FreeForm, plan, placed)

    def iteration_s(self, plan: Plan) -> float:
        """Time of an iteration; infinite where it does not fit."""
        run = self.run(plan)
        return math.inf if run.out_of_memory else (run.ended_at - run.started_at) / run.iterations

    @property
    def all_orders(self) -> bool:
        """Whether all orders of updates are tried."""
        return len(self.subgroups) <= ALL_ORDERS_TO

    def plans(self, sides: tuple[Side, ...]) -> Iterator[Plan]:
        """The plans of an assignment of sides: orders that differ within a side. The resident ones need none."""
        numbers = range(len(sides))
        lines = [[n for n in numbers if sides[n] == side] for side in SIDES if side != "gpu"]
        orders = [[*permutations(line)] if self.all_orders else _both_ways(line) for line in lines]
        resident = tuple(n for n in numbers if sides[n] == "gpu")
        for chosen in product(*orders):
            yield Plan(sides, (*resident, *(n for line in chosen for n in line)))

    @cached_property
    def passes_s(self) -> float:
        """Time of the kernels of forward and backward alone: no plan is faster."""
        on_cpu: tuple[Side, ...] = tuple("cpu" for _ in self.subgroups)
        run = self.run(Plan(on_cpu, tuple(range(len(on_cpu)))))
        if run.out_of_memory:
            return 0.0
        kernels = (
            operation.duration
            for operation in run.operations
            if operation.kind == "compute" and operation.iteration == run.last and operation.stream.rank == 0
        )
        return sum(kernels)

    def bound_s(self, sides: Sequence[Side]) -> float:
        """A time that no plan of these sides beats: kernels, then the CPU's or the GPU's updates, with nothing beside.

        Updates start when the gradients of all layers are there, and the next forward is launched after them.
        """
        host, link, gpu = self.profile.host, self.profile.link, self.profile.gpu
        of = {side: [s.elements for s, at in zip(self.subgroups, sides, strict=True) if at == side] for side in SIDES}
        on_cpu = sum(of["cpu"]) * (1 / host.adam_params_per_s + 1 / host.scale_params_per_s)
        fetched = sum(of["fetch"]) * 3 * FP32 / link.h2d_bytes_per_s
        on_gpu = (sum(of["gpu"]) + sum(of["fetch"])) / gpu.adam_params_per_s
        return self.passes_s + max(on_cpu, fetched, on_gpu)

    def optimum(self) -> Optimum | None:
        """Simulate plans in the order of their bounds until no bound is below the fastest; None where none fits."""
        assignments: list[tuple[Side, ...]] = list(product(SIDES, repeat=len(self.subgroups)))
        assignments.sort(key=self.bound_s)
        best: Plan | None = None
        best_s, simulated = math.inf, 0
        for sides in assignments:
            if self.bound_s(sides) >= best_s:
                break
            for plan in self.plans(sides):
                simulated += 1
                seconds = self.iteration_s(plan)
                if seconds < best_s:
                    best, best_s = plan, seconds
                if seconds == math.inf:
                    break  # nor do the other orders fit: they hold the same
        if best is None:
            return None
        plans = sum(1 for sides in assignments for _ in self.plans(sides))
        return Optimum(best, best_s, plans, simulated, self.all_orders)


def _both_ways(line: list[int]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys((tuple(line), tuple(reversed(line)))))


@dataclass(frozen=True)
class Distances:
    """The optimum of a scenario, and what schedules make of the same scenario."""

    scenario: Scenario
    optimum: Optimum
    entries: tuple[Entry, ...]
    """Schedules that fit, the fastest first."""

    def above(self, entry: Entry) -> float:
        """By what share of the optimum a schedule's iteration is longer; negative where it is shorter."""
        assert entry.result is not None
        return entry.result.iteration_s / self.optimum.iteration_s - 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        best = self.optimum
        return {
            "scenario": self.scenario.model_dump(mode="json"),
            "optimum": {
                "iteration_s": best.iteration_s,
                "sides": list(best.plan.sides),
                "order": list(best.plan.order),
                "plans": best.plans,
                "simulated": best.simulated,
                "all_orders": best.all_orders,
            },
            "schedules": [
                {
                    "schedule": entry.schedule,
                    "iteration_s": entry.result.iteration_s,
                    "above": self.above(entry),
                    "exactness": entry.exactness,
                    "changes": list(entry.changes),
                }
                for entry in self.entries
                if entry.result is not None
            ],
        }


def distances(source: Scenario | str) -> Distances:
    """Search a scenario, and simulate every schedule that can run it."""
    scenario = load_scenario(source)
    search = Search(scenario)
    checked(scenario, search.profile)
    optimum = search.optimum()
    if optimum is None:
        raise InputError(f"{scenario.name}: no placement of the optimizer state fits in memory")
    return Distances(scenario, optimum, tuple(survey(scenario).fitting))
