"""Forward and backward of ZeRO-3 with parameters on the GPUs, as DeepSpeed runs them.

Layers' bf16 parameters are all-gathered ahead of use, until `MAX_LIVE` elements are gathered at once, and released
after use; those of the last layers stay gathered between forward and backward. Gradients go through a bucket; what
happens to a full bucket is the scheduler's matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from offsim.engine import Operation
from offsim.engine.operation import MemoryChange
from offsim.programs.rank import Process, Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Cost, cost

BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's reduce_bucket_size where the scenario gives none."""
MAX_LIVE = 1_000_000_000
"""DeepSpeed's stage3_max_live_parameters and stage3_max_reuse_distance, in elements."""
PREFETCH_LAYERS = 2
"""Layers whose gathers are issued while one is launched: each of its modules prefetches 50M elements."""
MAX_BUCKETS_IN_FLIGHT = 2
"""DeepSpeed's max_param_reduce_events: the host waits for the oldest when more than these are unfinished."""

PARAMETERS = "parameters (bf16)"
GATHERED = "gathered parameters"
ACTIVATIONS = "activations"
WORKING_SET = "layer working set"
LOSS = "logits and loss"
BUCKET = "gradient bucket"
REDUCED = "reduced gradients"
SCORES = "attention score buffer"

FlushBucket = Callable[[Rank, Bucket], Process]
"""(rank, bucket) -> host thread code that stores the rank's share of a reduced bucket."""


@dataclass(frozen=True)
class PassCosts:
    """Kernel costs of one micro-batch on one rank, and the host's time to launch them."""

    embedding: Cost
    layer_forward: Cost
    layer_backward: Cost
    head_forward: Cost
    head_backward: Cost
    launch: float

    @classmethod
    def of(cls, rank: Rank) -> PassCosts:
        """Work out the costs of a rank's micro-batch on its GPU."""
        workload, gpu = rank.workload, rank.profile.gpu
        all_reduce = rank.tensor_parallel_seconds(workload.hidden_bytes)

        def layer(kernels: Cost, all_reduces: int) -> Cost:
            return Cost(kernels.seconds + all_reduces * all_reduce, kernels.flops, kernels.nbytes)

        forward = layer(cost(workload.layer_forward(), gpu), 2)
        backward = layer(cost(workload.layer_backward(), gpu), 2)
        return cls(
            cost(workload.embedding_kernels(), gpu),
            forward,
            backward,
            cost(workload.head_forward(), gpu),
            cost(workload.head_backward(), gpu),
            rank.profile.host.module_launch_s,
        )


class Zero3:
    """The passes of one rank; keeps what one pass leaves to the next."""

    def __init__(self, rank: Rank, costs: PassCosts) -> None:
        self.rank = rank
        self.costs = costs
        workload = rank.workload
        self.layers = workload.model.layers
        sharded = workload.training.data_parallel > 1
        self.layer_bytes = float(BF16 * workload.layer_elements)
        self.vocab_bytes = float(BF16 * workload.vocab_elements) if sharded else 0.0
        self.gathered_bytes = self.layer_bytes if sharded else 0.0
        self.live = min(max(-(-MAX_LIVE // workload.layer_elements), 2), self.layers)
        """Layers that are gathered at once; as many last ones stay so between forward and backward."""
        checkpointing = workload.training.activation_checkpointing
        activations = workload.layer_activation_bytes
        self.kept_bytes = workload.hidden_bytes if checkpointing else activations
        """What a layer's forward leaves to its backward."""
        self.recomputed_bytes = activations if checkpointing else 0.0
        """What it holds only while it runs, and backward makes again."""
        self.bucket_elements = workload.training.reduce_bucket_size or BUCKET_ELEMENTS
        self.buckets = workload.buckets(self.bucket_elements)
        gpu = rank.gpu_memory
        gpu.allocate(PARAMETERS, BF16 * workload.partition)
        gpu.allocate(BUCKET, BF16 * self.bucket_elements)
        gpu.allocate(SCORES, workload.scores_bytes)
        self._in_flight: deque[Operation] = deque()
        self._vocabularies = 0

    def _hold(self, occupant: str, nbytes: float) -> tuple[MemoryChange, ...]:
        return ((self.rank.gpu_memory, occupant, nbytes),) if nbytes else ()

    def forward(self) -> Process:
        """One micro-step's forward pass."""
        rank, costs, workload = self.rank, self.costs, self.rank.workload
        transient = self._hold(WORKING_SET, self.recomputed_bytes)
        vocabulary = self._gather_vocabulary(None)
        gathers = [self._gather(0, None)]
        computed: list[Operation] = []
        hidden = self._hold(ACTIVATIONS, 2 * workload.hidden_bytes)
        current = rank.compute("embedding", costs.embedding, after=[vocabulary], allocates=hidden)
        for layer in range(self.layers):
            for further in range(len(gathers), min(len(gathers) + PREFETCH_LAYERS, layer + self.live, self.layers)):
                released = computed[further - self.live] if further >= self.live else None
                gathers.append(self._gather(further, released))
            yield rank.launch(f"launch layer {layer}", costs.launch, layer)
            current = rank.compute(
                f"layer {layer} forward",
                costs.layer_forward,
                layer,
                after=[gathers[layer]],
                allocates=self._hold(ACTIVATIONS, self.kept_bytes) + transient,
                frees=transient
                + (self._hold(GATHERED, self.gathered_bytes) if layer < self.layers - self.live else ()),
            )
            computed.append(current)
        vocabulary = self._gather_vocabulary(computed[-2] if self.layers > 1 else None)
        yield rank.launch("launch head", costs.launch)
        kept, temporary = FP32 * workload.logits, (FP32 + BF16) * workload.logits
        head = rank.compute(
            "head and loss",
            costs.head_forward,
            after=[vocabulary],
            allocates=self._hold(LOSS, kept + temporary),
            frees=self._hold(LOSS, temporary),
        )
        yield rank.synchronize(head)

    def backward(self, flush: FlushBucket) -> Process:
        """One micro-step's backward pass."""
        rank, costs, workload = self.rank, self.costs, self.rank.workload
        working = self._hold(WORKING_SET, self.recomputed_bytes + BF16 * workload.layer_elements)
        work = costs.layer_backward
        launches = costs.launch
        if workload.training.activation_checkpointing:
            forward = costs.layer_forward
            work = Cost(work.seconds + forward.seconds, work.flops + forward.flops, work.nbytes + forward.nbytes)
            launches *= 2
        buckets = deque(self.buckets)
        logits_gradient = self._hold(WORKING_SET, BF16 * workload.logits)
        head_gradient = self._hold(WORKING_SET, BF16 * workload.vocab_elements)
        reduced = FP32 * self.bucket_elements / workload.training.data_parallel
        rank.gpu_memory.allocate(REDUCED, reduced)
        yield rank.launch("launch head backward", costs.launch)
        current = rank.compute(
            "head backward",
            costs.head_backward,
            allocates=logits_gradient + head_gradient,
            frees=logits_gradient + self._hold(LOSS, FP32 * workload.logits),
        )
        while buckets and buckets[0][0] == self.layers:
            yield from self._flush(flush, buckets.popleft()[1], current)
        gathers: list[Operation | None] = [None] * self.layers
        for layer in reversed(range(self.layers)):
            yield rank.launch(f"launch layer {layer} backward", launches, layer)
            current = rank.compute(
                f"layer {layer} backward",
                work,
                layer,
                after=[gathers[layer]],
                allocates=working,
                frees=working
                + (head_gradient if layer == self.layers - 1 else ())
                + self._hold(ACTIVATIONS, self.kept_bytes)
                + self._hold(GATHERED, self.gathered_bytes),
            )
            if layer >= self.live:  # the memory that this layer gives back holds one further ahead
                gathers[layer - self.live] = self._gather(layer - self.live, current)
            while buckets and buckets[0][0] == layer:
                yield from self._flush(flush, buckets.popleft()[1], current)
        hidden = 2 * workload.hidden_bytes
        current = rank.compute("embedding backward", costs.embedding, frees=self._hold(ACTIVATIONS, hidden))
        for _, bucket in buckets:
            yield from self._flush(flush, bucket, current)
        self._in_flight.clear()
        yield rank.synchronize(rank.compute_stream, rank.reduce_stream)
        rank.gpu_memory.free(REDUCED, reduced)

    def _gather(self, layer: int, after: Operation | None) -> Operation | None:
        return self.rank.all_gather(self.layer_bytes, layer, [after], self._hold(GATHERED, self.gathered_bytes))

    def _gather_vocabulary(self, after: Operation | None) -> Operation | None:
        """The embedding at first, then the head, each gathered once an iteration."""
        tied = self.rank.workload.model.tied_embeddings
        if not self.vocab_bytes or self._vocabularies == (1 if tied else 2):
            return None
        self._vocabularies += 1
        return self.rank.all_gather(self.vocab_bytes, -1, [after], self._hold(GATHERED, self.vocab_bytes))

    def release_vocabulary(self) -> None:
        """After the update: embedding and head have stayed gathered until then."""
        if self._vocabularies:
            self.rank.gpu_memory.free(GATHERED, self._vocabularies * self.vocab_bytes)
            self._vocabularies = 0

    def _flush(self, flush: FlushBucket, bucket: Bucket, filled_by: Operation) -> Process:
        rank = self.rank
        while self._in_flight and self._in_flight[0].done:
            self._in_flight.popleft()
        if len(self._in_flight) > MAX_BUCKETS_IN_FLIGHT:
            yield rank.synchronize(self._in_flight.popleft())
        nbytes = BF16 * bucket.elements
        filled = rank.elementwise(rank.reduce_stream, "d2d", 2 * nbytes, "copy into bucket", after=[filled_by])
        rank.wait_event(rank.reduce_stream, rank.reduce_scatter(nbytes, [filled]))
        yield from flush(rank, bucket)
        last = rank.reduce_stream.tail
        assert last is not None
        self._in_flight.append(last)
