"""Schedulers: one file each, and the registry that third parties join by an entry point."""

from typing import Any

from offsim.schedulers.base import OffloadOptions, OffloadSchedule, ScheduleOptions, TrainingSchedule, option
from offsim.schedulers.registry import (
    available_schedulers,
    find_scheduler,
    register,
    scenario_scheduler,
    with_scheduler,
)

__all__ = [
    "OffloadOptions",
    "OffloadSchedule",
    "ScheduleOptions",
    "TrainingSchedule",
    "available_schedulers",
    "find_scheduler",
    "option",
    "register",
    "scenario_scheduler",
    "with_scheduler",
]


def __getattr__(name: str) -> Any:
    if name in ("Scheduler", "SchedulerOptions"):
        raise ImportError(
            f"offsim.schedulers.{name} is gone: a scheduler is a subclass of TrainingSchedule now; "
            "docs/write_a_scheduler.md says what changed"
        )
    raise AttributeError(f"module 'offsim.schedulers' has no attribute '{name}'")
