"""How far to trust the figures of one run, in sentences."""

from __future__ import annotations

from offsim.programs.run import Run
from offsim.programs.transformer import BF16
from offsim.results.units import format_memory, format_percent, plural

LARGE_SCORES = 2 * 2**30
"""Bytes of a layer's attention matrices that no measured run comes near; the largest have 1.25 GiB."""


def notes(run: Run) -> tuple[str, ...]:
    """What the reader of the run's figures has to know; nothing of a run that is like any other."""
    found = []
    if not run.settled:
        found.append(
            f"The {plural(run.last, 'simulated iteration')} did not settle; the last two periods "
            f"({plural(run.iterations, 'iteration')} each) differ by {format_percent(run.drift)} in time. "
            "Times are means over the last period."
        )
    if run.unused:
        found.append(f"{run.unused}.")
    scores = BF16 * run.workload.attention_scores
    if not run.workload.model.flash_attention and scores > LARGE_SCORES:
        found.append(
            f"Attention without a fused kernel makes matrices of {format_memory(scores)}: PyTorch's allocator may need "
            "far more GPU memory than tensors have, and run out of it where this says that they fit."
        )
    return tuple(found)
