"""Which schedules update before all gradients are there is as they say."""

from __future__ import annotations

import pytest
from conformance import Case, last, node

from offsim.schedulers.registry import BUILT_IN, find_scheduler

TRAINING = [name for name, cls in BUILT_IN.items() if cls.program == "training"]
OPTIONS = {"superoffload": [{}, {"gradient_clipping": True}], "greedysnake": [{}, {"late": 1}]}


def cases() -> list[Case]:
    found = []
    for name in TRAINING:
        stage = {"zero_stage": max(find_scheduler(name).stages)}
        found += [Case(name, options, training=stage) for options in OPTIONS.get(name, [{}])]
    return found


@pytest.mark.parametrize("case", cases(), ids=str)
def test_updates_begin_in_backward_where_a_schedule_says_so(case: Case) -> None:
    run = case.simulate(node(gpu={"matrix_flops_per_s": 1e11})).run  # backward takes long
    cls = find_scheduler(case.schedule)
    options = cls.Options(**case.options)
    (backward,) = (p for p in run.phases if (p.rank, p.iteration, p.name) == (0, run.last, "backward"))

    updates = last(run, "cpu_adam", "gpu_adam", "device_adam")
    begun = min(o.started_at for o in updates if o.stream.rank == 0)
    assert (begun < backward.end) == cls.updates_early(options)
