"""What a training schedule is: where states live, what moves when, who waits for what. Every hook has a default.

Hooks that are `Code` run on the rank's host thread; each operation that they `yield` is a blocking call there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from offsim.engine import Code, MemoryChange, Operation
from offsim.platform.platform import GPU, HOST
from offsim.programs.activations import rule_of
from offsim.programs.driven import watch
from offsim.programs.options import ScheduleOptions, declared
from offsim.programs.rank import Rank
from offsim.programs.transformer import BF16, FP32, Bucket, Subgroup, Workload
from offsim.states.placement import Placed

OPTIMIZER_STATE = "optimizer state p, m, v (fp32)"
GRADIENTS = "gradients (fp32)"
EXACT = "exact"
UNCLIPPED = "exact if not clipped"
"""Where updates begin before all gradients are there."""
LEGEND = {UNCLIPPED: "updates begin before the norm of all gradients is known, which therefore cannot clip them"}
"""What short words of `exactness` mean."""


class Fetch(NamedTuple):
    """A layer whose parameters kernels need on the GPU."""

    layer: int
    """-1 for the embedding, the number of layers for the head."""
    pass_: str
    elements: float
    after: Sequence[Operation | None] = ()
    memory: Sequence[MemoryChange] = ()
    """What it takes on the GPU."""


class TrainingSchedule:
    """One instance serves one rank, over all iterations.

    Subclasses override hooks; `placed` says where the scenario puts states, `options` has the checked options.
    """

    name: ClassVar[str]
    Options: ClassVar[type[ScheduleOptions]] = ScheduleOptions

    program: ClassVar[str] = "training"
    """What it schedules: `training`, or `zeroth_order` for subclasses of `ZerothOrderSchedule`."""
    forwards: ClassVar[int] = 3
    """Forward passes that the matrix work of a micro-batch is worth: backward is worth two."""
    lag: int = 0
    """Updates that parameters may be behind when kernels read them; `staleness` says it by the options."""
    period: int = 1
    """Iterations after which the schedule does the same again; an instance may set it by its options."""
    order: ClassVar[Literal["micro_batch", "layer"]] = "micro_batch"
    """Whether all layers run for a micro-batch, or all micro-batches for a layer, before the next one."""
    by_layer: ClassVar[bool] = False
    """Whether each layer, the embedding and the head are a sub-group and a bucket of their own."""
    waits_for_parameters: ClassVar[bool] = True
    """Whether kernels wait until the parameters that they read are there; false where the real system races."""
    approximation: ClassVar[str] = ""
    """How an update differs from that of plain mixed-precision training, in a few words; empty where it does not."""
    starts_with_update: ClassVar[bool] = False
    """Whether simulating an update before the first iteration reaches the steady state sooner."""

    state_bytes: int = 3 * FP32
    """Bytes of p, m and v of a parameter."""
    layers_ahead: int | None = None
    """Layers whose parameters may be on the GPU at once; None for as many as DeepSpeed's max_live_parameters allows."""

    stages: ClassVar[tuple[int, ...]] = (3,)
    """ZeRO stages that it is made for."""
    optimizer_kinds: ClassVar[tuple[str, ...]] = (GPU, "memory")
    """Kinds of tiers that optimizer state may be in: gpu, memory, storage; empty where there is none."""
    parameter_kinds: ClassVar[tuple[str, ...]] = (GPU,)
    activation_kinds: ClassVar[tuple[str, ...]] = (GPU, "memory")
    keeps_last_layers: bool = True
    """Whether the last layers of a forward stay on the GPU for its backward; else all are fetched again."""
    parameter_bytes: ClassVar[int] = BF16
    """Bytes of a parameter in the tier of parameters; 0 where layers are made of fp32 ones in the optimizer state."""
    optimizer_home: ClassVar[str] = HOST
    """The tier of optimizer state where a scenario names none."""
    parameter_home: ClassVar[str] = GPU
    """The tier of 16-bit parameters where a scenario names none."""
    activation_home: ClassVar[str] = GPU
    """The tier where activations wait for backward, where a scenario names none."""
    kept_inputs: ClassVar[int] = 1
    """Hidden states that a recomputed layer keeps: its input, or the inputs of its halves."""
    gradients_with_state: ClassVar[bool] = True
    """Whether fp32 gradients are kept in the tier of the optimizer state."""
    placement_options: ClassVar[tuple[str, ...]] = ()
    """Options that say where optimizer state is; a scenario gives them or `placement.optimizer`."""

    gathers_late: ClassVar[bool] = False
    """Whether backward gathers a layer behind the reduce-scatter of the layer before it, as measured of DeepSpeed."""
    deepspeed: ClassVar[dict[str, Any] | None] = None
    """Keys of DeepSpeed's configuration that choose it, by dotted path."""
    special_build: ClassVar[bool] = False
    """Whether those keys choose it in a build of its own only, not in DeepSpeed as released."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if not cls.__module__.startswith("offsim."):  # tests watch our own: see tests/schedulers/conftest.py
            watch(cls)

    def __init__(self, options: Any, workload: Workload, placed: Placed) -> None:
        self.options = options
        self.workload = workload
        self.placed = placed
        self.lag = self.staleness(options)
        self.activations = rule_of(placed, workload)

    @property
    def subgroups(self) -> list[Subgroup]:
        """The rank's sub-groups in order."""
        return self.workload.subgroups

    @classmethod
    def default_tiers(cls, options: Any, subgroups: int) -> tuple[str, ...]:
        """Tier of each sub-group's optimizer state where the scenario's placement names none."""
        return (cls.optimizer_home,) * subgroups

    @classmethod
    def default_recomputed(cls, options: Any, layers: int) -> int:
        """Layers that backward recomputes where the scenario's placement names none, of so many that it may."""
        return layers

    @classmethod
    def deepspeed_keys(cls, options: Any) -> dict[str, Any] | None:
        """Keys of DeepSpeed's configuration that say these options, by dotted path; None if it has no such schedule."""
        if cls.deepspeed is None:
            return None
        said = (option for option in declared(cls.Options) if option.deepspeed)
        return cls.deepspeed | {one.deepspeed: one.deepspeed_value(getattr(options, one.name)) for one in said}

    @classmethod
    def deepspeed_notes(cls, options: Any) -> list[str]:
        """What has to be done besides setting those keys."""
        return []

    @classmethod
    def updates_early(cls, options: Any) -> bool:
        """Whether updates begin before all gradients are there, so that their norm cannot clip them."""
        return False

    @classmethod
    def spills(cls, options: Any) -> bool:
        """Whether an update's last uploads reach into the next forward, which does not wait for them."""
        return not cls.waits_for_parameters

    @classmethod
    def approximates(cls, options: Any) -> str:
        """What its `approximation` is with these options."""
        return cls.approximation

    @classmethod
    def staleness(cls, options: Any) -> int:
        """Updates that parameters are behind when kernels read them, with these options: at most `lag`."""
        return cls.lag

    @classmethod
    def deviates(cls, options: Any) -> bool:
        """Whether it means to compute something else than with every update awaited; a race does not."""
        return bool(cls.approximates(options)) or (cls.waits_for_parameters and cls.staleness(options) > 0)

    @classmethod
    def exactness(cls, options: Any) -> str:
        """What training with it computes, compared with waiting for every update: the same, or what not."""
        found = [f"approximate: {how}"] if (how := cls.approximates(options)) else []
        if behind := cls.staleness(options):
            updates = f"{behind} update{'s' * (behind > 1)}"
            racing = f"race: late parameters up to {updates} old"
            found.append(f"stale by {updates}" if cls.waits_for_parameters else racing)
        return "; ".join(found) or (UNCLIPPED if cls.updates_early(options) else EXACT)

    def on(self, *tiers: str) -> list[Subgroup]:
        """Sub-groups whose optimizer state is in one of these tiers, in order."""
        return [subgroup for subgroup in self.subgroups if self.placed.optimizer[subgroup.index] in tiers]

    def off_gpu(self) -> list[Subgroup]:
        """Sub-groups whose optimizer state is not on the GPU."""
        return [subgroup for subgroup in self.subgroups if self.placed.optimizer[subgroup.index] != GPU]

    def elements(self, bucket: Bucket, *tiers: str) -> int:
        """Parameters of a bucket that the rank owns and whose optimizer state is in these tiers, or in any."""
        places = self.placed.optimizer
        return sum(share for index, share in bucket.shares if not tiers or places[index] in tiers)

    def off_gpu_elements(self, bucket: Bucket, large: bool = False) -> int:
        """Parameters of a bucket, or of its `large` tensors, that the rank owns and whose state is not on the GPU."""
        shares = bucket.large if large else bucket.shares
        return sum(share for index, share in shares if self.placed.optimizer[index] != GPU)

    def unused(self) -> str:
        """What it is chosen for, but does not do with this model, placement and options; empty where it does it."""
        return ""

    # Hooks

    def place(self, rank: Rank) -> None:
        """Take the memory that states hold throughout: by default p, m, v and gradients, each where it is placed."""
        for tier in dict.fromkeys(self.placed.optimizer):
            held = count(self.on(tier))
            rank.tier(tier).allocate(OPTIMIZER_STATE, self.state_bytes * held)
            if self.gradients_with_state:
                rank.tier(tier).allocate(GRADIENTS, FP32 * held)

    def fetch(self, rank: Rank, wanted: Fetch) -> Code:
        """Bring a layer's parameters to the GPU before its kernels; returns the operation that they wait for.

        By default a rank's slice is copied from the tier of parameters, and gathered from all ranks in ZeRO-3.
        """
        after, memory = wanted.after, wanted.memory
        if self.placed.parameters != GPU:
            after, memory = [(yield from self.fetch_slice(rank, wanted))], ()
        if self.workload.training.zero_stage < 3 or self.workload.training.data_parallel == 1:
            return rank.all_of(after)
        layer = wanted.layer if wanted.layer < self.workload.model.layers else -1
        return rank.all_gather(BF16 * wanted.elements, layer, after, memory)

    @property
    def fetched_from(self) -> str:
        """The memory tier that slices of parameters are copied to the GPU from."""
        return self.placed.parameters

    def fetch_slice(self, rank: Rank, wanted: Fetch) -> Code:
        """Copy the rank's slice of a layer to the GPU: behind the gathers, and blocking if there are other ranks.

        DeepSpeed, partitioned_param_coordinator.py: the copy is on the all-gather stream, parameter by parameter.
        """
        ranks = self.workload.training.data_parallel
        copy = rank.move(
            BF16 * wanted.elements / ranks,
            self.fetched_from,
            GPU,
            "fetch parameters",
            layer=wanted.layer,
            stream=rank.collective_stream,
            after=wanted.after,
            allocates=wanted.memory,
        )
        if ranks > 1:
            yield copy
        return copy

    def release(self, rank: Rank, layer: int, pass_: str, after: Operation) -> None:
        """After the operation a layer's parameters are not needed any more in this pass."""

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        """After a layer's forward: the bytes that it leaves to backward stay, or move by the scenario's rule."""
        yield from self.activations.keep(rank, layer, step, nbytes, after)

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        """Before a layer's backward; returns the operation that its kernels wait for."""
        return (yield from self.activations.restore(rank, layer, step, nbytes))

    def ran(self, rank: Rank, layer: int, step: int, after: Operation) -> None:
        """After a layer's backward kernels are enqueued."""
        self.activations.ran(rank, layer, step, after)

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        """Store the rank's share of a reduced bucket; `first` and `last` micro-step of an iteration."""
        raise NotImplementedError("found no hook `gradient`, expected one")

    def after_backward(self, rank: Rank, last: bool) -> Code:
        """At the end of a backward pass, `last` of the iteration: wait for what it left."""
        yield from ()

    def before_update(self, rank: Rank) -> Code:
        """The gradient norm: a scalar all-reduce per sub-group, each awaited."""
        for subgroup in self.subgroups:
            yield rank.launch(f"norm {subgroup.index}", rank.profile.host.subgroup_launch_s)
            yield rank.all_reduce(8, "all-reduce norm")

    def update(self, rank: Rank) -> Code:
        """Update all of the rank's sub-groups, and tell when their 16-bit parameters are there (`written`)."""
        raise NotImplementedError("found no hook `update`, expected one")

    def update_resident(self, rank: Rank, subgroups: Sequence[Subgroup]) -> Code:
        """Sub-groups whose state lives on the GPU: one AdamW each, and a cast into the bf16 parameters."""
        stream = rank.compute_stream
        for subgroup in subgroups:
            home = self.home_of(subgroup)
            rank.gpu_adam(subgroup.elements, subgroup.index)
            nbytes = (FP32 + BF16) * subgroup.elements
            stored = rank.elementwise(stream, "d2d", nbytes, "cast parameters", subgroup.index)
            if home != GPU:
                nbytes = BF16 * subgroup.elements
                stored = rank.move(nbytes, GPU, home, "store parameters", subgroup.index, stream=stream)
            self.written(rank, subgroup, stored)
        yield rank.wait(rank.compute_stream)

    def home_of(self, subgroup: Subgroup) -> str:
        """The tier of a sub-group's 16-bit parameters."""
        return self.placed.parameters

    def state_tier(self, subgroup: Subgroup) -> str:
        """The tier where a sub-group's optimizer state is between updates."""
        return self.placed.optimizer[subgroup.index]

    def gather_updated(self, rank: Rank) -> Code:
        """In stages 1 and 2, the parameters that each rank has updated go to all."""
        if self.workload.training.zero_stage in (1, 2):
            yield rank.all_gather(BF16 * self.workload.parameters, -1)

    def written(self, rank: Rank, subgroup: Subgroup, since: Operation | None, update: int | None = None) -> None:
        """A sub-group's 16-bit parameters hold the result of an update from the end of `since` on.

        `update` is that update's iteration; by default the one that `since` belongs to, else the present one.
        """
        of = update if update is not None else since.iteration if since is not None else rank.iteration
        rank.parameters[subgroup.index].write(of, since)


def count(subgroups: Sequence[Subgroup]) -> int:
    """Parameters of sub-groups."""
    return sum(s.elements for s in subgroups)
