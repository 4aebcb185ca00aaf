"""A piece of state, and since which operation and update its content is valid."""

from __future__ import annotations

from dataclasses import dataclass

from offsim.engine import Operation


class StaleState(Exception):
    """A kernel reads a state older than its schedule allows."""


@dataclass(slots=True)
class Block:
    """The 16-bit parameters of a sub-group. Kernels that read them wait for `since`."""

    name: str
    version: int = 0
    """The iteration whose update they hold."""
    since: Operation | None = None
    """The operation that wrote them last; None where they were there from the start."""

    def write(self, version: int, since: Operation | None) -> None:
        """They hold the result of that iteration's update from the end of `since` on."""
        self.version = version
        self.since = since

    def check(self, iteration: int, lag: int) -> None:
        """Raise StaleState where that iteration may not read them: its update before is more than `lag` ahead."""
        if self.version < iteration - 1 - lag:
            raise StaleState(
                f"iteration {iteration} reads {self.name} as the update of iteration {self.version} left them; "
                f"expected that of iteration {iteration - 1 - lag} or later (lag {lag})"
            )
