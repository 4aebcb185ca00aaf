"""What kind of work an activity is, by its name."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

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

ADAM_NAME = re.compile("adam", re.IGNORECASE)
"""Of annotations and operators that may be an optimizer's step on the CPU."""

WAITS = re.compile("synchronize", re.IGNORECASE)
"""Of calls that wait for a GPU."""

COPY_CLASSES = {"H2D": "h2d", "D2H": "d2h", "D2D": "d2d", "H2H": "h2h"}


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
    classes[copies] = [COPY_CLASSES.get(direction, "other") for direction in events["direction"][copies]]
    return classes
