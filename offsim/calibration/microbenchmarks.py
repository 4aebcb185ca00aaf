"""Constants of a hardware profile from the microbenchmarks that a measuring harness writes.

A harness folder has `microbenchmarks.jsonl`: a JSON object a line, with what was timed (`quantity`), how much of it
(`bytes`, `elements`, or `m`, `n`, `k`), the CPU threads (`threads`), what else ran (`condition`) and the repetitions
(`seconds`). `bytes` of a duplex copy are those of both directions together, of GPU kernels those read plus written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field

from offsim.calibration.robust import Interval, fit_seconds
from offsim.errors import InputError
from offsim.fields import Section
from offsim.training.rank import ADAM_TRAFFIC
from offsim.yaml_input import Document, Mark, validate

FILE_NAME = "microbenchmarks.jsonl"
MAX_BYTES = 64_000_000
MOST = 1e18
"""Bytes or elements of one measurement: more is a slip."""
IDLE, CPU_BUSY, UNDER_DMA = "idle", "cpu busy", "under dma"
WIDEST = 3.0
"""Upper over lower bound of an interval from which on the measurements do not determine a constant."""
SLOWED = 0.95
"""CPU work under DMA that keeps more of its rate than this does not fill the host's memory bandwidth."""

LAUNCH = "launch"
"""Name of the estimate of a kernel launch's host time, which no field of a profile stands for alone."""

_BYTES = ("h2d_pinned", "d2h_pinned", "h2d_pageable", "d2h_pageable", "duplex", "gpu_elementwise")
_ELEMENTS = ("cpu_adam", "cpu_scale", "cpu_downcast", "cpu_upcast", "gpu_adam_fused", "gpu_adam_foreach")
_CPU_FIELDS = {
    "cpu_adam": "host.adam_params_per_s",
    "cpu_scale": "host.scale_params_per_s",
    "cpu_downcast": "host.downcast_params_per_s",
    "cpu_upcast": "host.upcast_params_per_s",
}


_HARNESS = {
    "duplex_pinned": ("duplex", 2.0),
    "gpu_copy": ("gpu_elementwise", 8.0),
    "gpu_add": ("gpu_elementwise", 12.0),
    "gpu_downcast": ("gpu_elementwise", 6.0),
    "gpu_upcast": ("gpu_elementwise", 6.0),
    "gpu_adamw_fused": ("gpu_adam_fused", 1.0),
    "gpu_adamw_foreach": ("gpu_adam_foreach", 1.0),
    "kernel_launch": (LAUNCH, 1.0),
}
"""The harness's own names -> quantity, and bytes or elements per unit of its `size`: a direction's bytes, elements."""
_CONDITIONS = {"cpu_adam": CPU_BUSY, "copies": UNDER_DMA}


class Record(Section):
    """One line of the file."""

    model_config = ConfigDict(extra="ignore")  # a harness may say more of a measurement

    quantity: str = Field(min_length=1)
    bytes: float | None = Field(default=None, gt=0, le=MOST)
    elements: float | None = Field(default=None, gt=0, le=MOST)
    m: float | None = Field(default=None, gt=0, le=MOST)
    n: float | None = Field(default=None, gt=0, le=MOST)
    k: float | None = Field(default=None, gt=0, le=MOST)
    size: float | list[float] | None = None
    threads: float | None = Field(default=None, gt=0)
    condition: str = IDLE
    clock: str = "device"
    seconds: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Timed:
    """Repetitions of one measurement: bytes, elements or FLOPs, and the seconds each took."""

    quantity: str
    amount: float
    threads: float | None
    condition: str
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A constant, by the profile's field or another name, with its interval, repetitions and source."""

    name: str
    interval: Interval
    samples: int
    file: str


def read_microbenchmarks(path: str | Path) -> list[Timed]:
    """Read a harness folder, or its file; raise InputError, with the line, for the first thing wrong."""
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError("no such file, expected the microbenchmarks of a harness", str(path)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"found more than {MAX_BYTES} bytes, expected microbenchmarks", str(path))
    found = [_timed(str(path), number, line) for number, line in enumerate(raw.splitlines(), 1) if line.strip()]
    if not found:
        raise InputError("found an empty file, expected a JSON object a line", str(path))
    return found


def _timed(path: str, number: int, line: bytes) -> Timed:
    where = f"{path}:{number}"
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError("not valid JSON, expected an object a line", where) from None
    if not isinstance(data, dict):
        raise InputError("found no JSON object, expected one a line", where)
    document = Document(data, {(): Mark(path, number, "")})
    record = _in_plain_names(validate(document, Record), where)
    return Timed(
        record.quantity, _amount(record, where), record.threads, record.condition.lower(), tuple(record.seconds)
    )


def _in_plain_names(record: Record, where: str) -> Record:
    """What the harness writes as `size` under names of its own, as the amounts that quantities are fitted by."""
    if record.size is None:
        return record
    sizes = record.size if isinstance(record.size, list) else [record.size]
    wanted = 3 if record.quantity == "gemm" else 1
    if len(sizes) != wanted or not all(0 < size <= MOST for size in sizes):
        expected = "three numbers above 0, m, n and k" if wanted == 3 else "a number above 0"
        raise InputError(f"size: found {record.size}, expected {expected}", where)
    quantity, factor = _HARNESS.get(record.quantity, (record.quantity, 1.0))
    if quantity == "gemm" and record.clock == "host":
        quantity = "cpu_gemm"  # what the harness times without a GPU says nothing of one
    amounts: dict[str, float] = dict(zip(("m", "n", "k"), sizes, strict=True)) if wanted == 3 else {}
    if wanted == 1:
        amounts["bytes" if quantity in _BYTES else "elements"] = factor * sizes[0]
    condition = _CONDITIONS.get(record.condition, record.condition)
    return record.model_copy(update={"quantity": quantity, "condition": condition, **amounts})


def _amount(record: Record, where: str) -> float:
    names: tuple[str, ...]
    if record.quantity in _BYTES:
        names = ("bytes",)
    elif record.quantity in _ELEMENTS:
        names = ("elements",)
    elif record.quantity == "gemm":
        names = ("m", "n", "k")
    else:
        return 1.0
    amount = 2.0 if record.quantity == "gemm" else 1.0
    for name in names:
        value: float | None = getattr(record, name)
        if value is None:
            raise InputError(f"missing key '{name}', expected how much {record.quantity} worked on", where)
        amount *= value
    return amount


def fit_microbenchmarks(timed: Sequence[Timed], threads: float, file: str = "") -> list[Estimate]:
    """Estimate what the measurements determine; `threads` is how many a rank's CPU work has.

    Constants that they leave open by more than a factor `WIDEST` are left out.
    """
    estimates = [*_link(timed), *_gpu(timed), *_cpu(timed, threads), *_launch(timed)]
    return [
        Estimate(name, interval, samples, file) for name, interval, samples in estimates if interval.spread < WIDEST
    ]


_Found = Iterator[tuple[str, Interval, int]]


def _link(timed: Sequence[Timed]) -> _Found:
    pinned = {"link.h2d_bytes_per_s": "h2d_pinned", "link.d2h_bytes_per_s": "d2h_pinned"}
    yield from _rates({field: _of(timed, name) for field, name in pinned.items()}, "link.copy_latency_s")
    others = {"duplex": "duplex", "pageable_h2d": "h2d_pageable", "pageable_d2h": "d2h_pageable"}
    for field, name in others.items():
        yield from _rates({f"link.{field}_bytes_per_s": _of(timed, name)})


def _gpu(timed: Sequence[Timed]) -> _Found:
    yield from _rates({"gpu.matrix_flops_per_s": _of(timed, "gemm")}, "gpu.kernel_latency_s")
    yield from _rates({"gpu.hbm_bytes_per_s": _of(timed, "gpu_elementwise")})
    adam = _of(timed, "gpu_adam_fused") or _of(timed, "gpu_adam_foreach")  # frameworks take the fused one they have
    yield from _rates({"gpu.adam_params_per_s": adam})


def _launch(timed: Sequence[Timed]) -> _Found:
    launches = _of(timed, "launch")
    if launches:
        (interval,) = fit_seconds(lambda v: np.full(len(launches), v[0]), [_median(launches[0])], _seconds(launches))
        yield LAUNCH, interval, _samples(launches)


def _cpu(timed: Sequence[Timed], threads: float) -> _Found:
    for name, field in _CPU_FIELDS.items():
        if idle := _of(timed, name):
            yield field, _cpu_rate(idle, threads), _samples(idle)
    yield from _host_memory(timed)


def _host_memory(timed: Sequence[Timed]) -> _Found:
    """Host memory bandwidth: what CPU Adam and copies reach together, where they slow each other down.

    Where they don't, the bandwidth is only known to be higher.
    """
    slowed = _of(timed, "cpu_adam", UNDER_DMA)
    if not slowed:
        return
    most = max(case.threads or 0 for case in slowed)
    slowed = [case for case in slowed if (case.threads or 0) == most]
    idle = [case for case in _of(timed, "cpu_adam") if (case.threads or 0) == most]
    names = [name for name in ("duplex", "h2d_pinned", "d2h_pinned") if _of(timed, name, CPU_BUSY)]
    if not idle or not names:
        return
    copies = _of(timed, names[0], CPU_BUSY)
    adam, alone, dma = (_one_rate(cases) for cases in (slowed, idle, copies))
    if adam.value > SLOWED * alone.value:
        return
    bounds = [ADAM_TRAFFIC * part + copied for part, copied in zip(_numbers(adam), _numbers(dma), strict=True)]
    yield "host.memory_bytes_per_s", Interval(*bounds), _samples([*slowed, *copies])


def _numbers(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _rates(groups: Mapping[str, Sequence[Timed]], latency: str = "") -> _Found:
    """Rates of groups that have one fixed time: seconds = latency + amount / rate."""
    names = [name for name, cases in groups.items() if cases]
    cases = [case for name in names for case in groups[name]]
    if not cases:
        return
    group = np.array([index for index, name in enumerate(names) for _ in groups[name]])
    amounts = np.array([case.amount for case in cases])
    start = [max(case.amount / _median(case) for case in groups[name]) for name in names]
    if len(set(amounts)) == 1:  # a fixed time cannot be told from one amount
        found = fit_seconds(lambda v: amounts / v[group], start, _seconds(cases))
    else:
        shortest = min(_median(case) for case in cases)
        found = fit_seconds(lambda v: v[-1] + amounts / v[group], [*start, shortest], _seconds(cases))
        if latency:
            yield latency, found[-1], _samples(cases)
    for name, interval in zip(names, found, strict=False):
        yield name, interval, _samples(groups[name])


def _one_rate(cases: Sequence[Timed]) -> Interval:
    return next(interval for _, interval, _ in _rates({"": cases}))


def _cpu_rate(cases: Sequence[Timed], threads: float) -> Interval:
    """Rate with that many threads: it grows with them until something else is full."""
    if len({case.threads for case in cases}) == 1 or any(case.threads is None for case in cases):
        return _one_rate(cases)
    amounts = np.array([case.amount for case in cases])
    used = np.array([case.threads for case in cases], dtype=float)
    fastest = max(case.amount / _median(case) for case in cases)
    each = max(case.amount / _median(case) / (case.threads or 1) for case in cases)
    shortest = min(_median(case) for case in cases)

    def seconds(values: np.ndarray) -> np.ndarray:
        per_thread, ceiling, latency = values
        return np.asarray(latency + amounts / _saturating(used, per_thread, ceiling))

    per_thread, ceiling, _ = fit_seconds(seconds, [each, fastest, shortest / 10], _seconds(cases))
    if threads * per_thread.value < ceiling.value:
        return Interval(*(threads * part for part in _numbers(per_thread)))
    return ceiling


def _saturating(threads: np.ndarray, per_thread: float, ceiling: float) -> np.ndarray:
    return np.asarray(np.minimum(threads * per_thread, ceiling))


def _of(timed: Sequence[Timed], quantity: str, condition: str = IDLE) -> list[Timed]:
    return [case for case in timed if case.quantity == quantity and case.condition == condition]


def _median(case: Timed) -> float:
    return float(np.median(case.seconds))


def _seconds(cases: Sequence[Timed]) -> list[tuple[float, ...]]:
    return [case.seconds for case in cases]


def _samples(cases: Sequence[Timed]) -> int:
    return sum(len(case.seconds) for case in cases)
