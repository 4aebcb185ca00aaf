"""Checks of the conformance suite show what they compared; our own schedules are watched as those of others are."""

import pytest

from offsim.programs.driven import watch
from offsim.programs.schedule import TrainingSchedule
from offsim.schedulers import available_schedulers, find_scheduler

pytest.register_assert_rewrite("conformance")

for cls in {cls for name in available_schedulers() for cls in find_scheduler(name).__mro__}:
    if issubclass(cls, TrainingSchedule) and cls is not TrainingSchedule:
        watch(cls)
