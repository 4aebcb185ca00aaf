"""What a scenario asks of checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from offsim.inputs.errors import Expected
from offsim.inputs.fields import Count, Number, Section


class Checkpoint(Section):
    """Checkpoints of training: parameters in 16 bits, and p, m, v.

    checkpoint: {engine: datastates, every: 1, host_cache_bytes: 4e10, files: nvme}
    """

    engine: Literal["blocking", "datastates"] = Field(
        description="blocking: training stands still until files are written; datastates: copies and writes behind it"
    )
    every: Count = Field(default=1, description="iterations from one to the next")
    files: str = Field(default="nvme", min_length=1, description="where files are written: a tier of kind storage")
    host_cache_bytes: Number | None = Field(
        default=None, gt=0, description="pinned memory of a rank that copies of datastates pass through"
    )
    commit: Literal["copied", "written"] = Field(
        default="copied",
        description="what the next update waits for with datastates: copies (fork of DeepSpeed), or files (upstream)",
    )

    @model_validator(mode="after")
    def _copies_have_a_cache(self) -> Checkpoint:
        if self.engine == "datastates" and self.host_cache_bytes is None:
            raise Expected("bytes of pinned memory with engine datastates", at=("host_cache_bytes",))
        return self
