"""A tape: what the threads of a program command, one thing after another, without the times at which they do.

A program runs on a tape as on an engine, but no time passes. So what it commands may not depend on times: where it
reads one, or memory in use, it decides at run time, and only the engine can run it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from offsim.engine import Code, Engine, Operation, Stream, Thread, Tier
from offsim.engine.engine import TooManyOperations
from offsim.engine.tier import Columns
from offsim.tape.records import ALLOCATE, AWAIT, BEGIN, END, ENQUEUE, FREE, MARK, PAUSE, SPAWN, STOP_IF_OVER

if TYPE_CHECKING:
    from offsim.tape.tables import Taped


class DecidesAtRunTime(Exception):
    """What a program commands depends on times or on memory in use."""


class _Unknown:
    """A time that a tape does not know."""

    def _read(self, *_: object) -> NoReturn:
        raise DecidesAtRunTime

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _read
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __neg__ = __abs__ = __float__ = __int__ = __bool__ = _read


UNKNOWN: Any = _Unknown()


class _NoClock:
    @property
    def now(self) -> float:
        raise DecidesAtRunTime


class TapedTier(Tier):
    """A memory tier of which a tape notes the changes."""

    __slots__ = ("tape",)

    def __init__(self, tape: Tape, name: str, capacity: float, when_full: Literal["fail", "wait"] = "fail") -> None:
        self.tape = tape
        self.name = name
        self.capacity = capacity
        self.waits = when_full == "wait"
        self.grows = False
        tape.tiers[self] = None

    def __getattr__(self, name: str) -> NoReturn:
        raise DecidesAtRunTime(name)

    @property
    def columns(self) -> Columns:
        """Of the last run."""
        if self.tape.taped is None:
            raise DecidesAtRunTime
        return self.tape.taped.columns(self)

    def like(self, name: str, capacity: float, when_full: Literal["fail", "wait"] = "fail") -> Tier:
        """Another taped tier."""
        return TapedTier(self.tape, name, capacity, when_full)

    def allocate(self, occupant: str, nbytes: float) -> None:
        """Note that a thread takes memory."""
        self.tape.change(ALLOCATE, self, occupant, nbytes)

    def free(self, occupant: str, nbytes: float) -> None:
        """Note that a thread gives memory back."""
        self.tape.change(FREE, self, occupant, nbytes)


@dataclass(eq=False, slots=True)
class Task:
    """Code that a thread runs, and what it commands."""

    thread: Thread | None = None
    code: Iterable[Any] = ()
    end: int = -1
    issuer: Thread | None = None
    commands: list[int] = field(default_factory=list)
    """What it does, and which: two numbers for each."""
    awaits: Operation | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a rank begins an iteration: its code yields it, and ends here where that is not to be recorded."""

    iteration: int


class Tape(Engine):
    """An engine that notes what it is told to run."""

    def __init__(self, stretch: Mapping[str, float] | None = None, most: int = sys.maxsize) -> None:
        self.env: Any = _NoClock()
        self.recorder = None
        self.stretch = stretch
        self.most = most
        self.operations: list[Operation] = []
        self.active: Thread | None = None
        self.tiers: dict[TapedTier, None] = {}
        self.all: list[Operation] = []
        """Operations, ends of tasks and pauses, by their index."""
        self.after: dict[int, list[Operation | Stream]] = {}
        """Of operations, by their index, what they are behind; of streams what is last on them."""
        self.threads: list[Thread | None] = []
        self.changes: list[tuple[Tier, str, float]] = []
        self.begins: list[tuple[int, int]] = []
        """Rank and iteration."""
        self.marks = 0
        self.tasks = [Task()]
        self.taped: Taped | None = None
        self.until = 0
        """The last iteration to record."""
        self._task = self.tasks[0]
        self._new: deque[Task] = deque()
        self._going: deque[Task] = deque()
        self._waiting: dict[int, list[Task]] = {}
        self._running: dict[int, set[int]] = {}
        """Of operations that are behind code which has not ended on the tape, the ends of that code."""

    def tier(self, name: str, capacity: float) -> Tier:
        """A taped tier."""
        return TapedTier(self, name, capacity)

    def has_ended(self, operation: Operation) -> bool:
        """As far as a tape knows, nothing ever has."""
        return False

    def tail(self, stream: Stream) -> Any:
        """The stream, whose last operation is known at run time only."""
        return stream

    def enqueue(
        self, operation: Operation, after: Iterable[Operation | None] = (), thread: Thread | None = None
    ) -> Operation:
        """Note that the thread enqueues an operation."""
        if self.stretch is not None and operation.kind in self.stretch:
            operation.duration *= self.stretch[operation.kind]
        if len(self.operations) >= self.most:
            raise TooManyOperations
        index = self._add(operation, thread)
        behind = [each for each in after if each is not None] if after else []
        if behind:
            self.after[index] = behind  # type: ignore[assignment]  # or streams, see `tail`
        if self._running and (running := self._unended(operation.stream, *behind)):
            self._running[index] = running
        self.operations.append(operation)
        if thread is not None:
            operation.phase, operation.iteration = thread.phase, thread.iteration
        operation.stream.tail = operation
        self._task.commands += ENQUEUE, index
        return operation

    def _add(self, operation: Operation, thread: Thread | None = None) -> int:
        operation.index = index = len(self.all)
        operation.started_at = operation.ended_at = UNKNOWN
        self.all.append(operation)
        self.threads.append(thread)
        return index

    def spawn(self, thread: Thread, code: Code, issuer: Thread | None = None) -> Operation:
        """Note that code begins on a thread."""
        end = Operation(thread, "end", "end", 0.0)
        self._add(end)
        before, thread.end = thread.end, end
        tags = None
        if issuer is not None:
            tags = end.phase, end.iteration = issuer.phase, issuer.iteration
        task = Task(thread, self._tagged(thread, code, tags), end.index, issuer)
        self._task.commands += SPAWN, len(self.tasks)
        self.tasks.append(task)
        if before is not None and before.index in self._running:
            self._waiting.setdefault(before.index, []).append(task)
        else:
            self._new.append(task)
        if issuer is not None:
            self._running[end.index] = {end.index}
        return end

    def _unended(self, *behind: Operation | Stream) -> set[int]:
        """The ends of code that these operations, or the last ones on streams, are behind and that has not ended."""
        ends: set[int] = set()
        for each in behind:
            operation = each.tail if isinstance(each, Stream) else each
            if operation is not None and operation.index in self._running:
                ends |= self._running[operation.index]
        return ends & self._running.keys()

    def _tagged(self, thread: Thread, code: Code, tags: tuple[str, int] | None) -> Iterator[Any]:
        if tags is not None:
            thread.phase, thread.iteration = tags
        yield from code

    def pause(self, thread: Thread) -> Operation:
        """Note that the thread lets others go on first."""
        end = Operation(thread, "wait", "pause", 0.0)
        self._add(end)
        self._task.commands += PAUSE, end.index
        return end

    def change(self, how: int, tier: Tier, occupant: str, nbytes: float) -> None:
        """A thread takes or gives back memory."""
        self._task.commands += how, len(self.changes)
        self.changes.append((tier, occupant, nbytes))

    def mark(self) -> int:
        """Number of the time at which the thread is here."""
        self._task.commands += MARK, self.marks
        self.marks += 1
        return self.marks - 1

    def begin(self, rank: int, iteration: int) -> None:
        """A rank begins an iteration."""
        self._task.commands += BEGIN, len(self.begins)
        self.begins.append((rank, iteration))

    def stop_if_over(self) -> None:
        """The thread stops here once the last rank has begun the iteration that is not to be run."""
        self._task.commands += STOP_IF_OVER, 0

    def record(self, iterations: int) -> None:
        """Run all code until ranks have gone through so many iterations and begun the next one."""
        self.tasks[0].commands += END, 0
        self.tasks[0].ended = True
        self.until = iterations
        while self._new or self._going:
            self._advance(self._new.popleft() if self._new else self._going.popleft())

    def _waits(self, task: Task) -> bool:
        """Whether code waits, directly or not, for other code that has to be recorded first."""
        if not self._running or task.awaits is None or not (running := self._unended(task.awaits)):
            return False
        self._waiting.setdefault(max(running), []).append(task)
        return True

    def _advance(self, task: Task) -> None:
        """Run code until it waits for other code, or has begun some."""
        if self._waits(task):
            return
        self._task, self.active = task, task.thread
        for awaited in task.code:
            if awaited is None:
                continue
            if isinstance(awaited, Boundary):
                if awaited.iteration > self.until:
                    return
                continue
            task.commands += AWAIT, awaited.index
            task.awaits = awaited
            if self._waits(task):
                return
            if self._new:
                self._going.append(task)
                return
        task.commands += END, 0
        task.ended = True
        self._running.pop(task.end, None)
        self._going += self._waiting.pop(task.end, ())
