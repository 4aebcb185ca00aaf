"""An iteration of zeroth-order training (MeZO, NeurIPS 2023): two forward passes of perturbed parameters, no backward.

Parameters move by +z, -2z and +z along a random direction, which a seed makes anew; the difference of the two losses
is the gradient, one number. Both passes run through a block before the next one, and the gradient is applied when the
block is next at hand. So there is no optimizer state, and nothing is kept for a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from offsim.engine import Code, Operation
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.training import ACTIVATIONS, LOSS, WORKING_SET, PassCosts
from offsim.programs.transformer import BF16, FP32, Cost

BLOCKS = "parameters of blocks"
VOCABULARY = "parameters of embedding and head"
PASSES = 2
SCORE_BYTES = 8
"""Of an unfused attention, an element: scores, softmax and its result, in fp32 or as fp16, fp32 and fp16."""

Compute = Callable[[int], Code]
"""Both passes of a block, which is on the GPU."""


class ZerothOrderSchedule(TrainingSchedule):
    """Blocks live in host memory; embedding and head stay on the GPU. `blocks` says what moves when."""

    program = "zeroth_order"
    forwards = PASSES
    by_layer = True
    optimizer_kinds = ()
    activation_kinds = (GPU,)
    parameter_home = "host"
    parameter_kinds: ClassVar[tuple[str, ...]] = ("memory",)

    @classmethod
    def default_tiers(cls, options: object, subgroups: int) -> tuple[str, ...]:
        """There is no optimizer state."""
        return ()

    @property
    def width(self) -> int:
        """Bytes of a parameter."""
        return BF16

    def blocks(self, rank: Rank, compute: Compute) -> Code:
        """Bring each block to the GPU, `compute` it there, and bring it back."""
        raise NotImplementedError


class ZerothOrder:
    """The iteration of one rank. The allocator keeps working sets and logits at their largest throughout."""

    def __init__(self, rank: Rank, schedule: ZerothOrderSchedule) -> None:
        self.rank = rank
        self.schedule = schedule
        self.costs = PassCosts.of(rank)
        workload, width = rank.workload, schedule.width
        self.layers = workload.model.layers
        self.head_elements = workload.vocab_elements + workload.model.hidden
        ranks = workload.training.data_parallel if workload.training.zero_stage == 3 else 1
        held = width * self.layers * workload.layer_elements
        rank.tier(schedule.placed.parameters).allocate(BLOCKS, held / ranks)
        tied = workload.model.tied_embeddings
        gpu = rank.gpu_memory
        gpu.allocate(VOCABULARY, width * (self.head_elements + (0 if tied else workload.vocab_elements)))
        gpu.allocate(ACTIVATIONS, PASSES * 2 * width / BF16 * workload.hidden_bytes)
        scores = 0.0 if workload.model.flash_attention else SCORE_BYTES * workload.attention_scores
        others = workload.layer_activation_bytes - sum(workload.scores.kept) * workload.attention_scores
        gpu.allocate(WORKING_SET, width / BF16 * others + scores)
        gpu.allocate(LOSS, PASSES * (width + 2 * FP32) * workload.logits)

    def phases(self) -> Iterator[tuple[str, Code]]:
        """Both passes of each micro-batch, block by block."""
        steps = self.rank.workload.training.micro_steps
        for step in range(steps):
            yield "dual forward", self.dual_forward(step == 0, step == steps - 1)

    def dual_forward(self, first: bool, last: bool) -> Code:
        """Both passes of a micro-batch, the `first` or `last` of the iteration."""
        rank, costs, workload = self.rank, self.costs, self.rank.workload

        def block(layer: int) -> Code:
            name, elements = f"layer {layer} forward", workload.layer_elements
            return (yield from self._dual(name, costs.layer_forward, elements, layer, first))

        yield from self._dual("embedding", costs.embedding, workload.vocab_elements, -1, first)
        yield from self.schedule.blocks(rank, block)
        yield from self._dual("head and loss", costs.head_forward, self.head_elements, self.layers, first)
        yield rank.wait(rank.compute_stream)
        if last:
            yield rank.all_reduce(FP32, "all-reduce projected gradient")

    def _dual(self, name: str, work: Cost, elements: int, layer: int, first: bool) -> Code:
        """The last gradient, then a forward pass on either side; four times the weights are read and written."""
        rank, group = self.rank, layer + 1
        if first:
            updated = self._shift("apply the last gradient", elements, group)
            self.schedule.written(rank, self.schedule.subgroups[group], updated, rank.iteration - 1)
        self._read(group)
        for shift in ("perturb by +z", "perturb by -2z"):
            self._shift(shift, elements, group)
            yield rank.launch(f"launch {name}", self.costs.launch, layer)
            rank.compute(name, work, layer if layer < self.layers else -1)
        return self._shift("restore by +z", elements, group)

    def _shift(self, name: str, elements: int, group: int) -> Operation:
        nbytes = 2 * self.schedule.width * elements
        return self.rank.elementwise(self.rank.compute_stream, "d2d", nbytes, name, group)

    def _read(self, group: int) -> None:
        """Kernels read the parameters of the group; the compute stream has them behind their update."""
        self.rank.parameters[group].check(self.rank.iteration, self.schedule.lag)
