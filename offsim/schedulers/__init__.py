"""Schedulers: one file each, and the registry that third parties join by an entry point."""

from offsim.schedulers.base import OffloadOptions, Scheduler, SchedulerOptions
from offsim.schedulers.registry import (
    available_schedulers,
    find_scheduler,
    register,
    scenario_scheduler,
    with_scheduler,
)

__all__ = [
    "OffloadOptions",
    "Scheduler",
    "SchedulerOptions",
    "available_schedulers",
    "find_scheduler",
    "register",
    "scenario_scheduler",
    "with_scheduler",
]
