"""What became of a run's operations, as lists by their numbers: much quicker to go through than the operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from offsim.engine.crowd import Change
from offsim.engine.operation import Operation

NOTHING = -1
"""In place of the number of an operation."""


class Course(NamedTuple):
    """Operations, and with them the ends of threads that they waited for."""

    operations: Sequence[Operation]
    """Those of a tape have their times only once the run's `operations` have been asked for."""
    order: list[int]
    """Those that have ended, but for ends of threads, in the order in which they have."""
    place: list[int]
    """In the order in which they were enqueued."""
    started: list[float]
    ended: list[float]
    waited_for: list[int]
    changes: Callable[[int], list[Change] | None]


def course_of(run: Iterable[Operation]) -> Course:
    """The course of operations that the engine has run."""
    operations = list(run)
    ended = [number for number, operation in enumerate(operations) if operation.done]
    numbers: dict[Operation | None, int] = {operation: number for number, operation in enumerate(operations)}
    for operation in operations:  # grows
        before = operation.waited_for
        if before is not None and before not in numbers:
            numbers[before] = len(operations)
            operations.append(before)
    numbers[None] = NOTHING
    return Course(
        operations,
        sorted(ended, key=lambda number: operations[number].ended_at),
        [o.index for o in operations],
        [o.started_at for o in operations],
        [o.ended_at for o in operations],
        [numbers[o.waited_for] for o in operations],
        lambda number: operations[number].slowdowns,
    )
