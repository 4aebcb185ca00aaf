"""The microbenchmarks that the measuring harness writes: a folder's `microbenchmarks.jsonl`.

Each line is a JSON object: what was timed (`quantity`), how much of it (`size` in `unit`), the CPU threads (`threads`),
what else ran (`condition`), whose time it is (`clock`) and the repetitions (`seconds`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from offsim.inputs.document import Document, Mark
from offsim.inputs.errors import Expected, InputError
from offsim.inputs.fields import Number, Section
from offsim.inputs.reading import read_at_most, reading
from offsim.inputs.validate import validate

FILE_NAME = "microbenchmarks.jsonl"
MAX_BYTES = 64_000_000
MOST = 1e18
"""Bytes or elements of one measurement: more is a slip."""
SHORTEST_S, LONGEST_S = 1e-12, 1e6
"""Seconds of one repetition: less and more are slips."""
IDLE, ADAM_RUNS, COPIES_RUN = "idle", "cpu_adam", "copies"
"""Conditions: what else goes on. CPU Adam on all threads; pinned copies in both directions."""

COPIES = ("h2d_pinned", "d2h_pinned", "duplex_pinned", "h2d_pageable", "d2h_pageable", "d2h_pageable_fresh")
CPU_KERNELS = ("host_copy", "host_add", "cpu_adam", "cpu_scale", "cpu_downcast", "cpu_downcast_fresh", "cpu_upcast")
GPU_KERNELS = ("gpu_copy", "gpu_add", "gpu_downcast", "gpu_upcast", "gpu_adamw_fused", "gpu_adamw_foreach")
UNITS = {
    **dict.fromkeys(COPIES, "bytes"),
    **dict.fromkeys(CPU_KERNELS + GPU_KERNELS, "elements"),
    "gemm": "m x n x k",
    "kernel_launch": "launches",
    "layer_forward_launch": "launches",
}
"""Unit that a quantity's size is in."""

_Amount = Annotated[Number, Field(gt=0, le=MOST)]


def _listed(size: object) -> object:
    if not isinstance(size, (int, float, list)):
        raise Expected("a number, or m, n and k")
    return size if isinstance(size, list) else [size]


class Row(Section):
    """One line of the file."""

    model_config = ConfigDict(extra="ignore")  # a harness may say more of a measurement

    quantity: str
    size: Annotated[list[_Amount], BeforeValidator(_listed)]
    unit: str
    threads: _Amount
    condition: str
    clock: Literal["device", "host"]
    seconds: list[Annotated[Number, Field(ge=SHORTEST_S, le=LONGEST_S)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _size_is_of_the_quantity(self) -> Row:
        unit = UNITS[self.quantity]
        if self.unit != unit:
            raise Expected(f"'{unit}' of {self.quantity}", at=("unit",))
        if len(self.size) != (3 if self.quantity == "gemm" else 1):
            raise Expected("m, n and k" if self.quantity == "gemm" else "a number", at=("size",))
        return self


@dataclass(frozen=True, slots=True)
class Timed:
    """Repetitions of one measurement: bytes (of each direction), elements, FLOPs or launches, and their seconds."""

    quantity: str
    amount: float
    threads: float
    condition: str
    clock: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one of the repetitions, in seconds."""
        return median(self.seconds)


def read_microbenchmarks(path: str | Path) -> list[Timed]:
    """Read a harness folder, or its file; raise InputError, with the line, for the first thing wrong.

    Quantities that are not in `UNITS` are passed over: a later harness may measure more.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    with reading(path, "the microbenchmarks of a harness") as file:
        raw = read_at_most(file, MAX_BYTES, "microbenchmarks", path)
    lines = [(number, line) for number, line in enumerate(raw.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError("found an empty file, expected a JSON object a line", str(path))
    return [timed for number, line in lines if (timed := _timed(str(path), number, line))]


def _timed(path: str, number: int, line: bytes) -> Timed | None:
    where = f"{path}:{number}"
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError("not valid JSON, expected an object a line", where) from None
    if not isinstance(data, dict):
        raise InputError("found no JSON object, expected one a line", where)
    quantity = data.get("quantity")
    if isinstance(quantity, str) and quantity not in UNITS:
        return None
    row = validate(Document(data, {(): Mark(path, number, "")}), Row)
    amount = prod(row.size) * (2 if row.quantity == "gemm" else 1)
    return Timed(row.quantity, amount, row.threads, row.condition, row.clock, tuple(row.seconds))
