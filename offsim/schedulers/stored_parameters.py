"""Parameters on storage, as DeepSpeed's `offload_param: nvme` (swap_tensor/partitioned_param_swapper.py).

A buffer holds a rank's slice of one tensor; here a layer takes as many as it has large tensors, and its slices are read
together. Reads run ahead in the order of use as long as buffers are free. Embedding and head have buffers of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from offsim.engine import Code, Operation
from offsim.inputs.fields import Count
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.transformer import BF16, Subgroup
from offsim.schedulers.base import option
from offsim.schedulers.swapping import SwapOptions, Swapping
from offsim.schedulers.zero3_options import Zero3OffloadOptions
from offsim.states.pool import Pool

PARAMETERS = "zero_optimization.offload_param"
"""DeepSpeed's section, as a path of keys."""
SMALLEST = 2**20
"""Bytes below which DeepSpeed swaps no tensor: its I/O block of 1 MiB."""


class StoredParametersOptions(SwapOptions, Zero3OffloadOptions):
    """Keys of `offload_param`."""

    parameter_buffer_count: Count = option(
        5, "buffers for parameters on storage, one a tensor", deepspeed=f"{PARAMETERS}.buffer_count"
    )
    parameter_buffer_size: Count = option(100_000_000, "elements of each", deepspeed=f"{PARAMETERS}.buffer_size")
    max_in_cpu: int = option(
        1_000_000_000, "a rank's parameters that stay in host memory", ge=0, deepspeed=f"{PARAMETERS}.max_in_cpu"
    )


class StoredParameters(Swapping):
    """The first sub-groups' parameters stay in host memory, the others are read from storage for each pass."""

    Options = StoredParametersOptions
    parameter_kinds = (GPU, "memory", "storage")
    in_host: frozenset[int] = frozenset()

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.reads: dict[int, Operation] = {}
        self.on_storage = rank.platform.kind_of(self.placed.parameters) == "storage"
        if not self.on_storage:
            return
        ends = accumulate(subgroup.elements for subgroup in self.subgroups)
        self.in_host = frozenset(index for index, end in enumerate(ends) if end <= self.options.max_in_cpu)
        kept = sum(self.subgroups[index].elements for index in self.in_host)
        rank.host_memory.allocate("parameters that stay (bf16)", BF16 * kept)
        rank.host_memory.allocate("write-back buffer (bf16)", self.pinned(BF16 * self.largest))
        slices = [n for t, n in zip(self.workload.tensors, self.workload.shares, strict=True) if t.layer == 0]
        large = [elements for elements in slices if BF16 * elements >= SMALLEST]
        self.layers_ahead = max(1, self.options.parameter_buffer_count // max(1, len(large)))
        nbytes = self.buffer_bytes(large)
        self.pool = Pool(rank.host_memory, "parameter buffers", self.layers_ahead, nbytes / self.layers_ahead)

    def buffer_bytes(self, slices: Sequence[int]) -> float:
        """Bytes of all parameter buffers; `slices` are those of a layer that take buffers."""
        count: int = self.options.parameter_buffer_count
        return count * self.pinned(BF16 * self.options.parameter_buffer_size)

    def from_storage(self, layer: int) -> bool:
        """Whether a layer's slices are read from storage."""
        return self.on_storage and not self.in_host.issuperset(self.workload.subgroups_of_layers[layer])

    def home_of(self, subgroup: Subgroup) -> str:
        return HOST if subgroup.index in self.in_host else self.placed.parameters

    @property
    def fetched_from(self) -> str:
        return HOST if self.on_storage else self.placed.parameters

    def read_parameters(self, rank: Rank, layer: int, elements: float) -> None:
        """Submit the reads of a layer's slices, behind what wrote them last."""
        nbytes = BF16 * elements / self.workload.training.data_parallel
        written = [rank.parameters[index].since for index in self.workload.subgroups_of_layers[layer]]
        stream = rank.stream(f"{self.placed.parameters} parameters")
        self.reads[layer] = rank.move(
            nbytes, self.placed.parameters, HOST, "read parameters", layer=layer, stream=stream, after=written
        )

    def fetch_slice(self, rank: Rank, wanted: Fetch) -> Code:
        """Wait for all reads in flight, copy to the GPU, and read ahead."""
        layer, layers = wanted.layer, range(self.workload.model.layers)  # without the embedding and the head
        if self.from_storage(layer):
            if layer not in self.reads:
                yield rank.wait(takes=self.pool.buffers() if layer in layers else ())
                self.read_parameters(rank, layer, wanted.elements)
            yield rank.wait(*self.reads.values())
            del self.reads[layer]
            ahead = range(layer + 1, len(layers)) if wanted.pass_ == "forward" else range(layer - 1, -1, -1)
            for following in ahead if layer in layers else ():
                if self.pool.free and self.from_storage(following):
                    rank.wait(takes=self.pool.buffers())
                    self.read_parameters(rank, following, self.workload.layer_elements)
        return (yield from super().fetch_slice(rank, wanted))

    def release(self, rank: Rank, layer: int, pass_: str, after: Operation) -> None:
        super().release(rank, layer, pass_, after)
        if self.from_storage(layer):
            rank.free_after(after, self.pool.buffers())

    def store_parameters(self, rank: Rank, subgroup: Subgroup) -> Code:
        """On storage: cast into the write-back buffer, and a blocking write."""
        yield from super().store_parameters(rank, subgroup)
        if self.on_storage and subgroup.index not in self.in_host:
            tier, nbytes = self.placed.parameters, BF16 * subgroup.elements
            stream = rank.stream(f"{tier} parameters")
            write = rank.move(nbytes, HOST, tier, "write parameters", subgroup.index, stream=stream)
            self.written(rank, subgroup, write)
            yield write
