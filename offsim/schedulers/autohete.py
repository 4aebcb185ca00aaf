"""AutoHete (arXiv 2503.01890): three numbers of blocks decide what is where, and low blocks are served first.

After third-party notes on the paper; no code has been published. Not said there and taken here: embedding and head stay
on the GPU, gradients and parameters cross the link in 16 bits, two buffers hold parameters that come from host memory.
The paper finds the three numbers by an integer program over the times of one block; here, tuning simulates them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from offsim.engine import Code
from offsim.inputs.fields import Flag
from offsim.platform.platform import GPU, HOST
from offsim.programs.rank import Rank
from offsim.programs.schedule import Fetch
from offsim.programs.training import PARAMETERS
from offsim.programs.transformer import BF16, Subgroup
from offsim.schedulers.base import ScheduleOptions, option
from offsim.schedulers.block_updates import BlockUpdates

BUFFERS = 2
Blocks = Annotated[int, Field(ge=0)] | Literal["all"]
TRIES = (0, 6, 13, 20, "all")


class AutoHeteOptions(ScheduleOptions):
    """The paper's n_ac, n_p and n_o, and the order of its queues."""

    checkpointed: Blocks = option("all", "first blocks that are checkpointed", tries=TRIES)
    parameters_on_cpu: Blocks = option(0, "first blocks whose parameters are in host memory", tries=TRIES)
    optimizer_on_cpu: Blocks = option("all", "last blocks that the CPU updates", tries=TRIES)
    priorities: Flag = option(True, "copies and updates of low blocks overtake others")


def at_most(blocks: int, asked: int | Literal["all"]) -> int:
    """So many of the blocks as an option asks for."""
    return blocks if asked == "all" else min(asked, blocks)


class AutoHete(BlockUpdates):
    """First blocks are recomputed and their parameters fetched, last ones updated by the CPU, the lowest first."""

    name = "autohete"
    Options = AutoHeteOptions
    layers_ahead = BUFFERS
    placement_options = ("optimizer_on_cpu",)

    @classmethod
    def default_tiers(cls, options: Any, subgroups: int) -> tuple[str, ...]:
        blocks = subgroups - 2
        on_cpu = at_most(blocks, options.optimizer_on_cpu)
        return (GPU, *[GPU] * (blocks - on_cpu), *[HOST] * on_cpu, GPU)

    @classmethod
    def default_recomputed(cls, options: Any, layers: int) -> int:
        return at_most(layers, options.checkpointed)

    def turn(self, block: Subgroup) -> int:
        return block.index if self.options.priorities else 0

    def home_of(self, subgroup: Subgroup) -> str:
        return HOST if 1 <= subgroup.index <= self.away else GPU

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.away = at_most(self.workload.model.layers, self.options.parameters_on_cpu)
        layer = BF16 * self.subgroups[1].elements
        rank.gpu_memory.free(PARAMETERS, self.away * layer)
        rank.gpu_memory.allocate("buffers of parameters", min(self.away, BUFFERS) * layer)
        rank.host_memory.allocate(PARAMETERS, self.away * layer)

    def fetch(self, rank: Rank, wanted: Fetch) -> Code:
        if 0 <= wanted.layer < self.away:
            nbytes = BF16 * self.subgroups[1].elements
            fetched = rank.h2d(rank.stream("H2D"), nbytes, "fetch parameters", after=wanted.after)
            wanted = wanted._replace(after=[fetched])
        return (yield from super().fetch(rank, wanted))
