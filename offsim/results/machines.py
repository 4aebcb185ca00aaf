"""One scenario on many machines: recorded once where its schedule allows, and run by the compiled loop from then on."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

from offsim.platform.hardware import HardwareProfile
from offsim.platform.platform import OrderAmongRanks
from offsim.programs.run import CLOSE, Run
from offsim.scenario import Scenario
from offsim.simulation import checked, run_scenario

if TYPE_CHECKING:
    from offsim.programs.recording import Recording

LOADS_S, COMPILES_S = 0.05, 8.0
"""What the compiled loop costs before its first run: to load it, or to compile it where that has not been done yet."""
TAPED_FROM = 3
"""Machines for which it pays to record a tape."""
MOST_TAPES = 8
"""Courses of a program that are kept; there is one for each side of a bend, such as a kernel bound by memory or not."""

_engine_s = 0.0
"""What this process has spent on the engine for what the loop could have done."""


def _loop_pays(many: bool) -> bool:
    """Whether to run tapes. As with skis: rent the engine until that has cost as much as the loop, then buy.

    Most processes end before it pays to compile the loop, so what the engine costs them counts together.
    """
    if not (many or _engine_s >= LOADS_S):
        return False
    from offsim.tape import compiled

    def compiling_pays() -> bool:
        return max(_engine_s, LOADS_S * compiled.wanted()) >= COMPILES_S

    return compiled.available() and (compiled.kept() is not None or compiling_pays()) and compiled.ready()


def _spend(seconds: float) -> None:
    """Count the engine's time; each LOADS_S of it wants a loop that has not been compiled."""
    global _engine_s
    before, _engine_s = _engine_s, _engine_s + seconds
    if times := int(_engine_s / LOADS_S) - int(before / LOADS_S):
        from offsim.tape import compiled

        if compiled.available() and compiled.kept() is None and _engine_s < COMPILES_S:
            compiled.want(times)


class Machines:
    """A scenario with all but its hardware fixed, as by `simulate`; `many` machines are to follow."""

    def __init__(
        self,
        scenario: Scenario,
        all_ranks: bool = False,
        stretch: Mapping[str, float] | None = None,
        max_operations: int | None = None,
        many: bool = False,
    ) -> None:
        self._scenario = scenario
        self._how = all_ranks, stretch, max_operations
        self._all_ranks = all_ranks
        self._many = many
        self._tapes: list[Recording] = []
        """The one used last is the first."""
        self._on_tape: bool | None = None
        """Whether tapes are used; None as long as the loop does not pay."""

    def on(self, profile: HardwareProfile) -> Run:
        """Run it on a machine; the next call may overwrite what this one returns."""
        if self._on_tape is None and _loop_pays(self._many):
            self._on_tape = True
        if self._on_tape and (run := self._from_tape(profile)) is not None:
            return run
        begin = perf_counter()
        run = self._simulate(profile)
        if self._on_tape is None:
            _spend(perf_counter() - begin)
        return run

    def _simulate(self, profile: HardwareProfile) -> Run:
        return run_scenario(self._scenario, profile, *self._how)

    def _from_tape(self, profile: HardwareProfile) -> Run | None:
        """The run, by a tape that is there or a new one; None where it is for the engine to tell."""
        from offsim.programs.recording import AnotherCourse, ForTheEngine, TooFewIterations

        iterations, known = 1, iter(tuple(self._tapes))
        while (tape := next(known, None) or self._recorded(profile, iterations)) is not None:
            try:
                run = tape.on(profile)
            except TooFewIterations:
                iterations = max(iterations, tape.iterations + 1)
            except AnotherCourse:
                pass
            except ForTheEngine:
                return None
            else:
                self._tapes = [tape, *(other for other in self._tapes if other is not tape)][:MOST_TAPES]
                return run
        return None

    def _recorded(self, profile: HardwareProfile, iterations: int) -> Recording | None:
        """A new tape; None where there can be none. One of somebody's own schedule has to do as the engine does."""
        from offsim.programs.recording import Recording, TooFewIterations

        known = checked(self._scenario, profile)
        _, stretch, most = self._how
        how = stretch, self._scenario.checkpoint, most, iterations
        try:
            try:
                tape = Recording(profile, *known, self._all_ranks, *how)
            except OrderAmongRanks:
                self._all_ranks = True
                tape = Recording(profile, *known, True, *how)
            if not known[1].__module__.startswith("offsim.") and not self._tapes:
                run, simulated = tape.on(profile), self._simulate(profile)
                self._on_tape = abs(run.ended_at - simulated.ended_at) <= CLOSE * simulated.ended_at
        except TooFewIterations:
            return self._recorded(profile, iterations + 1)
        except Exception:  # the schedule decides at run time, or is wrong: the engine tells
            self._on_tape = False
        return tape if self._on_tape else None
