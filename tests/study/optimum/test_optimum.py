"""The optimum by search: closed forms where they exist, and never slower than what the space holds."""

from __future__ import annotations

import json
from itertools import permutations, product
from math import inf

import pytest

from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.platform.platform import GPU
from offsim.scenario import load_scenario
from offsim.study.optimum.free_form import SIDES, Plan
from offsim.study.optimum.search import Search, distances
from tests import small_scenarios

FREE = {
    "h2d_bytes_per_s": 1e18,
    "d2h_bytes_per_s": 1e18,
    "duplex_bytes_per_s": 1e18,
    "copy_latency_s": 0.0,
}
CPU_RATE, SCALE_RATE, GPU_RATE = 1e3, 4e3, 1e3


def search(subgroups=4, gpu=None, link=None, host=None):
    """One rank of the small model with so many sub-groups; kernels, copies and hooks take next to nothing."""
    scenario = small_scenarios.scenario(training={"data_parallel": 1, "global_batch": 1})
    elements = sum(s.elements for s in Search(load_scenario(big(scenario))).subgroups)
    scenario["training"]["subgroup_size"] = -(-elements // subgroups)
    fast = {"matrix_flops_per_s": 1e21, "hbm_bytes_per_s": 1e21, "kernel_latency_s": 0.0}
    profile = small_scenarios.profile(
        gpu=fast | {"adam_params_per_s": 1e18} | (gpu or {}),
        host={
            "memory_bytes_per_s": 1e21,
            "adam_params_per_s": CPU_RATE,
            "scale_params_per_s": SCALE_RATE,
            "module_launch_s": 0.0,
            "subgroup_launch_s": 0.0,
            "update_start_s": 0.0,
        }
        | (host or {}),
        link=FREE | (link or {}),
    )
    found = Search(load_scenario(scenario), profile)
    assert len(found.subgroups) == subgroups
    return found


def big(scenario):
    return scenario | {"training": scenario["training"] | {"subgroup_size": 10**9}}


def without_gpu_state(found):
    """GPU memory in which everything fits but state of the optimizer."""
    sides = ("cpu",) * len(found.subgroups)
    run = found.run(Plan(sides, tuple(range(len(sides)))))
    return next(tier.memory.peak for tier in run.platform.tiers if tier.kind == GPU)


def test_with_the_cpu_alone_the_optimum_is_its_work():
    room = without_gpu_state(search())
    found = search(gpu={"memory_bytes": room + 1})
    best = found.optimum()
    work = sum(s.elements for s in found.subgroups) * (1 / CPU_RATE + 1 / SCALE_RATE)
    assert set(best.plan.sides) == {"cpu"}
    assert best.iteration_s == pytest.approx(work, rel=1e-6)


def test_with_the_link_alone_the_optimum_is_its_bytes():
    room = without_gpu_state(search())
    found = search(
        gpu={"memory_bytes": room + 1},
        host={"adam_params_per_s": 1e18, "scale_params_per_s": 1e18},
        link={"d2h_bytes_per_s": 1e3},
    )
    gradients = sum(s.elements for s in found.subgroups) * 4
    assert found.optimum().iteration_s == pytest.approx(gradients / 1e3, rel=1e-6)


def test_with_cpu_and_gpu_the_optimum_is_the_best_split():
    found = search(gpu={"adam_params_per_s": GPU_RATE})
    elements = [s.elements for s in found.subgroups]
    splits = (
        max(
            sum(n for n, on_gpu in zip(elements, chosen, strict=True) if on_gpu) / GPU_RATE,
            sum(n for n, on_gpu in zip(elements, chosen, strict=True) if not on_gpu) * (1 / CPU_RATE + 1 / SCALE_RATE),
        )
        for chosen in product((True, False), repeat=len(elements))
    )
    assert found.optimum().iteration_s == pytest.approx(min(splits), rel=1e-6)


def test_the_optimum_is_the_least_of_all_plans():
    found = search(3, link={"h2d_bytes_per_s": 2e4, "d2h_bytes_per_s": 2e4}, gpu={"adam_params_per_s": 3e3})
    every = [
        found.iteration_s(Plan(sides, order)) for sides in product(SIDES, repeat=3) for order in permutations(range(3))
    ]
    best = found.optimum()
    assert best.iteration_s == pytest.approx(min(every))
    assert best.simulated <= best.plans <= len(every)


def test_no_plan_beats_the_bound_of_its_sides():
    found = search(3, link={"h2d_bytes_per_s": 2e4, "d2h_bytes_per_s": 2e4}, gpu={"adam_params_per_s": 3e3})
    for sides in product(SIDES, repeat=3):
        assert min(map(found.iteration_s, found.plans(sides))) >= found.bound_s(sides) * (1 - 1e-9)


def test_memory_bounds_what_is_resident():
    found = search()
    room = without_gpu_state(found)
    largest = max(s.elements for s in found.subgroups)
    one = search(gpu={"memory_bytes": room + 17 * largest}, link={"h2d_bytes_per_s": 1e3})
    plan = one.optimum().plan
    assert len(plan.on("gpu")) == 1
    assert one.iteration_s(Plan(("gpu",) * 4, (0, 1, 2, 3))) == inf


def test_schedules_of_the_space_are_not_below_the_optimum():
    found = distances(load_scenario("zero3_3b_rtx4090", ["training.subgroup_size=1e9"]))
    above = {entry.schedule: found.above(entry) for entry in found.entries}
    for schedule in ("zero3_offload", "zero3_offload_async_grads", "zero2_offload"):
        assert above[schedule] >= 0


def test_too_many_sub_groups_are_one_message():
    with pytest.raises(InputError, match=r"expected at most 8; training\.subgroup_size="):
        distances("zero3_3b_rtx4090")
    with pytest.raises(InputError, match="found host, expected gpu"):
        distances(load_scenario("zero3_3b_rtx4090", ["placement.parameters=host"]))


def test_the_command_prints_distances(capsys, tmp_path):
    document = tmp_path / "optimum.json"
    arguments = ["optimum", "zero3_3b_rtx4090", "--set", "training.subgroup_size=2e9", "--json", str(document)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "all orders" in text
    written = json.loads(document.read_bytes())
    assert len(written["optimum"]["sides"]) <= 4
    assert {row["schedule"] for row in written["schedules"]} > {"zero3_offload", "fsdp_offload"}
