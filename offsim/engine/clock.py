"""SimPy's environment, whose time also advances to the instants of the engine."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from simpy import Environment
from simpy.core import EmptySchedule


class Clock(Environment):
    """Steps from event to event of SimPy, as any environment, and from instant to instant of the engine between them.

    Ends of operations are no events of SimPy: most happen at an instant of their own, and half of those that are
    expected move when others start or end. `next_instant` gives the time of the next one, infinite where there is
    none, and `instant` does what happens then, and at those after it for which the clock can `advance`.
    """

    now = 0.0  # SimPy's is a property of `_now`: here it is read far more often than set

    def __init__(self, next_instant: Callable[[], float], instant: Callable[[float], None]) -> None:
        super().__init__()
        self._next_instant = next_instant
        self._instant = instant

    @property
    def _now(self) -> float:
        return self.now

    @_now.setter
    def _now(self, now: float) -> None:
        self.now = now

    def peek(self) -> float:
        """The time of the next step."""
        return min(super().peek(), self._next_instant())

    def step(self) -> None:
        """Process the next event of SimPy, or all that happens in the engine before there is one."""
        at = self._next_instant()
        if self.advance(at):
            self._instant(at)
        elif self._queue:
            super().step()
        else:
            raise EmptySchedule

    def advance(self, at: float) -> bool:
        """Go on to an instant of the engine, unless an event of SimPy comes no later or there is none."""
        if at == inf or (self._queue and self._queue[0][0] <= at):
            return False
        self.now = at
        return True

    def close(self) -> None:
        """Have no more instants, and let go of the engine."""
        del self._next_instant, self._instant
