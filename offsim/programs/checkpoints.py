"""Checkpoints beside any schedule: blocking ones, and those of DataStates-LLM (HPDC 2024, arXiv 2406.10707).

DataStates after its code at 3296031: tensors on the GPU are copied in the background through a bounded pinned pool,
first in, first out, and one thread a rank writes them. A copy waits where the pool is full. Training waits before the
next update until all copies have been made (fork), or all files written (upstream). Its engine refuses state off the
GPU; here that is written in place, and the next update waits for it. Writes go at the storage's rate, without the page
cache; the pool has no fragments. Schedules that update during backward would have to wait before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from offsim.engine import Code, Operation
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import BF16
from offsim.states.checkpoint import Checkpoint

BEHIND_TRAINING = 1
"""Priority of copies: after training's own at a copy engine."""


class Checkpoints:
    """The checkpoints of one rank."""

    def __init__(self, rank: Rank, schedule: TrainingSchedule, asked: Checkpoint) -> None:
        self.rank = rank
        self.schedule = schedule
        self.asked = asked
        self.awaited: list[Operation] = []
        """What the next update waits for."""
        cache = (asked.host_cache_bytes or 0.0) if asked.engine == "datastates" else 0.0
        rank.host_memory.allocate("checkpoint cache (pinned)", cache)
        self.cache = rank.host_memory.like("checkpoint cache", cache, when_full="wait")
        rank.tier(asked.files).allocate("checkpoint", sum(nbytes for nbytes, *_ in self.tensors()))

    def tensors(self) -> Iterator[tuple[float, str, str, int]]:
        """Bytes, tier, name and sub-group of each tensor that the rank saves."""
        schedule = self.schedule
        for subgroup in schedule.subgroups:
            index = subgroup.index
            yield BF16 * subgroup.elements, schedule.home_of(subgroup), "parameters", index
            for name in ("p", "m", "v"):
                yield schedule.state_bytes / 3 * subgroup.elements, schedule.placed.optimizer[index], name, index

    def before_update(self) -> Code:
        """Wait for what the last checkpoint still reads."""
        yield self.rank.wait(*self.awaited)
        self.awaited.clear()

    def after_update(self) -> Code:
        """Save, if it is this iteration's turn."""
        if self.rank.iteration % self.asked.every:
            return
        for tensor in self.tensors():
            if self.asked.engine == "blocking":
                yield from self.write(*tensor)
            else:
                self.write_behind(*tensor)

    def write(self, nbytes: float, tier: str, name: str, subgroup: int) -> Code:
        """A tensor on the GPU goes to fresh pageable memory first."""
        if tier == GPU:
            yield self.rank.move(nbytes, GPU, HOST, f"copy {name}", subgroup, pinned=False, fresh=nbytes)
            tier = HOST
        yield self.rank.move(nbytes, tier, self.asked.files, f"save {name}", subgroup)

    def write_behind(self, nbytes: float, tier: str, name: str, subgroup: int) -> None:
        """Copy a tensor through the pool, and write it once it has been copied."""
        rank, copied = self.rank, None
        held = ((self.cache, "tensors", nbytes),) if tier == GPU else ()
        if tier == GPU:
            copies = rank.stream("checkpoint copies")
            copied = rank.move(
                nbytes, GPU, HOST, f"copy {name}", subgroup, stream=copies, allocates=held, priority=BEHIND_TRAINING
            )
        source, files = HOST if copied else tier, rank.stream("checkpoint files")
        written = rank.move(
            nbytes, source, self.asked.files, f"save {name}", subgroup, stream=files, after=[copied], frees=held
        )
        self.awaited.append(copied if copied and self.asked.commit == "copied" else written)
