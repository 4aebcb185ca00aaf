"""What packages test their schedules with: ours pass, and mistakes that one run does not show are found."""

from __future__ import annotations

import pytest

from offsim.engine import Code
from offsim.programs.rank import Rank
from offsim.schedulers import available_schedulers, find_scheduler
from offsim.schedulers.no_offload import NoOffload
from offsim.testing import check_scheduler

SOME = ["deep_optimizer_states", "lohan", "zenflow", "zo2"]


@pytest.mark.parametrize("name", SOME)
def test_our_own_schedules_hold(name: str) -> None:
    assert name in available_schedulers()
    check_scheduler(find_scheduler(name))


class Leaking(NoOffload):
    """Keeps something of each iteration."""

    name = "leaking"

    def update(self, rank: Rank) -> Code:
        rank.host_memory.allocate("forgotten", 1e6)
        yield from super().update(rank)


class OfSize(NoOffload):
    """Fails where there are several ranks."""

    name = "of_size"

    def update(self, rank: Rank) -> Code:
        assert self.workload.training.data_parallel > 1, "one rank"
        yield from super().update(rank)


def test_memory_that_is_not_given_back() -> None:
    with pytest.raises(AssertionError, match=r"^with leaking: host holds \d+ B of 'forgotten' after a period, "):
        check_scheduler(Leaking)


def test_what_fails_in_one_of_the_cases_is_named_with_it() -> None:
    where = r"test_testing.py:\d+: scheduler of_size, update of iteration 1"
    match = rf"^with of_size data_parallel=1 .*{where}, .*: AssertionError: one rank"
    with pytest.raises(AssertionError, match=match):
        check_scheduler(OfSize)
