"""Steps of a program."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

Key = Hashable
"""Names a step: the row of a GPU activity, or a tuple of what it is and where."""


@dataclass(slots=True)
class Step:
    """Work, or time that passes, on a stream or thread: after the step before it there, and after those of `after`."""

    key: Key
    at: float
    """When it began in the trace."""
    stream: str
    kind: str
    seconds: float
    after: list[Key] = field(default_factory=list)
    work: bool = False
    """Whether it is work that the trace shows; else it is time that passes."""
    waits_busily: bool = False
    """Whether it ends a call that waited: until then, the thread is busy."""
    bytes: float = 0.0
    memory: str = ""
    """Of copies: bytes, and kind of host memory."""
