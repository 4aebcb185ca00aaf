"""One model of contention: what runs at once shares resources by max-min fairness with caps.

An operation at full speed (fraction 1) asks a rate of each of its resources. Fractions grow together until
a resource is full; operations on it stop there, the others grow on (progressive filling; Bertsekas and
Gallager, Data Networks, section 6.5.2; the fluid model of SimGrid). Fairness is in the fraction of an
operation's own full speed, which is dimensionless, so bytes of a copy and parameters of an Adam step compare.
Fractions are recomputed when an operation starts or ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from simpy import Environment
from simpy.events import Event

from offsim.engine.operation import Operation

_TOLERANCE = 1.0 + 1e-9


class Resource:
    """A capacity per second (bytes, cores, a GPU) that running operations share."""

    __slots__ = ("capacity", "load", "name", "running")

    def __init__(self, name: str, capacity: float) -> None:
        if not capacity > 0:
            raise ValueError(f"{name}: capacity(={capacity}) must be > 0")
        self.name = name
        self.capacity = capacity
        self.load = 0.0
        self.running: dict[Operation, float] = {}

    @property
    def contended(self) -> bool:
        return self.load > self.capacity * _TOLERANCE

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.capacity:g})"


class FluidSharing:
    """Runs operations at the speeds that their resources allow and calls `finish` when one ends."""

    def __init__(self, env: Environment, finish: Callable[[Operation], None]) -> None:
        self.env = env
        self._finish = finish

    def start(self, operation: Operation) -> None:
        operation.started_at = operation.updated_at = self.env.now
        contended = False
        for resource, rate in operation.usage:
            resource.running[operation] = rate
            resource.load += rate
            if resource.contended:
                contended = True
        if contended:
            operation.fraction = 0.0
            self._share(resource for resource, _ in operation.usage)
        else:
            self._schedule(operation, operation.remaining)

    def _schedule(self, operation: Operation, delay: float) -> None:
        timer = self.env.timeout(delay, (operation, operation.version))
        timer.callbacks.append(self._expire)

    def _expire(self, timer: Event) -> None:
        operation, version = timer.value
        if version != operation.version:
            return  # its speed changed after this timer was set
        operation.ended_at = self.env.now
        freed = []
        for resource, rate in operation.usage:
            if resource.contended:
                freed.append(resource)
            del resource.running[operation]
            resource.load = resource.load - rate if resource.running else 0.0
        if freed:
            self._share(freed)
        self._finish(operation)

    def _share(self, seeds: Iterable[Resource]) -> None:
        """Recompute the fractions of all operations coupled to `seeds` through contended resources."""
        operations: dict[Operation, None] = {}
        contended: dict[Resource, list[float]] = {}
        frontier = list(seeds)
        for seed in frontier:
            for operation in seed.running:
                operations[operation] = None
        pending = list(operations)
        while pending:
            for resource, _ in pending.pop().usage:
                if resource in contended or not resource.contended:
                    continue
                contended[resource] = [resource.capacity, resource.load]
                for operation in resource.running:
                    if operation not in operations:
                        operations[operation] = None
                        pending.append(operation)
        while contended:
            bottleneck = min(contended, key=lambda resource: contended[resource][0] / contended[resource][1])
            left, asked = contended[bottleneck]
            level = left / asked
            if level >= 1.0:
                break
            for operation in bottleneck.running:
                if operation not in operations:
                    continue
                del operations[operation]
                for resource, rate in operation.usage:
                    state = contended.get(resource)
                    if state is not None:
                        state[0] -= level * rate
                        state[1] -= rate
                self._set_fraction(operation, level, bottleneck)
            del contended[bottleneck]
            for resource in [r for r, state in contended.items() if state[1] <= 1e-9 * r.capacity]:
                del contended[resource]
        for operation in operations:
            self._set_fraction(operation, 1.0, None)

    def _set_fraction(self, operation: Operation, fraction: float, bottleneck: Resource | None) -> None:
        now = self.env.now
        if fraction == operation.fraction and operation.slowdowns is not None:
            return
        if fraction == 1.0 == operation.fraction:
            return
        operation.remaining -= (now - operation.updated_at) * operation.fraction
        operation.updated_at = now
        operation.fraction = fraction
        operation.version += 1
        if operation.slowdowns is None:
            operation.slowdowns = []
        operation.slowdowns.append((now, fraction, bottleneck))
        self._schedule(operation, max(operation.remaining, 0.0) / fraction)
