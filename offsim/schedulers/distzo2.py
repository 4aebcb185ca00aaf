"""DistZO2 (arXiv 2507.03211): ZO2 on several GPUs; each uploads its part of a block, and all gather it.

A part goes back the way it came; GPUs exchange nothing else but the projected gradient.
"""

from __future__ import annotations

from offsim.engine import Operation
from offsim.programs.rank import Rank
from offsim.schedulers.zo2 import Zo2


class DistZo2(Zo2):
    """Each GPU moves 1/N of every block, and has the whole block by an all-gather."""

    name = "distzo2"
    stages = (3,)

    @property
    def ranks(self) -> int:
        return self.workload.training.data_parallel

    def upload(self, rank: Rank, layer: int) -> Operation | None:
        part = super().upload(rank, layer)
        gathered = rank.all_gather(self.width * self.workload.layer_elements, layer, after=[part])
        return gathered or part
