"""Traces of training on a machine whose constants are known, disturbed as training is."""

from __future__ import annotations

import numpy as np

from offsim.calibration.microbenchmarks.estimates import LAUNCH
from tests.calibration.trace_files import Json, call, on_gpu

TRUTH = {
    "link.h2d_bytes_per_s": 5.5e10,
    "link.d2h_bytes_per_s": 5.0e10,
    "link.duplex_bytes_per_s": 9.8e10,
    "link.copy_latency_s": 3e-6,
    "link.pageable_h2d_bytes_per_s": 1.1e10,
    "link.pageable_d2h_bytes_per_s": 4e9,
    "gpu.matrix_flops_per_s": 6e14,
    "gpu.kernel_latency_s": 8e-6,
    "gpu.hbm_bytes_per_s": 2.4e12,
    "gpu.adam_params_per_s": 8.5e10,
    "interconnect.gpu_bytes_per_s": 2e11,
    "interconnect.collective_latency_s": 2e-5,
    LAUNCH: 6e-6,
}
BF16, FP32 = "c10::BFloat16", "float"
FUSED_ADAM = (
    "void at::native::multi_tensor_apply_kernel<FusedOptimizerTensorListMetadata<4>, FusedAdamMathFunctor<%s, 4>>"
)
SHAPES = ((512, 512, 512), (1024, 1024, 512), (2048, 1024, 1024), (4096, 2048, 2048), (4096, 4096, 4096), (8192,) * 3)
MB = 1_000_000


class Recording:
    """Collects the events of a run; each is of `seconds` undisturbed, and one after the other unless told otherwise."""

    def __init__(self, seed: int, noise: float = 0.01, slowed: float = 0.3) -> None:
        self.draw = np.random.default_rng(seed)
        self.noise, self.slowed = noise, slowed
        self.events: list[Json] = []
        self.now_us = 1e9
        self.calls = 0

    def gpu(
        self, cat: str, name: str, seconds: float, *,
        at_us: float | None = None, stream: int = 7, undisturbed: bool = False, **args: object,
    ) -> float:  # fmt: skip
        """Add a GPU activity with its launch, and return when it began; `undisturbed` ones are not slowed."""
        took = 1e6 * seconds * np.exp(self.draw.normal(0, self.noise))
        if not undisturbed and self.draw.random() < self.slowed:
            took *= self.draw.uniform(1.2, 4)
        at = self.now_us + 20 if at_us is None else at_us
        self.calls += 1
        launch = 6 * np.exp(self.draw.normal(0, self.noise))
        called = "cudaLaunchKernel" if cat == "kernel" else "cudaMemcpyAsync"
        self.events.append(call(called, self.now_us, round(launch, 3), self.calls))
        self.events.append(on_gpu(cat, name, round(at, 3), round(took, 3), self.calls, stream, **args))
        self.now_us = max(self.now_us, at + took) + 5
        return at

    def copy(self, direction: str, memory: str, nbytes: int, seconds: float, **how: object) -> float:
        """Add a copy."""
        ends = {"HtoD": f"{memory} -> Device", "DtoH": f"Device -> {memory}"}[direction]
        return self.gpu("gpu_memcpy", f"Memcpy {direction} ({ends})", seconds, bytes=nbytes, **how)  # type: ignore[arg-type]

    def operator(
        self, name: str, dims: list[object], types: list[str], kernels: list[tuple[str, float]], **args: object
    ) -> None:
        """Add an operator that launches kernels."""
        began = self.now_us
        place = len(self.events)
        for kernel, seconds in kernels:
            self.gpu("kernel", kernel, seconds)
        event = {"ph": "X", "cat": "cpu_op", "name": name, "pid": 9, "tid": 10, "ts": began - 1}
        whole = {"Input Dims": dims, "Input type": types, **args}
        self.events.insert(place, {**event, "dur": self.now_us - began, "args": whole})
        self.now_us += 5


def copies(run: Recording) -> None:
    """Copies of both kinds and directions, alone and both at once, and such that contend with others."""
    for _ in range(15):
        for direction, rate, pageable in (("HtoD", 5.5e10, 1.1e10), ("DtoH", 5e10, 4e9)):
            for nbytes in (4_000, 16_000, 3 * MB, 30 * MB, 300 * MB):
                run.copy(direction, "Pinned", nbytes, 3e-6 + nbytes / rate)
            run.copy(direction, "Pageable", 500, 1e-6)
            run.copy(direction, "Pageable", 50 * MB, 50 * MB / pageable)
        at = run.copy("HtoD", "Pinned", 100 * MB, 100 * MB / 4.9e10, undisturbed=True)
        run.copy("DtoH", "Pinned", 100 * MB, 100 * MB / 4.9e10, undisturbed=True, at_us=at, stream=8)


def operators(run: Recording) -> None:
    """Matrix products, Adam and element-wise work: some of them such that too little is known."""
    for _ in range(12):
        for m, k, n in SHAPES:
            seconds = 8e-6 + 2 * m * k * n / 6e14
            run.operator("aten::mm", [[m, k], [k, n]], [BF16, BF16], [("sm90_xmma_gemm", seconds)])
        run.operator("aten::mm", [[8192, 8192], [8192, 4]], [BF16, BF16], [("gemv", 1e-4)])
        run.operator("aten::mm", [[8192, 8192], [8192, 8192]], [FP32, FP32], [("sgemm", 0.02)])
        for fill in (1, 2):
            lists = [[[fill * 20 * MB], [fill * MB, 10]], [], [], []]
            seconds = fill * 30 * MB / 8.5e10 / 2
            run.operator("aten::_fused_adamw_", lists, ["TensorList"] * 4, [(FUSED_ADAM % "float", seconds)] * 2)
        run.operator("aten::_fused_adamw_", [[], [], [], []], ["TensorList"] * 4, [(FUSED_ADAM % "float", 1e-4)])
        run.operator("aten::_fused_adamw_", [[[MB]], []], ["TensorList"] * 2, [(FUSED_ADAM % "c10::Half", 1e-4)])
        shape, strides = [10_000, 10_000], [10_000, 1]
        both = {"Input Strides": [strides, strides]}
        add, cast = 1.2e9 / 2.4e12, 0.6e9 / 2.4e12
        run.operator("aten::add", [shape, shape, []], [FP32, FP32, "Scalar"], [("vectorized_elementwise", add)], **both)
        run.operator(
            "aten::copy_", [shape, shape, []], [BF16, FP32, "Scalar"], [("unrolled_elementwise", cast)], **both
        )
        expanded = {"Input Strides": [strides, [0, 1]]}
        run.operator("aten::copy_", [shape, shape], [FP32, FP32], [("elementwise", add / 3)], **expanded)


def collectives(run: Recording) -> None:
    """All-gathers and all-reduces inside a node, which may wait for other ranks, and beyond it."""
    for _ in range(20):
        for elements in (1_000, 40 * MB):
            for name, rounds in (("_allgather_base", 1), ("allreduce", 2)):
                sent = rounds * elements * 2 * 3 / 4
                wait = run.draw.uniform(0, 3) if run.draw.random() < 0.3 else 0
                args = {
                    "Collective name": name, "In msg nelems": elements // (4 if rounds == 1 else 1),
                    "Out msg nelems": elements, "Group size": 4, "dtype": "BFloat16",
                }  # fmt: skip
                seconds = (1 + wait) * (rounds * 2e-5 + sent / 2e11)
                run.gpu("kernel", "ncclDevKernel", seconds, **args, **{"Process Group Ranks": "[0, 1, 2, 3]"})
                run.gpu("kernel", "ncclDevKernel", seconds / 9, **args, **{"Process Group Ranks": "[0, 2, 4, 6]"})
        run.gpu("kernel", "ncclDevKernel", 1e-6, **args | {"Collective name": "broadcast"})


def training(seed: int = 0, noise: float = 0.01, slowed: float = 0.3) -> list[Json]:
    """All of it."""
    run = Recording(seed, noise, slowed)
    copies(run)
    operators(run)
    collectives(run)
    return run.events
