"""The host link's constants from the copies of a trace: seconds = latency + bytes / rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from offsim.calibration.microbenchmarks.estimate import Estimate
from offsim.calibration.trace_fits.samples import ALONE, LARGE_BYTES, SMALL_BYTES, fixed_time, rate
from offsim.traces.spans import overlap_s

OVERLAPPED = 0.9
"""The joint rate of both directions is that of copies which overlap for more than this share of their time."""
_DIRECTIONS = ("H2D", "D2H")


def link(rows: pd.DataFrame) -> Iterator[Estimate]:
    """Rates of copies that ran alone on their GPU's link, of pinned ones in both directions at once, and latency.

    `rows` are activities of GPUs with their `seconds`. Where files do not record the kind of host memory, as those of
    AMD GPUs, there are no estimates. What copies of other GPUs take from a shared switch counts as the link's limit.
    """
    copies = rows[(rows["kind"] == "memcpy") & rows["direction"].isin(_DIRECTIONS) & (rows["bytes"] > 0)]
    if copies.empty:
        return
    copies = pd.concat([_with_overlap(group) for _, group in copies.groupby(["rank", "device"])])
    alone = copies[(copies["same"] < ALONE) & (copies["other"] < ALONE)]
    pinned = alone[alone["memory"] == "pinned"]
    known = {d: next((e.interval.value for e in _rate("", pinned, d)), np.inf) for d in _DIRECTIONS}
    small = pinned[pinned["bytes"] <= SMALL_BYTES]
    rates = np.where(small["direction"] == "H2D", known["H2D"], known["D2H"])
    left = (small["seconds"] - small["bytes"] / rates).to_numpy()
    latency = 0.0
    for estimate in fixed_time("link.copy_latency_s", left[left > 0]):
        latency = estimate.interval.value
        yield estimate
    pageable = alone[alone["memory"] == "pageable"]
    for direction in _DIRECTIONS:
        yield from _rate(f"link.{direction.lower()}_bytes_per_s", pinned, direction, latency)
        yield from _rate(f"link.pageable_{direction.lower()}_bytes_per_s", pageable, direction)
    both = copies[(copies["both"] > 0) & (copies["bytes"] >= LARGE_BYTES)]
    moved = both["both"].to_numpy()
    yield from rate("link.duplex_bytes_per_s", moved, both["seconds"].to_numpy())


def _rate(field: str, copies: pd.DataFrame, direction: str, latency: float = 0.0) -> Iterator[Estimate]:
    large = copies[(copies["direction"] == direction) & (copies["bytes"] >= LARGE_BYTES)]
    large = large[large["seconds"] > latency]
    yield from rate(field, large["bytes"].to_numpy(dtype=float), large["seconds"].to_numpy() - latency)


def _with_overlap(copies: pd.DataFrame) -> pd.DataFrame:
    """One GPU's copies, with the shares of their time that copies in the `same` and in the `other` direction ran.

    `both` are the bytes of both directions, of pinned copies that pinned ones in the other direction always overlap.
    """
    seconds = (copies["end_s"] - copies["start_s"]).to_numpy()
    rates = copies["bytes"].to_numpy() / seconds
    into = (copies["direction"] == "H2D").to_numpy()
    same, other, both = np.zeros((3, len(copies)))
    for mine in (into, ~into):
        same[mine] = overlap_s(copies[mine], copies[mine]) / seconds[mine] - 1
        other[mine] = overlap_s(copies[mine], copies[~mine]) / seconds[mine]
    paired = (copies["memory"] == "pinned").to_numpy() & (same < ALONE) & (other > OVERLAPPED)
    for mine, theirs in ((into & paired, ~into & paired), (~into & paired, into & paired)):
        covered = overlap_s(copies[mine], copies[theirs]) > OVERLAPPED * seconds[mine]
        moved = overlap_s(copies[mine], copies[theirs], rates[theirs])
        both[mine] = np.where(covered, copies["bytes"].to_numpy()[mine] + moved, 0.0)
    return copies.assign(same=same, other=other, both=both)
