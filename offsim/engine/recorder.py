"""What each operation waited for, or would have waited for, had other things taken longer: the graph of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from offsim.engine.operation import Operation

if TYPE_CHECKING:
    from offsim.engine.engine import Thread


class Recorder:
    """Notes what operations are behind: those named, and those that their thread had waited for."""

    def __init__(self) -> None:
        self._after: dict[int, list[Operation]] = {}
        self._known: dict[Thread, list[tuple[int, Operation]]] = {}
        """What each thread's code has waited for; what another one of them was behind is left out."""
        self._issued: dict[Operation, tuple[Thread, int]] = {}
        """The thread that enqueued an operation, and how often that had waited by then."""
        self._waits: dict[Thread, int] = {}
        self._begins: dict[Operation, list[Operation]] = {}
        self._ends: dict[Operation, list[Operation]] = {}
        """By the end of a thread's code, what its beginning and its end are behind."""

    def enqueued(self, operation: Operation, after: Iterable[Operation | None], thread: Thread | None) -> None:
        """An operation has been enqueued by a thread."""
        named = [each for each in after if each is not None]
        self._after[operation.index] = named + self._behind(thread)
        if thread is not None:
            self._issued[operation] = thread, self._waits.get(thread, 0)

    def spawned(self, end: Operation, before: Operation | None, issuer: Thread | None) -> None:
        """Code has been given to a thread, behind the code before."""
        self._begins[end] = self._behind(issuer) + ([] if before is None else [before])

    def begun(self, thread: Thread, end: Operation) -> None:
        """The thread runs this code now."""
        self._waits[thread] = self._waits.get(thread, 0) + 1
        self._known[thread] = [(self._waits[thread], each) for each in self._begins[end]]

    def awaited(self, thread: Thread, operation: Operation) -> None:
        """The thread has waited for an operation."""
        if operation.index < 0 and operation not in self._begins:
            return  # a pause
        known, (issuer, waits) = self._known[thread], self._issued.get(operation, (None, 0))
        if issuer is thread:
            known = [each for each in known if each[0] > waits]
        self._waits[thread] += 1
        self._known[thread] = [*known, (self._waits[thread], operation)]

    def finished(self, thread: Thread, end: Operation) -> None:
        """The thread's code is over."""
        self._ends[end] = self._behind(thread)

    def after(self, operation: Operation) -> list[Operation]:
        """The operations that this one is behind, beside those before on its stream."""
        return self._flat(self._after[operation.index])

    def known(self, thread: Thread) -> list[Operation]:
        """The operations that the thread's code has waited for so far."""
        return self._flat(self._behind(thread))

    def _flat(self, operations: Iterable[Operation]) -> list[Operation]:
        """With what the ends of threads' code are behind in their place."""
        reached = dict.fromkeys(operations)
        grown = list(reached)
        for each in grown:  # grows
            new = [other for other in self._ends.get(each, ()) if other not in reached]
            reached.update(dict.fromkeys(new))
            grown += new
        return [each for each in grown if each.index >= 0]

    def _behind(self, thread: Thread | None) -> list[Operation]:
        return [operation for _, operation in self._known.get(thread, ())] if thread is not None else []
