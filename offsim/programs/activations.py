"""How what layers keep for backward leaves the GPU and comes back: the hooks of a rule, and the rule without a name.

A rule works under any schedule. It is asked after the forward of each layer and micro-step (`keep`), before its
backward (`restore`) and after that (`ran`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from offsim.engine import Code, MemoryChange, Operation, Stream
from offsim.platform.platform import GPU
from offsim.programs.options import ScheduleOptions
from offsim.programs.rank import Rank
from offsim.programs.transformer import Workload
from offsim.states.placement import Placed

KEPT = "activations"
OFFLOADED = "activations of layers"


class RuleOptions(ScheduleOptions):
    """Options of a rule, beside its name in `placement.activations`; each rule subclasses it with its own."""


class ActivationRule:
    """One instance serves one rank. All layers but the last leave after their forward and come back one layer ahead.

    Rules override what differs.
    """

    name: ClassVar[str]
    Options: ClassVar[type[RuleOptions]] = RuleOptions

    kinds: ClassVar[tuple[str, ...]] = ("memory",)
    """Kinds of tiers that activations may be in."""
    recomputes: ClassVar[bool] = True
    """Whether layers may be recomputed."""
    pinned: ClassVar[bool] = True
    direct: ClassVar[bool] = False
    """Whether copies bypass host memory."""

    def __init__(self, options: Any, workload: Workload, placed: Placed) -> None:
        self.options = options
        self.workload = workload
        self.placed = placed
        self.layers = workload.model.layers
        self.forwards: dict[tuple[int, int], Operation] = {}
        """The forward kernels of each layer and micro-step."""
        self.backwards: dict[int, Operation] = {}
        """The backward kernels of each layer, of its last micro-step so far."""
        self.copies: dict[tuple[int, int], Operation] = {}
        """Of each layer and micro-step, the copy that left last."""
        self.ahead: dict[tuple[int, int], Operation | None] = {}
        """Copies that come back for layers and micro-steps whose backward has not been launched."""

    # Hooks

    def stays(self, layer: int) -> bool:
        """Whether what a layer keeps never leaves the GPU: the last layer's is needed at once."""
        return layer == self.layers - 1

    def keep(self, rank: Rank, layer: int, step: int, nbytes: float, after: Operation) -> Code:
        """After a layer's forward: the bytes that it leaves to backward stay, or move."""
        if not self.stays(layer):
            self.send(rank, layer, step, nbytes, [after], frees=self.on_gpu(rank, nbytes))
        yield from ()

    def restore(self, rank: Rank, layer: int, step: int, nbytes: float) -> Code:
        """Before a layer's backward; returns the operation that its kernels wait for.

        Copies run one layer ahead: while a layer's kernels run, the activations of the one before it come back.
        """
        yield from ()
        if self.stays(layer):
            return None
        return self.bring(rank, layer, nbytes, [rank.stream("activations out").tail, self.backwards.get(layer + 2)])

    def ran(self, rank: Rank, layer: int, step: int, after: Operation) -> None:
        """A layer's backward ends with the operation `after`, which gives back what the layer kept."""
        self.backwards[layer] = after

    # What rules are made of

    def send(
        self,
        rank: Rank,
        layer: int,
        step: int,
        nbytes: float,
        after: Sequence[Operation | None],
        frees: Sequence[MemoryChange] = (),
        stream: Stream | None = None,
    ) -> Operation:
        """Copy to the tier of activations, where they take room; on a stream of its own by default."""
        self.copies[layer, step] = copy = rank.move(
            nbytes,
            GPU,
            self.placed.activations,
            "activations",
            layer=layer,
            stream=stream or rank.stream("activations out"),
            after=after,
            pinned=self.pinned,
            direct=self.direct,
            allocates=self.elsewhere(rank, nbytes),
            frees=frees,
        )
        return copy

    def bring(
        self, rank: Rank, layer: int, nbytes: float, after: Sequence[Operation | None], stream: Stream | None = None
    ) -> Operation:
        """Copy back to the GPU, and give up the room in the tier; on a stream of its own by default."""
        return rank.move(
            nbytes,
            self.placed.activations,
            GPU,
            "activations",
            layer=layer,
            stream=stream or rank.stream("activations back"),
            after=after,
            pinned=self.pinned,
            direct=self.direct,
            allocates=self.on_gpu(rank, nbytes),
            frees=self.elsewhere(rank, nbytes),
        )

    def bring_ahead(self, rank: Rank, layer: int, step: int) -> Operation | None:
        """What a layer's backward waits for; the host issues the copy of the layer before it too."""
        for each in (layer, layer - 1):
            if each >= 0 and not self.stays(each) and (each, step) not in self.ahead:
                self.ahead[each, step] = self.prefetch(rank, each, step)
        return self.ahead.pop((layer, step), None)

    def prefetch(self, rank: Rank, layer: int, step: int) -> Operation | None:
        """Copy back what has left, while the kernels of the layer after run."""
        copy = self.copies[layer, step]
        return self.bring(rank, layer, copy.bytes, [copy, self.backwards.get(layer + 2)])

    def recomputed(self, layer: int) -> bool:
        """Whether a layer keeps its input only, and backward repeats its forward."""
        return layer < self.placed.recomputed

    def saved_by(self, layer: int, step: int, after: Operation) -> Operation:
        """What ends when that which a layer keeps is there: its input from the layer before, else its own kernels.

        The first layer's input counts as there when its kernels have ended.
        """
        own = self.forwards[layer, step] = after
        return self.forwards.get((layer - 1, step), own) if self.recomputed(layer) else own

    def on_gpu(self, rank: Rank, nbytes: float) -> tuple[MemoryChange, ...]:
        """Activations in GPU memory, for what an operation allocates or frees."""
        return ((rank.gpu_memory, KEPT, nbytes),)

    def elsewhere(self, rank: Rank, nbytes: float) -> tuple[MemoryChange, ...]:
        """Activations in their tier."""
        return ((rank.tier(self.placed.activations), OFFLOADED, nbytes),)


class NoMove(ActivationRule):
    """What layers keep stays on the GPU."""

    kinds = (GPU,)

    def stays(self, layer: int) -> bool:
        """All layers do."""
        return True

    def ran(self, rank: Rank, layer: int, step: int, after: Operation) -> None:
        """Nothing comes back."""


def rule_of(placed: Placed, workload: Workload) -> ActivationRule:
    """The rule by which activations move under a placement."""
    if placed.rule is not None:
        rule: ActivationRule = placed.rule.chosen(placed.rule.options, workload, placed)
        return rule
    return (NoMove if placed.activations == GPU else ActivationRule)(RuleOptions(), workload, placed)
