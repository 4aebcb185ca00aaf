"""16-bit parameters in chunks, each in host or GPU memory, which come when needed and leave by furthest next use."""

from __future__ import annotations

import math

from offsim.engine import Code, Operation, Stream
from offsim.inputs.fields import Number
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.transformer import BF16, Bucket
from offsim.schedulers.base import ScheduleOptions, TrainingSchedule, option
from offsim.states.pool import FurthestNextUse

CHUNKS = "chunks of parameters"


class ChunkOptions(ScheduleOptions):
    """The size of chunks."""

    chunk_bytes: Number = option(64e6, "bytes of a chunk of parameters", gt=0, tries=(16e6, 32e6, 64e6, 128e6))


class Chunked(TrainingSchedule):
    """Each layer's slice fills chunks of its own, and is gathered beside them; embedding and head come as they are."""

    by_layer = True
    layers_ahead = 1
    parameter_home = "host"
    parameter_kinds = ("memory",)

    def place(self, rank: Rank) -> None:
        super().place(rank)
        layers = self.workload.model.layers
        self.slice = float(BF16 * self.subgroups[1].elements)
        self.each: int = math.ceil(self.slice / self.options.chunk_bytes)
        self.leaving: list[int] = []  # chunks whose gradients are not reduced yet
        steps = [*range(layers), *reversed(range(layers))] * self.workload.training.micro_steps
        self.uses = [chunk for layer in steps for chunk in self.chunks(layer)]
        self.make_room(rank, self.each)

    def make_room(self, rank: Rank, chunks: int) -> None:
        """So many chunks can be on the GPU from now on; those that were there have left."""
        rank.gpu_memory.allocate(CHUNKS, chunks * self.options.chunk_bytes)
        self.cache = FurthestNextUse(chunks, self.uses)

    def chunks(self, layer: int) -> range:
        """The chunks of a layer, by number."""
        return range(layer * self.each, (layer + 1) * self.each)

    def nbytes(self, chunk: int) -> float:
        """Bytes of parameters in a chunk; the last one of a layer is not full."""
        size = float(self.options.chunk_bytes)
        return min(size, self.slice - chunk % self.each * size)

    def fetch_slice(self, rank: Rank, wanted: Fetch) -> Code:
        """Chunks that are missing come on the compute stream, each in place of another one."""
        if wanted.layer not in range(self.workload.model.layers):
            return (yield from super().fetch_slice(rank, wanted))
        rank.wait_event(rank.compute_stream, rank.all_of(wanted.after), takes=wanted.memory)
        yield from self.bring(rank, wanted.layer, wanted.pass_)
        return rank.compute_stream.tail

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        """The last layer is not fetched for its backward."""
        if layer == self.workload.model.layers - 1:
            yield from self.bring(rank, layer, "backward")
        return (yield from super().restore(rank, layer, step, nbytes))

    def bring(self, rank: Rank, layer: int, pass_: str) -> Code:
        """Make room for a layer's chunks that are missing, and copy them to the GPU."""
        stream = rank.compute_stream
        for chunk in self.chunks(layer):
            missing = chunk not in self.cache
            victim = self.cache.use(chunk)
            if victim is not None and victim // self.each == layer + 1 and pass_ == "backward":  # being computed
                self.leaving.append(victim)
            elif victim is not None:
                yield self.evict(rank, victim, stream)
            if missing:
                yield rank.h2d(stream, self.nbytes(chunk), "fetch chunk")

    def evict(self, rank: Rank, chunk: int, stream: Stream) -> Operation:
        """Parameters, or the gradients in their place, move to host memory."""
        return rank.d2h(stream, self.nbytes(chunk), "evict chunk")

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """Chunks that had to wait for it leave."""
        for chunk in self.leaving:
            yield self.evict(rank, chunk, rank.reduce_stream)
        self.leaving.clear()
