"""A training iteration as DeepSpeed runs it: forward and backward of ZeRO, layer by layer, then the update.

The program owns the phases and walks the layers; what moves when is the schedule's matter (`TrainingSchedule`). With
ZeRO-3, layers' 16-bit parameters are gathered ahead of use, until `MAX_LIVE` elements are gathered at once, and
released after use; those of the last layers stay gathered between forward and backward. Gradients go through a bucket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from offsim.engine import Code, MemoryChange, Operation
from offsim.platform.platform import GPU
from offsim.programs.checkpoints import Checkpoints
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch, TrainingSchedule
from offsim.programs.transformer import BF16, FP32, Bucket, Cost, Kernel, cost

BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's reduce_bucket_size where the scenario gives none."""
MAX_LIVE = 1_000_000_000
"""DeepSpeed's stage3_max_live_parameters and stage3_max_reuse_distance, in elements."""
PREFETCH_LAYERS = 2
"""Layers whose gathers are issued while one is launched: each of its modules prefetches 50M elements."""
NORM_ELEMENTS = 250_000_000
"""Elements whose norm DeepSpeed takes at once."""
FP64 = 8
MAX_BUCKETS_IN_FLIGHT = 2
"""DeepSpeed's max_param_reduce_events: the host waits for the oldest when more than these are unfinished."""

PARAMETERS = "parameters (bf16)"
GATHERED = "gathered parameters"
ACTIVATIONS = "activations"
WORKING_SET = "layer working set"
LOSS = "logits and loss"
BUCKET = "gradient bucket"
REDUCED = "reduced gradients"
WHOLE_GRADIENTS = "gradients of the whole model (bf16)"
SCORES = "attention score buffer"


class NotGathered(Exception):
    """A kernel runs without parameters."""


class GradientsDropped(Exception):
    """Gradients are overwritten before anything has read them."""


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
        hidden = rank.tensor_parallel_seconds(workload.hidden_bytes)
        per_token = rank.tensor_parallel_seconds(FP32 * workload.tokens)

        def timed(kernels: list[Kernel], all_reduces: float = 0.0) -> Cost:
            alone = cost(kernels, gpu)
            return Cost(alone.seconds + all_reduces, alone.flops, alone.nbytes)

        return cls(
            timed(workload.embedding_kernels(), hidden),
            timed(workload.layer_forward(), 2 * hidden),
            timed(workload.layer_backward(), 2 * hidden),
            timed(workload.head_forward(), 3 * per_token),
            timed(workload.head_backward(), hidden),
            rank.profile.host.module_launch_s,
        )


class Training:
    """The iteration of one rank; keeps what one pass leaves to the next."""

    def __init__(self, rank: Rank, schedule: TrainingSchedule) -> None:
        self.rank = rank
        self.schedule = schedule
        self.checkpoints: Checkpoints | None = None
        self.costs = PassCosts.of(rank)
        workload = rank.workload
        self.layers = workload.model.layers
        self.stage = workload.training.zero_stage
        self.sharded = workload.training.data_parallel > 1 and self.stage == 3
        placed = schedule.placed
        fetched = self.sharded or placed.parameters != GPU
        self.vocab_bytes = float(BF16 * workload.vocab_elements) if fetched else 0.0
        self.gathered_bytes = float(BF16 * workload.layer_elements) if fetched else 0.0
        self.gathers_late = self.sharded and schedule.gathers_late and placed.parameters == GPU and self.kept > 0
        self.recomputed = placed.recomputed
        activations = workload.layer_activation_bytes
        inputs = schedule.kept_inputs * workload.hidden_bytes
        self.kept_bytes = [inputs if i < self.recomputed else activations for i in range(self.layers)]
        """What each layer's forward leaves to its backward: its input where it is recomputed, else all activations."""
        self.bucket_elements = workload.training.reduce_bucket_size or BUCKET_ELEMENTS
        self.buckets = workload.buckets(self.bucket_elements)
        self.in_place = workload.by_layer and workload.training.data_parallel == 1
        """Whether gradients stay where backward leaves them: no bucket, no reduction."""
        if workload.by_layer:
            self.bucket_elements = max(bucket.elements for _, bucket in self.buckets)
        self.reduced: dict[int, float] = {}
        for layer, bucket in self.buckets:
            self.reduced[layer] = max(self._reduced(bucket), self.reduced.get(layer, 0.0))
        """Layer whose backward flushes a bucket -> what its reduction holds."""
        self.reduced_in_mlp = {layer for layer, bucket in self.buckets if bucket.in_mlp}
        """Layers that flush one in the MLP's backward, when attention holds what it has kept still."""
        self.forward_bytes = self._passing(lambda _: workload.layer_forward_bytes)
        """What a layer's forward holds beside what it keeps."""
        self.backward_bytes = self._passing(self._backward_bytes)
        """What a layer's backward holds beside what its forward has kept and what is reduced meanwhile."""
        rank.tier(placed.parameters).allocate(PARAMETERS, schedule.parameter_bytes * workload.resident)
        gpu = rank.gpu_memory
        gpu.allocate(BUCKET, BF16 * self.bucket_elements)
        if self.stage < 2:
            gpu.allocate(WHOLE_GRADIENTS, BF16 * workload.parameters)
        gpu.allocate(SCORES, workload.score_buffer_bytes)
        self._changes: dict[tuple[str, float], tuple[MemoryChange, ...]] = {}
        self._in_flight: deque[Operation] = deque()
        self._vocabularies = 0
        self._written: dict[int, list[Operation | None]] = {}
        """What wrote the parameters of each layer that was fetched last."""
        self._idle: dict[int, int] = {}
        """Of each bucket, the micro-steps of the iteration in which its gradients went nowhere."""

    @cached_property
    def live(self) -> int:
        """Layers that are gathered at once."""
        most = max(-(-MAX_LIVE // self.rank.workload.layer_elements), 2)
        return min(self.schedule.layers_ahead or most, self.layers)

    @cached_property
    def kept(self) -> int:
        """The last layers, which stay gathered between forward and backward."""
        return self.live if self.schedule.keeps_last_layers else 0

    def phases(self) -> Iterator[tuple[str, Code]]:
        """The phases of an iteration in order, each with the host thread's code that runs it."""
        steps = range(self.rank.workload.training.micro_steps)
        passes = [steps] if self.schedule.order == "layer" else [range(step, step + 1) for step in steps]
        for members in passes:
            yield "forward", self.forward(members)
            yield "backward", self.backward(members, members[0] == 0, members[-1] == steps[-1])
        yield "update", self.update()

    def update(self) -> Code:
        """What comes between backward and the next forward."""
        if self.checkpoints:
            yield from self.checkpoints.before_update()
        yield from self.schedule.before_update(self.rank)
        yield from self.schedule.update(self.rank)
        if self.checkpoints:
            yield from self.checkpoints.after_update()
        if self._vocabularies:  # embedding and head have stayed gathered until now
            self.rank.gpu_memory.free(GATHERED, self._vocabularies * self.vocab_bytes)
            self._vocabularies = 0

    def _backward_bytes(self, layer: int) -> float:
        """The most that a layer holds in backward, recomputation included, beside what is reduced meanwhile."""
        workload, reduced = self.rank.workload, self.reduced.get(layer, 0.0)
        again = workload.layer_forward_bytes if layer < self.recomputed else 0.0
        flushing = workload.layer_flush_bytes - (0.0 if layer in self.reduced_in_mlp else reduced)
        return max(max(again, workload.layer_backward_bytes) - reduced, flushing)

    def _passing(self, most: Callable[[int], float]) -> list[float]:
        """`most` of each layer without what it keeps; a recomputed layer has a part of it between two kept inputs."""
        parts, kept = self.schedule.kept_inputs, self.rank.workload.layer_activation_bytes
        inputs = self.rank.workload.hidden_bytes
        layers = range(self.layers)
        return [max(most(i) / parts - inputs if i < self.recomputed else most(i) - kept, 0.0) for i in layers]

    def _reduced(self, bucket: Bucket) -> float:
        """ZeRO-3's copy of several gradients in the order of ranks, and a gradient's share in fp64 for its norm.

        DeepSpeed's `reduce_scatter_coalesced` and `_constant_buffered_norm2`.
        """
        if self.in_place:
            return 0.0
        alone = bucket.elements == bucket.largest * self.rank.workload.training.data_parallel
        copied = self.stage == 3 and not alone
        return BF16 * bucket.elements * copied + FP64 * min(bucket.largest, NORM_ELEMENTS)

    def _hold(self, occupant: str, nbytes: float) -> tuple[MemoryChange, ...]:
        if (occupant, nbytes) not in self._changes:
            self._changes[occupant, nbytes] = ((self.rank.gpu_memory, occupant, nbytes),) if nbytes else ()
        return self._changes[occupant, nbytes]

    def forward(self, steps: range) -> Code:
        """The forward pass of these micro-steps, layer by layer."""
        rank, costs, workload, schedule = self.rank, self.costs, self.rank.workload, self.schedule
        vocabulary = yield from self._fetch_vocabulary(-1, None)
        gathers = [(yield from self._fetch(0, "forward", None))]
        computed: list[Operation] = []
        hidden = self._hold(ACTIVATIONS, 2 * workload.hidden_bytes)
        for _ in steps:
            current = rank.compute("embedding", costs.embedding, after=[vocabulary], allocates=hidden)
        for layer in range(self.layers):
            for further in range(len(gathers), min(len(gathers) + PREFETCH_LAYERS, layer + self.live, self.layers)):
                released = computed[further - self.live] if further >= self.live else None
                gathers.append((yield from self._fetch(further, "forward", released)))
            kept, passing = self.kept_bytes[layer], self._hold(WORKING_SET, self.forward_bytes[layer])
            for step in steps:
                yield rank.launch(f"launch layer {layer}", costs.launch, layer)
                frees = passing
                if step == steps[-1] and layer < self.layers - self.kept:
                    frees += self._hold(GATHERED, self.gathered_bytes)
                current = rank.compute(
                    f"layer {layer} forward",
                    costs.layer_forward,
                    layer,
                    after=[gathers[layer]],
                    allocates=self._hold(ACTIVATIONS, kept) + passing,
                    frees=frees,
                )
                if step == steps[0]:
                    self._used(current, layer, fetched=True)
                yield from schedule.keep(rank, layer, step, kept, current)
            computed.append(current)
            if layer < self.layers - self.kept:
                schedule.release(rank, layer, "forward", current)
        vocabulary = yield from self._fetch_vocabulary(self.layers, computed[-2] if self.layers > 1 else None)
        kept, temporary = FP32 * workload.logits_held, (FP32 + BF16) * workload.logits_held
        for _ in steps:
            yield rank.launch("launch head", costs.launch)
            head = rank.compute(
                "head and loss",
                costs.head_forward,
                after=[vocabulary],
                allocates=self._hold(LOSS, kept + temporary),
                frees=self._hold(LOSS, temporary),
            )
        yield rank.wait(head)

    def backward(self, steps: range, first: bool, last: bool) -> Code:
        """The backward pass of these micro-steps; gradients are flushed after the last of them."""
        rank, costs, workload, schedule = self.rank, self.costs, self.rank.workload, self.schedule
        buckets = deque(self.buckets)
        logits_gradient = self._hold(WORKING_SET, BF16 * workload.logits_held)
        head_gradient = self._hold(WORKING_SET, BF16 * workload.vocab_elements)
        if last:
            rank.backward_from[rank.iteration] = len(rank.left)
        reduced = {layer: self._hold(REDUCED, nbytes) for layer, nbytes in self.reduced.items()}
        flushed = head_gradient + reduced.get(self.layers, ())
        for _ in steps:
            yield rank.launch("launch head backward", costs.launch)
            current = rank.compute(
                "head backward",
                costs.head_backward,
                allocates=logits_gradient + flushed,
                frees=logits_gradient + flushed + self._hold(LOSS, FP32 * workload.logits_held),
            )
        while buckets and buckets[0][0] == self.layers:
            yield from self._flush(buckets.popleft()[1], current, first, last)
        gathers: list[Operation | None] = [None] * self.layers
        for layer in reversed(range(self.layers - self.live, self.layers - self.kept)):
            gathers[layer] = yield from self._fetch(layer, "backward", None)
        before, reduced_before = current, None
        for layer in reversed(range(self.layers)):
            work, launches, again = costs.layer_backward, costs.launch, costs.layer_forward
            late = self.gathers_late and layer < self.layers - self.kept
            if layer < self.recomputed:
                launches *= 2
                if not late:
                    work = Cost(work.seconds + again.seconds, work.flops + again.flops, work.nbytes + again.nbytes)
            kept, passing = self.kept_bytes[layer], self._hold(WORKING_SET, self.backward_bytes[layer])
            passing += reduced.get(layer, ())
            for step in reversed(steps):
                restored = yield from schedule.restore(rank, layer, step, kept)
                yield rank.launch(f"launch layer {layer} backward", launches, layer)
                final, taken = step == steps[0], passing
                frees = passing + self._hold(ACTIVATIONS, kept)
                if final and layer < self.live:
                    # Module by module, what this layer gives back holds a layer further ahead.
                    frees += self._hold(GATHERED, self.gathered_bytes)
                if late and layer < self.recomputed:  # its modules' kernels run as the gathers of each come in
                    behind = [reduced_before, restored]
                    restored = rank.compute(f"layer {layer} recomputation", again, layer, behind, allocates=passing)
                    taken = ()
                behind = [gathers[layer], restored]
                current = rank.compute(f"layer {layer} backward", work, layer, behind, allocates=taken, frees=frees)
                schedule.ran(rank, layer, step, current)
                if step == steps[-1]:
                    self._used(current, layer, fetched=layer < self.layers - self.kept)
            schedule.release(rank, layer, "backward", current)
            if layer >= self.live and not self.gathers_late:
                gathers[layer - self.live] = yield from self._fetch(layer - self.live, "backward", before, ())
            while buckets and buckets[0][0] == layer:
                yield from self._flush(buckets.popleft()[1], current, first, last)
            if self.gathers_late and 0 < layer <= self.layers - self.kept:
                reduced_before = rank.collective_stream.tail
                gathers[layer - 1] = yield from self._fetch(layer - 1, "backward", before, ())
            before = current
        hidden, flushed = self._hold(ACTIVATIONS, 2 * workload.hidden_bytes), reduced.get(-1, ())
        for _ in steps:
            current = rank.compute("embedding backward", costs.embedding, allocates=flushed, frees=hidden + flushed)
        for _, bucket in buckets:
            yield from self._flush(bucket, current, first, last)
        self._in_flight.clear()
        yield from schedule.after_backward(rank, last)
        yield rank.wait(rank.compute_stream, rank.reduce_stream)

    def _fetch(
        self, layer: int, pass_: str, after: Operation | None, memory: tuple[MemoryChange, ...] | None = None
    ) -> Code:
        if memory is None:
            memory = self._hold(GATHERED, self.gathered_bytes)
        elements, behind = self.rank.workload.layer_elements, [after, *self._writes(layer)]
        return (yield from self.schedule.fetch(self.rank, Fetch(layer, pass_, elements, behind, memory)))

    def _used(self, kernel: Operation, layer: int, fetched: bool) -> None:
        """Note the first kernel of a pass through a layer, for the checks of the run."""
        rank, gather = self.rank, None
        if fetched and self.sharded and (gather := rank.gathered.pop(layer, None)) is None:
            whole = self.gathered_bytes * (1 - 1 / rank.workload.training.data_parallel)
            if not any(copy.layer == layer and copy.bytes >= whole for copy in rank.came):
                raise NotGathered(f"'{kernel.name}' has no parameters: expected an all-gather of the layer by fetch")
        rank.uses.append((kernel, layer, self._written[layer], gather))

    def _writes(self, layer: int) -> list[Operation | None]:
        """The operations that wrote a layer's parameters, which its kernels wait for."""
        rank, schedule = self.rank, self.schedule
        needed = [rank.parameters[index] for index in rank.workload.subgroups_of_layers[layer]]
        for block in needed:
            block.check(rank.iteration, schedule.lag)
        written = self._written[layer] = [block.since for block in needed] if schedule.waits_for_parameters else []
        return written

    def _fetch_vocabulary(self, layer: int, after: Operation | None) -> Code:
        """The embedding at first, then the head, each fetched once an iteration."""
        tied = self.rank.workload.model.tied_embeddings
        behind = [after, *self._writes(-1 if tied else layer)]
        if not self.vocab_bytes:
            return self.rank.all_of(behind[1:])
        if self._vocabularies == (1 if tied else 2):
            return None
        self._vocabularies += 1
        memory = self._hold(GATHERED, self.vocab_bytes)
        elements = self.rank.workload.vocab_elements
        return (yield from self.schedule.fetch(self.rank, Fetch(layer, "forward", elements, behind, memory)))

    def _flush(self, bucket: Bucket, filled_by: Operation, first: bool, last: bool) -> Code:
        rank = self.rank
        while self._in_flight and rank.engine.has_ended(self._in_flight[0]):
            self._in_flight.popleft()
        if len(self._in_flight) > MAX_BUCKETS_IN_FLIGHT:
            yield rank.wait(self._in_flight.popleft())
        nbytes = BF16 * bucket.elements
        if self.in_place:
            rank.wait_event(rank.reduce_stream, filled := filled_by)
        else:
            filled = rank.elementwise(rank.reduce_stream, "d2d", 2 * nbytes, "copy into bucket", after=[filled_by])
        if self.stage >= 2:
            rank.wait_event(rank.reduce_stream, rank.reduce_scatter(nbytes, [filled]))
        elif last:  # stages 0 and 1 accumulate all gradients, and reduce them once
            reduce = rank.reduce_scatter if self.stage else rank.all_reduce
            rank.wait_event(rank.reduce_stream, reduce(nbytes, after=[filled]))
        tail = rank.reduce_stream.tail
        assert tail is not None
        if last:
            rank.reduced.append((rank.iteration, bucket, tail))
        known = len(rank.engine.operations)
        yield from self.schedule.gradient(rank, bucket, first, last)
        if self.stage >= 2 and not (first and last):
            self._moved(bucket, first, len(rank.engine.operations) > known)
        tail = rank.reduce_stream.tail
        assert tail is not None
        self._in_flight.append(tail)

    def _moved(self, bucket: Bucket, first: bool, moved: bool) -> None:
        """Whether gradients went anywhere: in all micro-steps of an iteration but one, in which they may stay."""
        idle = self._idle[id(bucket)] = (0 if first else self._idle[id(bucket)]) + (not moved)
        if idle > 1:
            groups = ", ".join(str(index) for index, _ in bucket.shares)
            problem = "gradients of several micro-steps went nowhere, expected `gradient` to add them up"
            raise GradientsDropped(f"sub-groups {groups}: {problem}")
