"""Schedulers: one file each, and the registry that third parties join by an entry point."""

from offsim.schedulers.base import OffloadOptions, Options, Scheduler
from offsim.schedulers.registry import (
    available_schedulers,
    find_scheduler,
    make_scheduler,
    scenario_scheduler,
    with_scheduler,
)

__all__ = [
    "OffloadOptions",
    "Options",
    "Scheduler",
    "available_schedulers",
    "find_scheduler",
    "make_scheduler",
    "scenario_scheduler",
    "with_scheduler",
]
