"""ZeRO with everything on the GPU."""

from __future__ import annotations

from typing import Any, ClassVar

from offsim.engine import Code
from offsim.platform.platform import GPU
from offsim.programs.rank import Rank
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import BF16, FP32, Bucket


class NoOffload(TrainingSchedule):
    """Optimizer state and gradients stay in GPU memory; nothing crosses the host link."""

    name = "no_offload"
    stages = (0, 1, 2, 3)
    optimizer_kinds = (GPU,)
    optimizer_home = GPU
    deepspeed: ClassVar[dict[str, Any] | None] = {"zero_optimization.offload_optimizer.device": "none"}

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        nbytes = (BF16 + 2 * FP32) * self.elements(bucket)
        rank.elementwise(rank.reduce_stream, "d2d", nbytes, "accumulate gradients")
        yield from ()

    def update(self, rank: Rank) -> Code:
        yield from self.update_resident(rank, self.subgroups)
        yield from self.gather_updated(rank)
