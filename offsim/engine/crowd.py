"""Many operations that one bottleneck holds back, all at the same fraction of their full speed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from heapq import heappop, heappush
from math import inf
from operator import sub
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offsim.engine.operation import Operation
    from offsim.engine.sharing import Resource

Change = tuple[float, float, "Resource | None"]
"""(time, fraction of full speed from then on, bottleneck)."""
_ROUNDING = 1e-9
"""Goals that differ by less, relative to them, may be one."""


class Member:
    """An operation's stay in a crowd."""

    __slots__ = ("crowd", "followed", "joined")

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.joined = self.followed = len(crowd.changes) - 1
        """The crowd's last change when it joined, and the last that what remains of the operation accounts for."""


class Crowd:
    """Counts the work that each of its operations does, in seconds at full speed; one ends when that is its goal.

    So a change of speed touches none of them but those that end next. When they end is worked out from their own work,
    change by change: counts that began at different times differ in rounding, and ranks that do the same would no
    longer do it at the same instant.
    """

    __slots__ = ("_done", "_goals", "_joined", "_next", "_size", "_worked", "changes", "fraction", "resource")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.fraction = 0.0
        self.changes: list[Change] = []
        """Of the fraction, as long as there is the crowd."""
        self._worked: list[float] = []
        """From each change to the next."""
        self._done = 0.0
        """The count at the last change."""
        self._size = 0
        self._joined = 0
        self._goals: list[tuple[float, int, Operation, Member]] = []
        """A heap of goals in the order in which operations joined; void where they have ended or left."""
        self._next: list[Operation] = []
        """Those that end next."""

    def settle(self, joining: Iterable[Operation], fraction: float, now: float) -> list[Operation]:
        """Let operations join, and all go on at this fraction; returns those that end next, in order."""
        change, changes = (now, fraction, self.resource), self.changes
        if fraction != self.fraction:
            if changes:
                self._worked.append((now - changes[-1][0]) * self.fraction)
                self._done += self._worked[-1]
            changes.append(change)
            self.fraction = fraction
        done = self._done + (now - changes[-1][0]) * fraction
        for operation in joining:
            if operation.fraction != fraction:
                operation.change_speed(change)
            operation.ends_at = inf
            operation.member = member = Member(self)
            goal = done + operation.remaining - (now - operation.updated_at) * fraction
            self._size += 1
            self._joined += 1
            heappush(self._goals, (goal, self._joined, operation, member))
        for operation in self._next:
            if operation.member is not None and operation.member.crowd is self:
                operation.ends_at = inf
        self._next = self._earliest()
        return self._next

    def follow(self, operation: Operation, member: Member) -> None:
        """Bring the operation's work up to the last change."""
        last, followed = len(self.changes) - 1, member.followed
        if followed < last:
            first = (self.changes[followed + 1][0] - operation.updated_at) * operation.fraction
            operation.remaining = reduce(sub, self._worked[followed + 1 : last], operation.remaining - first)
            operation.updated_at, operation.fraction, _ = self.changes[last]
            member.followed = last

    def lose(self) -> None:
        """Go on with one operation less."""
        self._size -= 1
        if self._size == 0:
            self._goals.clear()
            self._next = []
            self.fraction = self._done = 0.0

    def _earliest(self) -> list[Operation]:
        """Those that end next, among those whose goals are the next but for rounding: at the top of the heap."""
        goals = self._goals
        while not _valid(goals[0]):
            heappop(goals)
        places, limit = [0], goals[0][0] * (1.0 + _ROUNDING)
        for place in places:  # grows
            under = 2 * place + 1
            if under < len(goals) and goals[under][0] <= limit:
                places.append(under)
            if under + 1 < len(goals) and goals[under + 1][0] <= limit:
                places.append(under + 1)
        if len(places) > 1:
            places.sort(key=lambda place: goals[place][1])
        earliest, found = inf, []
        for place in places:
            _, _, operation, member = goals[place]
            if _valid(goals[place]):
                self.follow(operation, member)
                ends_at = operation.updated_at + max(operation.remaining, 0.0) / self.fraction
                if ends_at < earliest:
                    earliest, found = ends_at, [operation]
                elif ends_at == earliest:
                    found.append(operation)
        for operation in found:
            operation.ends_at = earliest
        return found


def _valid(goal: tuple[float, int, Operation, Member]) -> bool:
    _, _, operation, member = goal
    return operation.member is member and operation.ended_at < 0.0
