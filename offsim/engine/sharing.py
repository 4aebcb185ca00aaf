"""One model of contention: what runs at once shares resources by max-min fairness with caps.

An operation at full speed (fraction 1) asks a rate of each of its resources. Fractions grow together until
a resource is full; operations on it stop there, the others grow on (progressive filling; Bertsekas and
Gallager, Data Networks, section 6.5.2; the fluid model of SimGrid). Fairness is in the fraction of an
operation's own full speed, which is dimensionless, so bytes of a copy and parameters of an Adam step compare.
Fractions are recomputed once for each instant at which operations start or end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simpy import Environment
from simpy.events import NORMAL, Event, EventPriority

from offsim.engine.operation import Operation

_TOLERANCE = 1e-9
"""Demands that exceed a capacity by less, relative to it, do so by rounding."""

AFTER_ALL_ELSE = EventPriority(NORMAL + 1)


class Resource:
    """A capacity per second (bytes, cores, a GPU) that running operations share."""

    __slots__ = ("asked", "capacity", "left", "limit", "load", "name", "running", "unsettled")

    def __init__(self, name: str, capacity: float) -> None:
        if not capacity > 0:
            raise ValueError(f"{name}: capacity(={capacity}) must be > 0")
        self.name = name
        self.capacity = capacity
        self.limit = capacity * (1.0 + _TOLERANCE)
        self.load = 0.0
        """What the running operations ask at full speed; contended where it exceeds `limit`."""
        self.running: dict[Operation, float] = {}
        # While fractions are computed: operations without one yet, what they ask, and what the others leave them.
        self.unsettled = 0
        self.asked = 0.0
        self.left = 0.0

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.capacity:g})"


class Timer(Event):
    """Calls back after a delay, about an operation or about none."""

    def __init__(
        self,
        env: Environment,
        callback: Callable[[Any], None],
        delay: float = 0.0,
        operation: Any = None,
        priority: EventPriority = NORMAL,
    ) -> None:
        self.env = env
        self.callbacks = [callback]
        self._value = None
        self._ok = True
        self.operation = operation
        env.schedule(self, priority, delay)


class Sharing:
    """Runs operations at the speeds that their resources allow and calls `finish` when one ends."""

    def __init__(self, env: Environment, finish: Callable[[Operation], None]) -> None:
        self.env = env
        self._finish = finish
        self._changed: dict[Resource, None] = {}
        """Resources contended before or after a start or an end at this instant."""
        self._sharing = False
        """Whether fractions will be recomputed at the end of this instant."""

    def start(self, operation: Operation) -> None:
        """Begin work; the rates that it asks must be > 0."""
        operation.started_at = operation.updated_at = self.env.now
        contended = False
        for resource, rate in operation.usage:
            resource.running[operation] = rate
            resource.load += rate
            if resource.load > resource.limit:
                contended = True
                self._changed[resource] = None
        if contended:
            self._share_soon()
            operation.fraction = 0.0  # until the end of this instant
        else:
            operation.timer = Timer(self.env, self._end, operation.remaining, operation)

    def _end(self, timer: Timer) -> None:
        operation: Operation = timer.operation
        operation.timer = None
        operation.ended_at = self.env.now
        for resource, rate in operation.usage:
            del resource.running[operation]
            if resource.load > resource.limit:
                self._changed[resource] = None
                resource.load = sum(resource.running.values())  # differences of large sums would keep their rounding
            else:
                resource.load = resource.load - rate if resource.running else 0.0
        if self._changed:
            self._share_soon()
        self._finish(operation)

    def _share_soon(self) -> None:
        """At the end of this instant, once."""
        if not self._sharing:
            self._sharing = True
            Timer(self.env, self._share, priority=AFTER_ALL_ELSE)

    def _share(self, _: Timer) -> None:
        """Recompute the fractions of all operations coupled to changed resources through contended ones."""
        self._sharing = False
        unsettled: dict[Operation, None] = {}
        for resource in self._changed:
            unsettled.update(dict.fromkeys(resource.running))
        self._changed.clear()
        contended: dict[Resource, None] = {}
        reached = list(unsettled)
        for operation in reached:  # grows
            for resource, _rate in operation.usage:
                if resource.load > resource.limit and resource not in contended:
                    contended[resource] = None
                    resource.unsettled = len(resource.running)
                    resource.asked = resource.load
                    resource.left = resource.capacity
                    for peer in resource.running:
                        if peer not in unsettled:
                            unsettled[peer] = None
                            reached.append(peer)
        level = 0.0
        while contended:
            bottleneck = min(contended, key=_level) if len(contended) > 1 else next(iter(contended))
            level = max(level, _level(bottleneck))  # levels never fall, but by rounding
            if level >= 1.0:
                break
            for operation in bottleneck.running:
                if operation in unsettled:
                    del unsettled[operation]
                    for resource, rate in operation.usage:
                        resource.unsettled -= 1
                        resource.asked -= rate
                        resource.left -= level * rate
                    self._set_fraction(operation, level, bottleneck)
            for resource in list(contended):
                if resource.unsettled == 0:
                    del contended[resource]
                elif resource.asked < _TOLERANCE * resource.load:  # of differences of large rates rounding is left
                    resource.asked = sum(rate for peer, rate in resource.running.items() if peer in unsettled)
        for operation in unsettled:
            self._set_fraction(operation, 1.0, None)

    def _set_fraction(self, operation: Operation, fraction: float, bottleneck: Resource | None) -> None:
        if fraction == operation.fraction:
            return
        now = self.env.now
        if operation.timer is not None:
            operation.timer.callbacks.clear()  # it still goes off, but calls nobody
        operation.remaining -= (now - operation.updated_at) * operation.fraction
        operation.updated_at = now
        operation.fraction = fraction
        if operation.slowdowns is not None:
            operation.slowdowns.append((now, fraction, bottleneck))
        elif fraction < 1.0:
            operation.slowdowns = [(now, fraction, bottleneck)]
        operation.timer = Timer(self.env, self._end, max(operation.remaining, 0.0) / fraction, operation)


def _level(resource: Resource) -> float:
    """The fraction at which the operations without one yet fill the resource."""
    return resource.left / resource.asked
