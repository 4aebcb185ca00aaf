"""Critical paths of a tape's runs, which the compiled loop walks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from offsim.engine import Operation, Resource
from offsim.tape import compiled, records
from offsim.tape.tables import Numbers, tell_tables

if TYPE_CHECKING:
    from offsim.tape.tables import Taped


class Paths:
    """What the time of critical paths counts to.

    `counts_to` gives a name to the time of an operation, to time lost to a resource, and to time that nothing explains;
    `host` is the name of the stream that is a rank's host thread.
    """

    def __init__(self, taped: Taped, counts_to: Callable[[Operation | Resource | None], str], host: str) -> None:
        self._taped = taped
        self._names, self._phases = names, phases = Numbers(counts_to(None)), Numbers()
        operations, resources = taped.operations, taped.bottlenecks[:-1]
        self._about = about = np.empty(len(operations), records.ABOUT)
        about["iteration"] = [o.iteration for o in operations]
        about["rank"] = [o.stream.rank for o in operations]
        about["phase"] = [phases[o.phase] for o in operations]
        about["host"] = [o.stream.name == host for o in operations]
        about["name"] = [names[counts_to(o)] for o in operations]
        self._lost_to = np.array([names[counts_to(resource)] for resource in resources], np.int64)

    def spent(self, phases: Iterable[tuple[str, float, float, int]], last: int) -> dict[str, dict[str, float]]:
        """Name of phases -> name -> seconds of their critical paths in the last run, up to its `last` iteration.

        Of each phase there are name, start, end and rank, in temporal order for each name.
        """
        trace = self._taped.trace
        assert trace is not None
        asked = [(start, end, rank, self._phases[name]) for name, start, end, rank in phases]
        names, known = self._names.things, self._phases.things
        spent = np.full((len(known), len(names)), -1.0)
        tables = {
            "phases": np.array(asked, records.PHASE),
            "parts": np.empty(3 * len(self._about) + 2 * int(trace.state["slowdown"]) + 2, records.PART),
            "about": self._about,
            "lost_to": self._lost_to,
            "spent": spent,
        }
        state = np.array(trace.state, ndmin=1)
        tell_tables(state, tables)
        state["names"], state["last"] = len(names), last
        compiled.run(state)
        return {
            phase: {name: seconds for name, seconds in zip(names, row, strict=True) if seconds >= 0.0}
            for phase, row in zip(known, spent.tolist(), strict=True)
        }
