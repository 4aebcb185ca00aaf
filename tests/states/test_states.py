"""Blocks and their age, pools and caches, and which tier each sub-group's state is in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_scenarios import TIERS, profile, scenario

from offsim import InputError, simulate
from offsim.engine import Engine, Operation, Stream, Tier
from offsim.scenario import load_scenario
from offsim.states.block import Block, StaleState
from offsim.states.placement import Placement, shares_of, tiers_of
from offsim.states.pool import FurthestNextUse, LastKept, Pool, pinned_bytes

# Blocks


@pytest.mark.parametrize(("version", "iteration", "lag"), [(0, 1, 0), (3, 4, 0), (3, 5, 1), (4, 5, 1), (0, 4, 3)])
def test_a_block_may_be_as_old_as_the_lag(version: int, iteration: int, lag: int) -> None:
    Block("parameters", version).check(iteration, lag)


@pytest.mark.parametrize(("version", "iteration", "lag"), [(0, 2, 0), (2, 5, 1), (-1, 1, 0)])
def test_an_older_block_is_an_error(version: int, iteration: int, lag: int) -> None:
    with pytest.raises(
        StaleState, match=rf"iteration {iteration} reads parameters .* of iteration {version} left them"
    ):
        Block("parameters", version).check(iteration, lag)


def test_writing_makes_a_block_new() -> None:
    block, copy = Block("parameters"), Operation(Stream("upload"), "h2d", "upload", 1.0)
    block.write(7, copy)
    block.check(8, 0)
    assert block.since is copy


# Pools and caches


def test_a_pool_takes_the_memory_of_its_buffers_for_good() -> None:
    engine = Engine()
    host = Tier(engine.env, "host", 1000.0)
    pool = Pool(host, "swap buffers", 4, 100.0)
    assert host.occupants == {"swap buffers": 400.0}
    read = Operation(Stream("read"), "read", "read", 1.0, allocates=pool.buffers(3))
    engine.enqueue(read)
    assert (pool.state().used, pool.free) == (3, 1)
    waiting = engine.enqueue(Operation(Stream("other"), "read", "read", 1.0, allocates=pool.buffers(2)))
    assert pool.free == 0  # the one left is asked for
    engine.enqueue(Operation(Stream("write"), "write", "write", 1.0, frees=pool.buffers(3)), [read])
    engine.env.run()
    assert (waiting.started_at, pool.state().used, pool.free) == (2.0, 2, 2)
    assert host.used == 400.0
    assert pool.buffers(0) == ()


@given(st.integers(0, 4), st.lists(st.integers(0, 6), max_size=30))
def test_a_cache_keeps_the_keys_used_last(slots: int, used: list[int]) -> None:
    cache = LastKept(slots)
    for key in used:
        cache.use(key)
    last = list(dict.fromkeys(reversed(used)))[:slots]
    assert cache.state() == last[::-1]
    assert all((key in cache) == (key in last) for key in range(7))


def test_a_pass_in_reverse_finds_the_last_keys_in_the_cache() -> None:
    cache = LastKept(3)
    found = []
    for order in (range(10), reversed(range(10)), range(10)):
        hits = []
        kept = set(cache.state())
        for key in order:
            hits += [key] if key in kept else []
            cache.use(key)
        found.append(hits)
    assert found == [[], [9, 8, 7], [0, 1, 2]]


def misses(cache: FurthestNextUse, uses: list[int]) -> int:
    missed = 0
    for key in uses:
        missed += key not in cache
        cache.use(key)
    return missed


def fewest_misses(slots: int, uses: list[int]) -> int:
    """Of all that may be given up at each miss."""
    costs: dict[frozenset[int], int] = {frozenset(): 0}
    for key in uses:
        following: dict[frozenset[int], int] = {}
        for kept, missed in costs.items():
            for gone in [None] if key in kept or len(kept) < slots else kept:
                then = (kept - {gone}) | {key}
                following[then] = min(following.get(then, len(uses)), missed + (key not in kept))
        costs = following
    return min(costs.values())


@given(st.integers(1, 4), st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 3))
def test_no_rule_misses_less_than_the_furthest_next_use(slots: int, uses: list[int], rounds: int) -> None:
    assert misses(FurthestNextUse(slots, uses), uses * rounds) == fewest_misses(slots, uses * rounds)


def test_the_furthest_next_use_misses_less_than_the_last_kept() -> None:
    """Where all keys come again in the same order, a cache of those used last never has the next one."""
    uses = list(range(5)) * 4
    last, found = LastKept(3), 0
    for key in uses:
        found += key in last
        last.use(key)
    assert found == 0
    assert misses(FurthestNextUse(3, list(range(5))), uses) < len(uses) - 5


def test_a_dropped_key_is_a_miss_and_leaves_room() -> None:
    cache = FurthestNextUse(2, [0, 1, 2])
    assert [cache.use(0), cache.use(1)] == [None, None]
    cache.drop(0)
    assert 0 not in cache
    assert cache.use(2) is None
    assert cache.state() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"key\(=1\) must be 0"):
        cache.use(1)
    with pytest.raises(ValueError, match=r"slots\(=0\) must be >= 1"):
        FurthestNextUse(0, [0])


@pytest.mark.parametrize(("asked", "taken"), [(0, 0), (1, 1), (2, 2), (3, 4), (2**30, 2**30), (2**30 + 1, 2**31)])
def test_pinned_buffers_are_powers_of_two(asked: float, taken: float) -> None:
    assert pinned_bytes(asked) == taken


# Placement


@pytest.mark.parametrize(
    ("shares", "count", "tiers"),
    [
        ([("host", "rest")], 3, "hhh"),
        ([("host", 1.0), ("gpu", "rest")], 3, "hhh"),
        ([("host", 0.5), ("gpu", "rest")], 5, "hhggg"),
        ([("host", 0.55), ("gpu", "rest")], 5, "hhggg"),  # of 2.75, as DeepSpeed's TwinFlow
        ([("host", 0.0), ("gpu", "rest")], 2, "gg"),
        ([("gpu", 0.2), ("host", 0.3), ("nvme", "rest")], 10, "gghhhnnnnn"),
        ([("gpu", 0.34), ("host", 0.66)], 3, "ghh"),
    ],
)
def test_shares_go_to_sub_groups_in_order(shares: list[tuple[str, Any]], count: int, tiers: str) -> None:
    assert "".join(tier[0] for tier in tiers_of(shares, count)) == tiers


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(1, 50))
def test_every_sub_group_has_one_tier(weights: list[float], count: int) -> None:
    total = sum(weights) or 1.0
    shares: list[tuple[str, Any]] = [(f"tier {i}", weight / total) for i, weight in enumerate(weights[:-1])]
    tiers = tiers_of([*shares, ("last", "rest")], count)
    assert len(tiers) == count
    assert list(tiers) == sorted(tiers, key=[*(name for name, _ in shares), "last"].index)
    for name, share in shares:
        assert abs(tiers.count(name) - share * count) <= 1 + 1e-9


@given(st.lists(st.sampled_from(["gpu", "host", "nvme"]), min_size=1, max_size=300))
def test_shares_of_tiers_make_these_tiers(tiers: list[str]) -> None:
    shares = Placement(optimizer=shares_of(tiers)).optimizer
    assert shares is not None
    assert [*tiers_of([(one.tier, one.share) for one in shares], len(tiers))] == tiers


def placed(placement: dict[str, Any], scheduler: str = "zero3_offload") -> dict[str, Any]:
    return {**scenario(scheduler), "placement": placement}


@pytest.mark.parametrize(
    ("placement", "problem"),
    [
        ({"optimizer": "nvm"}, "profile 'made-up' has no tier 'nvm'; did you mean 'nvme'?"),
        ({"optimizer": "nvme"}, "zero3_offload keeps optimizer in gpu or memory tiers (gpu, host, cxl), found nvme"),
        ({"parameters": "pfs"}, "zero3_offload keeps parameters in gpu or memory tiers (gpu, host, cxl), found pfs"),
        ({"activations": {"tier": "nvme"}}, "zero3_offload keeps activations in gpu or memory tiers"),
    ],
)
def test_tiers_that_cannot_be_are_refused(placement: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        simulate(placed(placement), profile=profile(tiers=TIERS))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("placement", "problem"),
    [
        ({"optimizer": "host"}, "zo2 has no optimizer state to place, found host"),
        ({"activations": {"tier": "host"}}, "zo2 keeps activations in gpu tiers (gpu), found host (memory)"),
    ],
)
def test_states_that_a_schedule_does_not_have_are_not_placed(placement: dict[str, Any], problem: str) -> None:
    source = {**scenario("zo2", training={"zero_stage": 0}), "placement": placement}
    with pytest.raises(InputError) as caught:
        simulate(source, profile=profile(tiers=TIERS))
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("optimizer", "problem"),
    [
        ([], "tiers with shares, 'rest' as the last one"),
        ([{"tier": "gpu"}, {"tier": "host"}], "tiers with shares, 'rest' as the last one"),
        (
            [{"tier": "gpu", "share": 0.7}, {"tier": "host", "share": 0.7}],
            "shares between 0 and 1 that add up to at most 1",
        ),
        ([{"tier": "gpu", "share": -0.1}, {"tier": "host"}], "shares between 0 and 1"),
        ([{"tier": "gpu", "share": 0.5}], "shares that add up to 1, or 'rest' as the last one"),
    ],
)
def test_shares_that_do_not_add_up_are_refused(optimizer: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario(placed({"optimizer": optimizer}))
    assert problem in str(caught.value)
    assert "placement.optimizer" in str(caught.value)


def test_one_tier_for_all_is_short_for_the_rest() -> None:
    short, long = (load_scenario(placed({"optimizer": given})) for given in ("host", [{"tier": "host"}]))
    assert short.placement == long.placement


def test_a_share_on_the_gpu_is_what_cpu_ratio_says() -> None:
    """TwinFlow's option and a placement are two ways to say the same."""
    ratio = scenario({"name": "zero3_offload", "cpu_ratio": 0.6})
    share = placed({"optimizer": [{"tier": "host", "share": 0.6}, {"tier": "gpu"}]})
    one, other = (simulate(source, profile=profile()) for source in (ratio, share))
    assert one.durations == other.durations
    assert one.gpu_peak_bytes == other.gpu_peak_bytes
