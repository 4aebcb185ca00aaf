"""Every registered schedule, under each of its options and placements."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import conformance
import pytest
from conformance import Case, Facts, cases, facts

from offsim.platform.platform import GPU
from offsim.schedulers import available_schedulers

Bytes = dict[str, float]

# Bytes of a rank on each route in an iteration, from what the real systems' code does. P: parameters that the rank
# owns; C: those whose optimizer state is not on the GPU; N: micro-steps.


def parameters_and_activations(known: Facts) -> Bytes:
    """Parameters that live elsewhere are copied before each pass; activations leave in forward and come back."""
    places, activations = known.placed, known.activations() if known.placed.activations != GPU else 0.0
    fetched = 2 * known.fetched() if places.parameters != GPU else 0.0
    return {"h2d": fetched + activations, "d2h": activations}


def upload(known: Facts) -> float:
    """bf16 parameters that the CPU has updated, unless it casts them straight into host memory."""
    return 2 * known.off_gpu if known.placed.parameters == GPU else 0.0


def accumulation(known: Facts) -> float:
    """Each way, in each micro-step: D2H and H2D at the first, H2D, an addition and D2H at the others."""
    return 2 * known.owned * known.micro_steps


def no_offload(known: Facts) -> Bytes:
    return {}


def zero3_offload(known: Facts) -> Bytes:
    flush = 2 if known.options.gradient_flush == "host_cast" else 4
    stored = 0.0 if known.placed.parameters == GPU else 2 * known.on(GPU)  # what the GPU updates
    return {
        "h2d": accumulation(known) + upload(known),
        "d2h": accumulation(known) + flush * known.off_gpu + stored,
    }


def zero3_offload_async_grads(known: Facts) -> Bytes:
    stored = 0.0 if known.placed.parameters == GPU else 2 * known.on(GPU)
    return {"h2d": accumulation(known) + upload(known), "d2h": accumulation(known) + 4 * known.off_gpu + stored}


def deep_optimizer_states(known: Facts) -> Bytes:
    """The last of each `update_stride` sub-groups is updated on the GPU: p, m, v up and down, gradients stay there."""
    groups = zip(known.workload.subgroups, known.placed.optimizer, strict=True)
    stride = known.options.update_stride
    fetched = sum(s.elements for s, tier in groups if tier != GPU and (s.index + 1) % stride == 0)
    on_cpu = known.off_gpu - fetched
    return {
        "h2d": accumulation(known) + 12 * fetched + 2 * on_cpu,
        "d2h": accumulation(known) + 12 * fetched + 4 * on_cpu,
    }


def zero2_offload(known: Facts) -> Bytes:
    """A rank's contiguous partition; with accumulation in stage 2, D2H 2 at the first micro-step, H2D 2 + D2H 2 later."""
    training = known.workload.training
    up = 2 if getattr(known.options, "upload", "cast_on_cpu") == "cast_on_cpu" else 4
    accumulates = training.zero_stage == 2 and known.micro_steps > 1
    down = 2 * known.micro_steps if accumulates else 0
    back = 2 * (known.micro_steps - 1) if accumulates else 0
    return {"h2d": (back + up) * known.owned, "d2h": (down + 4) * known.owned}


def zero_infinity(known: Facts) -> Bytes:
    """fp32 gradients by way of host memory to storage in backward; the update reads 16 and writes 12."""
    stored, in_memory = known.on("storage"), known.on("memory")
    flush = 2 if known.options.gradient_flush == "host_cast" else 4
    moved = {
        "h2d": accumulation(known) + upload(known),
        "d2h": accumulation(known) + 4 * stored + flush * in_memory,
        "nvme read": 16.0 * stored,
        "nvme write": 4.0 * stored + 12.0 * stored,
    }
    if known.placed.parameters == "nvme":  # without parameters cached in host memory
        moved["nvme read"] += 2 * known.fetched()
        moved["nvme write"] += 2 * known.owned
    return moved


def mlp_offload(known: Facts) -> Bytes:
    """p, m and v on two paths, but for the last that each path keeps in its buffers; 4 B a parameter up."""
    moved = {"h2d": accumulation(known) + 4 * known.off_gpu, "d2h": accumulation(known)}
    per_path = known.options.buffer_count // 2
    for tier in sorted(set(known.placed.optimizer)):
        groups = [s for s, at in zip(known.workload.subgroups, known.placed.optimizer, strict=True) if at == tier]
        kept = min(per_path // 3, len(groups))
        # Up and down in turn: one pass finds the first in its buffers, the other the last.
        hits = sum(s.elements for s in [*groups[:kept], *groups[len(groups) - kept :]]) / 2
        passed = 12 * (sum(s.elements for s in groups) - hits)
        moved |= {f"{tier} read": passed, f"{tier} write": passed}
    return moved


CLOSED_FORMS: dict[str, Callable[[Facts], Bytes]] = {
    form.__name__: form
    for form in (
        no_offload,
        zero3_offload,
        zero3_offload_async_grads,
        deep_optimizer_states,
        zero2_offload,
        zero_infinity,
        mlp_offload,
    )
}


def expected(case: Case, known: Facts) -> Bytes:
    form = CLOSED_FORMS.get(case.schedule)
    if form is None:
        pytest.fail(f"no closed form of the bytes that {case.schedule} moves: add a function of its name to this file")
    total: dict[str, float] = dict(form(known))
    for route, nbytes in parameters_and_activations(known).items():
        total[route] = total.get(route, 0.0) + nbytes
    return total


ALL = [case for name in available_schedulers() for case in cases(name)]
PLAIN = [cases(name)[0] for name in available_schedulers()]


@pytest.mark.parametrize("name", available_schedulers())
def test_every_schedule_has_a_closed_form(name: str) -> None:
    assert name in CLOSED_FORMS, f"no closed form of the bytes that {name} moves: add a function of its name"


@pytest.mark.parametrize("case", ALL, ids=str)
def test_bytes_memory_order_and_bounds(case: Case) -> None:
    known = facts(case)
    result = case.simulate()
    assert result.fits
    conformance.check_bytes(result, expected(case, known))
    conformance.check_placement(result, known)
    conformance.check_memory(result.run)
    conformance.check_order(result.run)
    conformance.check_bounds(result.run)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_parameters_are_never_older_than_the_lag(case: Case) -> None:
    conformance.check_versions(case)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_iterations_repeat(case: Case) -> None:
    conformance.check_repeats(case)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_one_rank_stands_for_all(case: Case) -> None:
    conformance.check_one_for_all(case)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_with_ample_resources_the_longest_chain_is_the_iteration(case: Case) -> None:
    conformance.check_longest_chain(case)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_ranks_on_one_link_take_their_number_times_as_long(case: Case) -> None:
    conformance.check_ranks_on_one_link(case)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_each_resource_alone_takes_the_sum_of_its_work(case: Case) -> None:
    bytes_moved: Mapping[str, float] = expected(case, facts(case))
    conformance.check_link_alone(case, bytes_moved)
    conformance.check_storage_alone(case, bytes_moved)
    conformance.check_cpu_alone(case)


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_small_pools_are_no_deadlock(case: Case, slots: int) -> None:
    conformance.check_small_pools(case, slots)
