"""One model of contention: what runs at once shares resources by max-min fairness with caps.

An operation at full speed (fraction 1) asks a rate of each of its resources. Fractions grow together until
a resource is full; operations on it stop there, the others grow on (progressive filling; Bertsekas and
Gallager, Data Networks, section 6.5.2; the fluid model of SimGrid). Fairness is in the fraction of an
operation's own full speed, which is dimensionless, so bytes of a copy and parameters of an Adam step compare.
Fractions are recomputed once for each instant at which operations start or end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush
from math import inf

from offsim.engine.crowd import Crowd
from offsim.engine.operation import Operation

TOLERANCE = 1e-9
"""Demands that exceed a capacity by less, relative to it, do so by rounding."""
_MANY = 16
"""Operations of a crowd, at least; changing the speed of fewer one by one is faster."""


class Resource:
    """A capacity per second (bytes, cores, a GPU) that running operations share."""

    __slots__ = ("asked", "capacity", "crowded", "left", "limit", "load", "name", "running", "unsettled")

    def __init__(self, name: str, capacity: float) -> None:
        if not capacity > 0:
            raise ValueError(f"{name}: capacity(={capacity}) must be > 0")
        self.name = name
        self.capacity = capacity
        self.limit = capacity * (1.0 + TOLERANCE)
        self.load = 0.0
        """What the running operations ask at full speed; contended where it exceeds `limit`."""
        self.running: dict[Operation, float] = {}
        self.crowded = False
        """Whether those that run are a crowd: they are many, and use no other contended resource."""
        # While fractions are computed: operations without one yet, what they ask, and what the others leave them.
        self.unsettled = 0
        self.asked = 0.0
        self.left = 0.0

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.capacity:g})"


class Sharing:
    """Runs operations at the speeds that their resources allow, and knows when they end."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, int, Operation]] = []
        """A heap of the next ends in the order in which they were noted; void where the operation's own has moved."""
        self.noted = 0
        """How many ends have been noted so far."""
        self.changed: dict[Resource, None] = {}
        """Resources contended before or after a start or an end at this instant: `share` at the end of it."""
        self._started: list[Operation] = []
        """What has started at this instant and not yet been given its share."""
        self._crowds: dict[Resource, Crowd] = {}

    def start(self, operation: Operation, now: float) -> None:
        """Begin work; the rates that it asks must be > 0."""
        operation.started_at = operation.updated_at = now
        contended = 0
        for resource, rate in operation.usage:
            resource.running[operation] = rate
            resource.load = load = resource.load + rate
            if load > resource.limit:
                contended += 1
                self.changed[resource] = None
        if contended:
            operation.fraction = 0.0
            self._started.append(operation)
            if contended > 1:
                for resource, _ in operation.usage:
                    resource.crowded = False
        else:
            operation.ends_at = now + operation.remaining
            self._note(operation)

    def next_end(self) -> float:
        """When the next operation ends."""
        ends = self.ends
        while ends:
            ends_at, _, operation = ends[0]
            if ends_at == operation.ends_at:
                return ends_at
            heappop(ends)
        return inf

    def end(self, operation: Operation, now: float) -> None:
        """Account for the end of work, at this instant."""
        operation.ends_at = inf
        operation.ended_at = now
        operation.remaining = 0.0
        if operation.member is not None:
            operation.member.crowd.lose()
        for resource, rate in operation.usage:
            running = resource.running
            del running[operation]
            if resource.load > resource.limit:
                self.changed[resource] = None
                resource.load = sum(running.values())  # differences of large sums would keep their rounding
                resource.crowded = resource.crowded and resource.load > resource.limit
            else:
                resource.load = resource.load - rate if running else 0.0

    def share(self, now: float) -> None:
        """Recompute the fractions of all operations coupled to changed resources through contended ones."""
        unsettled: dict[Operation, float] = {}
        crowded: list[Resource] = []
        for resource in self.changed:
            if resource.crowded:
                crowded.append(resource)
            else:
                unsettled.update(resource.running)
        self.changed.clear()
        contended: dict[Resource, None] = {}
        level, bottleneck = inf, None
        reached = list(unsettled)
        for operation in reached:  # grows
            if operation.member is not None:
                operation.leave()
            for resource, _rate in operation.usage:
                if resource.load > resource.limit and resource not in contended:
                    contended[resource] = None
                    resource.crowded = False
                    if (own := resource.capacity / resource.load) < level:
                        level, bottleneck = own, resource
                    for peer in resource.running:
                        if peer not in unsettled:
                            unsettled[peer] = 0.0
                            reached.append(peer)
        for resource in sorted(crowded, key=_first_level) if crowded else ():
            if resource.crowded:
                self._settle_crowd(resource, [o for o in self._started if o in resource.running], now)
        self._started.clear()
        if bottleneck is not None:
            if len(contended) == 1 or len(bottleneck.running) == len(unsettled):  # most often: nobody grows on
                if len(bottleneck.running) == len(unsettled):
                    unsettled.clear()
                else:
                    for operation in bottleneck.running:
                        del unsettled[operation]
                self._settle(bottleneck, bottleneck.running, level, now)
            else:
                self._fill(contended, unsettled, now)
        if unsettled:
            self._free(unsettled, now)

    def _fill(self, contended: dict[Resource, None], unsettled: dict[Operation, float], now: float) -> None:
        """Settle the operations that contended resources hold back: progressive filling."""
        for resource in contended:
            resource.unsettled = len(resource.running)
            resource.asked = resource.load
            resource.left = resource.capacity
        levels = [(resource.left / resource.asked, place, resource) for place, resource in enumerate(contended)]
        heapify(levels)
        level = 0.0
        while levels:
            noted, place, bottleneck = heappop(levels)
            if bottleneck.unsettled == 0:
                continue
            if bottleneck.asked < TOLERANCE * bottleneck.load:  # of differences of large rates rounding is left
                bottleneck.asked = sum(rate for peer, rate in bottleneck.running.items() if peer in unsettled)
            own = bottleneck.left / bottleneck.asked
            if own > noted:  # others have settled since
                heappush(levels, (own, place, bottleneck))
                continue
            level = max(level, own)  # levels never fall, but by rounding
            if level >= 1.0:
                break
            settled = [operation for operation in bottleneck.running if operation in unsettled]
            for operation in settled:
                del unsettled[operation]
                for resource, rate in operation.usage:
                    resource.unsettled -= 1
                    resource.asked -= rate
                    resource.left -= level * rate
            self._settle(bottleneck, settled, level, now)

    def _settle(self, bottleneck: Resource, operations: Collection[Operation], fraction: float, now: float) -> None:
        """Let operations go on at the fraction that their bottleneck leaves them."""
        if _MANY <= len(operations) == len(bottleneck.running) and not any(
            resource.load > resource.limit and resource is not bottleneck
            for operation in operations
            for resource, _ in operation.usage
        ):
            bottleneck.crowded = True
            self._settle_crowd(bottleneck, operations, now)
        else:
            self._slow_down(operations, fraction, bottleneck, now)

    def _settle_crowd(self, bottleneck: Resource, joining: Iterable[Operation], now: float) -> None:
        """Let operations join those that only this bottleneck holds back."""
        if bottleneck not in self._crowds:
            self._crowds[bottleneck] = Crowd(bottleneck)
        for operation in self._crowds[bottleneck].settle(joining, _first_level(bottleneck), now):
            self._note(operation)

    def _slow_down(self, operations: Iterable[Operation], fraction: float, bottleneck: Resource, now: float) -> None:
        """Let operations go on at a fraction, and note the next of their ends: then the bottleneck is shared anew."""
        change = now, fraction, bottleneck
        earliest, first = inf, []
        for operation in operations:
            if fraction != operation.fraction:
                remaining = operation.change_speed(change)
                operation.ends_at = now + remaining / fraction if remaining > 0.0 else now
            ends_at = operation.ends_at
            if ends_at < earliest:
                earliest, first = ends_at, [operation]
            elif ends_at == earliest:
                first.append(operation)
        for operation in first:
            self._note(operation)

    def _free(self, operations: Iterable[Operation], now: float) -> None:
        """Let operations go on at full speed, and note their ends."""
        change = now, 1.0, None
        for operation in operations:
            if operation.fraction != 1.0:
                remaining = operation.change_speed(change)
                operation.ends_at = now + remaining if remaining > 0.0 else now
                self._note(operation)

    def _note(self, operation: Operation) -> None:
        self.noted = noted = self.noted + 1
        heappush(self.ends, (operation.ends_at, noted, operation))


def _first_level(resource: Resource) -> float:
    """The fraction at which all of its operations fill the resource."""
    return resource.capacity / resource.load
