"""Checks of the conformance suite show what they compared; the code of our own schedules is watched, as that of others."""

import pytest

pytest.register_assert_rewrite("conformance")

from offsim.programs.driven import watch
from offsim.programs.schedule import TrainingSchedule
from offsim.schedulers import available_schedulers, find_scheduler

for cls in {cls for name in available_schedulers() for cls in find_scheduler(name).__mro__}:
    if issubclass(cls, TrainingSchedule) and cls is not TrainingSchedule:
        watch(cls)
