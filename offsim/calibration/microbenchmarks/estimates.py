"""Constants of a hardware profile that microbenchmarks determine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from offsim.calibration.microbenchmarks.estimate import Estimate, determined, large, of, rates, samples, scaled
from offsim.calibration.microbenchmarks.host import cpu_rates, host_memory
from offsim.calibration.microbenchmarks.rows import Timed
from offsim.calibration.robust import medians

LAUNCH = "kernel_launch_s"
"""Name of the estimate of a kernel launch's host time, which no field of a profile stands for alone."""

ELEMENTWISE = {"gpu_copy": 8.0, "gpu_add": 12.0, "gpu_downcast": 6.0, "gpu_upcast": 6.0}
"""Bytes of GPU memory that a kernel reads plus writes for an element."""


def fit_microbenchmarks(timed: Sequence[Timed], threads: float, file: str = "") -> list[Estimate]:
    """Estimate what the measurements determine; `threads` is how many a rank's CPU work has.

    Constants that they leave open by more than a factor `WIDEST` are left out.
    """
    found = [*_link(timed), *_gpu(timed), *cpu_rates(timed, threads), *host_memory(timed), *_launches(timed)]
    return determined(found, file)


def _link(timed: Sequence[Timed]) -> Iterator[Estimate]:
    up, down, both = (of(timed, f"{name}_pinned") for name in ("h2d", "d2h", "duplex"))
    if large(up) and large(down):
        yield from rates({"link.h2d_bytes_per_s": up, "link.d2h_bytes_per_s": down}, "link.copy_latency_s")
    if large(both):
        yield from rates({"link.duplex_bytes_per_s": scaled(both, 2)})
    # The blocking flush makes a tensor in host memory for each gradient: its pages are fresh.
    pageable = {"h2d": "h2d_pageable", "d2h": "d2h_pageable_fresh"}
    yield from rates({f"link.pageable_{way}_bytes_per_s": large(of(timed, name)) for way, name in pageable.items()})


def _gpu(timed: Sequence[Timed]) -> Iterator[Estimate]:
    products = [case for case in of(timed, "gemm") if case.clock == "device"]  # without a GPU they are the CPU's
    if large(products):
        yield from rates({"gpu.matrix_flops_per_s": products}, "gpu.kernel_latency_s")
    streams = [case for name, traffic in ELEMENTWISE.items() for case in scaled(large(of(timed, name)), traffic)]
    adam = of(timed, "gpu_adamw_fused") or of(timed, "gpu_adamw_foreach")  # frameworks take the fused one they have
    yield from rates({"gpu.hbm_bytes_per_s": streams, "gpu.adam_params_per_s": large(adam)})


def _launches(timed: Sequence[Timed]) -> Iterator[Estimate]:
    if all(case.clock == "host" for case in timed):
        return  # without a GPU work is done when it is launched
    for case in of(timed, "kernel_launch"):
        (interval,) = medians([case.seconds])
        yield Estimate(LAUNCH, interval, samples(case), "host time to launch a kernel")
    for case in of(timed, "layer_forward_launch"):
        (interval,) = medians([case.seconds])
        note = "forward of a plain layer, without ZeRO-3's hooks"
        yield Estimate("host.module_launch_s", interval, samples(case), note, at_least=True)
