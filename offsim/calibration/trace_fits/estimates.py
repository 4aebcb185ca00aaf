"""Constants of a hardware profile from a recorded trace: what the file determines, and no more.

In training, work is disturbed by other work, and only some of it shows what it reaches alone: work that the trace shows
to overlap with other work is left out, and of the rest the fastest that are no exceptions count (see `fastest`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from offsim.calibration.microbenchmarks.estimate import Estimate, determined
from offsim.calibration.microbenchmarks.estimates import LAUNCH
from offsim.calibration.robust import fit_seconds
from offsim.calibration.trace_fits.copies import link
from offsim.calibration.trace_fits.fastest import shortest
from offsim.calibration.trace_fits.samples import ALONE, FEWEST, LARGE_BYTES, SMALL_BYTES, fixed_time, rate, timed
from offsim.inputs.errors import InputError
from offsim.traces import Trace
from offsim.traces.events import NONE
from offsim.traces.spans import overlap_s
from offsim.traces.work import ADAM, COLLECTIVE, ELEMENTWISE, MATRIX

LONG_S = 50e-6
"""Kernels that take this long give a rate."""
SMALLEST_SIDE = 256
"""Of matrices whose product is bound by arithmetic; with a smaller side it is bound by memory."""
CACHED_BYTES = 256e6
"""Element-wise work on less may find what it reads in the GPU's cache."""

_LAUNCHES = re.compile(r"(cuda|cu|hip|hipExt(Module)?)Launch(Cooperative)?Kernel", re.IGNORECASE)
_FP32_ADAM = re.compile(r"adam\w*<float\b", re.IGNORECASE)


def fit_trace(trace: Trace, gpus_per_node: int) -> list[Estimate]:
    """Estimate what the trace determines; InputError where that is no value of a profile.

    Collectives count where all their ranks are on one node of `gpus_per_node`.
    """
    rows = timed(trace.on_gpu)
    found = [*link(rows), *_operators(trace, rows), *_collectives(trace, rows, gpus_per_node), *_launch(trace)]
    estimates = determined(found, str(trace.path))
    if not any(estimate.of_profile for estimate in estimates):
        expected = (
            f"expected {FEWEST} or more: copies from {LARGE_BYTES / 1e6:g} MB on with their kind of host memory, "
            "messages of collectives, or shapes (record_shapes=True) of large bf16 matrix products or fused Adam"
        )
        raise InputError(f"found nothing that determines a value of the profile, {expected}", str(trace.path))
    return estimates


def _operators(trace: Trace, rows: pd.DataFrame) -> Iterator[Estimate]:
    """Matrix products, Adam and element-wise work of known shapes, whose kernels ran alone on their GPU."""
    done = _kernels_of_operators(trace, rows)
    work = [trace.works[row] for row in done.index]
    quantity = np.array([each.quantity for each in work], dtype=object)
    amount = np.array([each.amount for each in work])
    seconds = done["seconds"].to_numpy()
    matrix: dict[tuple[int, ...], list[float]] = {}
    for at in np.flatnonzero(quantity == MATRIX):
        if min(work[at].sides[1:]) >= SMALLEST_SIDE:
            matrix.setdefault(work[at].sides, []).append(float(seconds[at]))
    yield from _matrix_products(matrix)
    adam = (quantity == ADAM) & (seconds >= LONG_S) & done["fp32_adam"].to_numpy()
    yield from rate("gpu.adam_params_per_s", amount[adam], seconds[adam])
    streamed = (quantity == ELEMENTWISE) & (amount >= CACHED_BYTES)
    yield from rate("gpu.hbm_bytes_per_s", amount[streamed], seconds[streamed])


def _kernels_of_operators(trace: Trace, rows: pd.DataFrame) -> pd.DataFrame:
    """By row of an operator whose work is known: the seconds of its kernels, and whether all are of Adam in fp32."""
    events, rows = trace.events, rows[rows["kind"] == "kernel"]
    alone = pd.Series(False, index=rows.index)
    for _, there in rows.groupby(["rank", "device"]):
        alone[there.index] = overlap_s(there, there) <= (1 + ALONE) * (there["end_s"] - there["start_s"]).to_numpy()
    rows = rows.assign(alone=alone, fp32_adam=_named(rows, _FP32_ADAM.search), operator=NONE)
    rows = rows[rows["launched_by"] != NONE]
    operators = events.loc[sorted(row for row, work in trace.works.items() if work.quantity != COLLECTIVE)]
    calls = events.loc[rows["launched_by"]].set_index(rows.index)
    for stream, there in operators.groupby("stream", observed=True):
        began = calls.loc[calls["stream"] == stream, "start_s"]
        last = np.searchsorted(there["start_s"].to_numpy(), began.to_numpy(), side="right") - 1
        inside = (last >= 0) & (began.to_numpy() <= there["end_s"].to_numpy()[last])
        rows.loc[began.index[inside], "operator"] = there.index.to_numpy()[last[inside]]
    grouped = rows[rows["operator"] != NONE].groupby("operator")
    done = grouped.agg(seconds=("seconds", "sum"), alone=("alone", "all"), fp32_adam=("fp32_adam", "all"))
    return done[done["alone"]]


def _matrix_products(matrix: dict[tuple[int, ...], list[float]]) -> Iterator[Estimate]:
    """The rate that large products approach, and the fixed time that small ones show, by products' sides.

    Shapes differ more in how well they run than repetitions of one do: each counts as one measurement.
    """
    flops = np.array([2.0 * float(np.prod(sides)) for sides in matrix])
    amount = np.repeat(flops, np.array([len(repeated) for repeated in matrix.values()], dtype=int))
    seconds = np.array([time for repeated in matrix.values() for time in repeated])
    long = seconds >= LONG_S
    if long.sum() < FEWEST:
        return
    if len(matrix) < FEWEST:
        yield from rate("gpu.matrix_flops_per_s", amount[long], seconds[long])
        return
    times = [shortest(np.array(repeated)) for repeated in matrix.values()]
    start = [float(max(flops / times)), min(times) / 2]
    found = fit_seconds(lambda v: v[1] + flops / v[0], start, [[time] for time in times])
    for field, interval in zip(("gpu.matrix_flops_per_s", "gpu.kernel_latency_s"), found, strict=True):
        yield Estimate(field, interval, len(seconds))


def _collectives(trace: Trace, rows: pd.DataFrame, gpus_per_node: int) -> Iterator[Estimate]:
    """Ring collectives inside a node. Their time has the wait for other ranks in it: the fastest waited least."""
    works = {
        row: work
        for row, work in trace.works.items()
        if work.quantity == COLLECTIVE and work.ranks[0] // gpus_per_node == work.ranks[1] // gpus_per_node
    }
    kernels = rows.loc[rows.index.intersection(list(works))]
    sent = np.array([works[row].amount for row in kernels.index])
    rounds = np.array([works[row].rounds for row in kernels.index])
    seconds = kernels["seconds"].to_numpy()
    small = sent <= SMALL_BYTES
    latency = 0.0
    for estimate in fixed_time("interconnect.collective_latency_s", seconds[small] / rounds[small]):
        latency = estimate.interval.value
        yield estimate
    left = seconds - latency * rounds
    large = (sent >= LARGE_BYTES) & (left > 0)
    yield from rate("interconnect.gpu_bytes_per_s", sent[large], left[large])


def _launch(trace: Trace) -> Iterator[Estimate]:
    """Host time of a kernel's launch."""
    calls = trace.events[trace.events["kind"] == "runtime"]
    seconds = timed(calls[_named(calls, _LAUNCHES.match)])["seconds"].tolist()
    if len(seconds) >= FEWEST:
        (interval,) = fit_seconds(lambda v: v[:1], [float(np.median(seconds))], [seconds])
        yield Estimate(LAUNCH, interval, len(seconds))


def _named(rows: pd.DataFrame, pattern: Callable[[str], object]) -> np.ndarray:
    """Which rows' names the pattern finds."""
    names = rows["name"].cat
    found = np.array([bool(pattern(str(name))) for name in names.categories], dtype=bool)
    return found[names.codes.to_numpy()]
