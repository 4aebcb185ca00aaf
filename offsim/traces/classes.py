"""The classes of kernels and copies, told by their names."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from offsim.traces.events import GPU_KINDS

# The first that matches. "lambda" and "fbgemm" are in the names of kernels that are neither LAMB nor GEMM.
_KERNELS = {
    "collective": r"nccl|rccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|cross_device",
    "adam": r"adam|lamb(?!da)|multi_tensor",
    "attention": r"fmha|flash|attention|attn",
    "gemm": (
        r"(?<!fb)gemm|gemv|cutlass|cijk|xmma|nvjet|conv(?!ert)|[wd]grad|winograd|im2d?2?col|scudnn_(winograd_)?\d+x\d+"
    ),
    "elementwise": (
        r"elementwise|reduce|softmax|norm|copy|fill|index|gather|scatter|embedding|transpose|permute|dropout|"
        r"pool|triton|bn_|nchw|nhwc|at::native|fbgemm|nvfuser|cub::|thrust"
    ),
}
_PATTERNS = [(name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _KERNELS.items()]
KERNEL_CLASSES = (*_KERNELS, "other")
"""GEMM has convolutions; elementwise is whatever memory bandwidth bounds."""

WAITS = re.compile("synchronize", re.IGNORECASE)
"""Names of calls that wait for a GPU."""

_ADAM = re.compile("adam", re.IGNORECASE)
_ACTIVITIES = {"adam": "gpu_adam", "h2d": "h2d", "d2h": "d2h", "d2d": "d2d", "h2h": "d2d"}
"""Class -> the simulator's kind of activity; all others compute."""
COLLECTIVES = ("all_gather", "reduce_scatter", "all_reduce")


def kernel_class(name: str) -> str:
    """The class of a kernel."""
    return next((known for known, pattern in _PATTERNS if pattern.search(name)), "other")


def gpu_classes(events: pd.DataFrame) -> np.ndarray:
    """The class of each activity of a GPU: of kernels as above, h2d, d2h, d2d or h2h of copies, memset."""
    names = events["name"].cat
    by_name = np.array([kernel_class(str(name)) for name in names.categories], dtype=object)
    classes = by_name[names.codes.to_numpy()]
    kind = events["kind"].to_numpy(dtype=object)
    classes[kind == "memset"] = "memset"
    copies = kind == "memcpy"
    classes[copies] = [direction.lower() or "other" for direction in events["direction"][copies]]
    return classes


def gpu_activities(rows: pd.DataFrame) -> list[str]:
    """The simulator's kind of each activity of a GPU."""
    classes = zip(gpu_classes(rows), rows["name"].astype(str), strict=True)
    return [_collective(name) if kind == "collective" else _ACTIVITIES.get(kind, "compute") for kind, name in classes]


def _collective(name: str) -> str:
    plain = name.lower().replace("_", "")
    return next((kind for kind in COLLECTIVES if kind.replace("_", "") in plain), "collective")


def cpu_adam(events: pd.DataFrame) -> pd.Series:
    """Which annotations and operators are Adam on the CPU, by their names: those in which nothing is launched."""
    names = [name for name in events["name"].cat.categories if _ADAM.search(str(name))]
    found = events["kind"].isin(["annotation", "cpu_op"]) & events["name"].isin(names)
    launching = events[events.index.isin(events.loc[events["kind"].isin(GPU_KINDS), "launched_by"])]
    for (rank, thread), rows in events[found].groupby(["rank", "stream"], observed=True):
        calls = launching[(launching["rank"] == rank) & (launching["stream"] == thread)]["start_s"].to_numpy()
        inside = np.searchsorted(calls, rows["end_s"].to_numpy()) > np.searchsorted(calls, rows["start_s"].to_numpy())
        found.loc[rows.index[inside]] = False
    return found
