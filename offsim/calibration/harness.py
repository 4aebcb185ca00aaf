"""Measure a machine: copies, CPU and GPU kernels, and training iterations under offloading schedules.

    python harness.py --out DIR [--quick] [--model-params 1e9] [--threads N]

Needs PyTorch 2.4 or newer and nothing else, so that this one file can be copied to any machine. What is finished is
on disk at once: a run that was stopped goes on where it was when it is started again with the same folder.
Units are SI (seconds, bytes, elements); a name says its unit where it is not one of these.
"""

from __future__ import annotations

import argparse
import csv
import gc
import io
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.adamw import adamw
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.checkpoint import checkpoint

VERSION = 1
OLDEST_TORCH = (2, 4)  # the first with a fused AdamW on the CPU
GIB = 2**30
BF16, FP32 = torch.bfloat16, torch.float32


class HarnessError(Exception):
    """What the user has to change; the message says it in one line."""


# --- Device and streams


class Mark:
    """An instant on a stream: a CUDA event; without a GPU, the clock."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self.event = None if stream is None else torch.cuda.Event(enable_timing=True)
        self.clock_s = time.perf_counter()
        if self.event is not None:
            self.event.record(stream)

    def synchronize(self) -> None:
        """Stop the host thread until the stream has got there."""
        if self.event is not None:
            self.event.synchronize()

    def seconds_until(self, later: Mark) -> float:
        """Time between two instants that have passed."""
        if self.event is not None and later.event is not None:
            return float(self.event.elapsed_time(later.event)) / 1e3
        return later.clock_s - self.clock_s


class Stream:
    """A CUDA stream. Without a GPU work is done when it is asked for, and there is nothing to order."""

    def __init__(self, cuda_stream: torch.cuda.Stream | None) -> None:
        self.cuda_stream = cuda_stream

    def use(self) -> AbstractContextManager[Any]:
        """Enqueue what follows on this stream."""
        return nullcontext() if self.cuda_stream is None else torch.cuda.stream(self.cuda_stream)

    def mark(self) -> Mark:
        """Return the instant at which all that is enqueued so far is done."""
        return Mark(self.cuda_stream)

    def wait(self, mark: Mark) -> None:
        """Let what is enqueued from now on wait for another stream's mark."""
        if self.cuda_stream is not None and mark.event is not None:
            self.cuda_stream.wait_event(mark.event)

    def synchronize(self) -> None:
        """Stop the host thread until the stream is empty."""
        if self.cuda_stream is not None:
            self.cuda_stream.synchronize()

    def uses(self, tensor: Tensor) -> None:
        """Keep the allocator from reusing a tensor's memory before this stream is done with it."""
        if self.cuda_stream is not None:
            tensor.record_stream(self.cuda_stream)


class Device:
    """The first CUDA GPU, or the CPU in its place."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        self.torch = torch.device("cuda", 0) if self.cuda else torch.device("cpu")
        self.compute = Stream(torch.cuda.current_stream() if self.cuda else None)

    def stream(self) -> Stream:
        """Return a stream of its own."""
        return Stream(torch.cuda.Stream() if self.cuda else None)

    def synchronize(self) -> None:
        """Stop the host thread until the GPU is idle."""
        if self.cuda:
            torch.cuda.synchronize()

    def host(self, elements: int, dtype: torch.dtype, value: float = 0.0) -> Tensor:
        """Return host memory that copies at link speed: pinned, where there is a GPU."""
        return torch.empty(elements, dtype=dtype, pin_memory=self.cuda).fill_(value)

    def empty(self, elements: int, dtype: torch.dtype) -> Tensor:
        """Return device memory."""
        return torch.empty(elements, dtype=dtype, device=self.torch)

    def full(self, elements: int, dtype: torch.dtype, value: float) -> Tensor:
        """Return device memory that holds a value."""
        return torch.full((elements,), value, dtype=dtype, device=self.torch)

    def free_bytes(self) -> int:
        """Device memory that is free; host memory without a GPU."""
        return int(torch.cuda.mem_get_info()[0]) if self.cuda else available_host_bytes()

    def release(self) -> None:
        """Give cached memory back, so that the next to allocate finds it free."""
        if self.cuda:
            torch.cuda.empty_cache()
            empty_pinned = getattr(torch._C, "_host_emptyCache", None)
            if empty_pinned is not None:
                empty_pinned()


def available_host_bytes() -> int:
    """Host memory that can be taken without swapping; 16 GB where the system does not say."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", read_text("/proc/meminfo"))
    return int(found[1]) * 1024 if found else 16 * 10**9


def read_text(path: str | Path) -> str:
    """Return a file's text, or nothing where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- What the machine is


def describe_machine(device: Device, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what `machine.json` holds."""
    cpu = read_text("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpu)
    physical = set(re.findall(r"physical id\s*:\s*(\d+)(?:.|\n)*?core id\s*:\s*(\d+)", cpu))
    nodes = sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
    total = re.search(r"MemTotal:\s+(\d+) kB", read_text("/proc/meminfo"))
    return {
        "harness_version": VERSION,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": settings,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.cuda else None,
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "cpu": {
            "model": model[1].strip() if model else platform.processor() or platform.machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "physical_cores": len(physical) or None,
            "logical_cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "numa_domains": {node.name: read_text(node / "cpulist").strip() for node in nodes},
            "memory_bytes": int(total[1]) * 1024 if total else None,
            "memory_available_bytes": available_host_bytes(),
        },
        "gpus": describe_gpus() if device.cuda else [],
    }


def describe_gpus() -> list[dict[str, Any]]:
    """Return what CUDA and the driver say of each GPU."""
    gpus = []
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "name": found.name,
                "memory_bytes": found.total_memory,
                "multiprocessors": found.multi_processor_count,
                "capability": f"{found.major}.{found.minor}",
            }
            | query_driver(f"GPU-{found.uuid}")
        )
    return gpus


def query_driver(gpu: str) -> dict[str, str | None]:
    """Ask nvidia-smi for what CUDA does not tell; None where it does not answer."""
    keys = ("driver_version", "pcie.link.gen.max", "pcie.link.gen.current", "pcie.link.width.current")
    query = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={','.join(keys)}", "--format=csv,noheader"]
    values: list[str | None] = [None] * len(keys)
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
        values = [value.strip() for value in answer.strip().split(",")]
    except (OSError, subprocess.SubprocessError):
        pass
    return {key.replace(".", "_"): value for key, value in zip(keys, values, strict=False)}


# --- The folder that results go to


class Results:
    """The output folder. Rows are appended and on disk before the next measurement begins."""

    def __init__(self, folder: Path, machine: dict[str, Any]) -> None:
        self.folder = folder
        self.microbenchmarks = folder / "microbenchmarks.jsonl"
        self.training = folder / "training.csv"
        self.traces = folder / "traces"
        try:
            self.traces.mkdir(parents=True, exist_ok=True)
            self.resumes = (folder / "machine.json").exists()
            if self.resumes:
                self._same_machine(machine)
            else:
                replace(folder / "machine.json", json.dumps(machine, indent=2) + "\n")
            for path in (self.microbenchmarks, self.training):
                drop_half_a_line(path)
        except OSError as error:
            raise HarnessError(f"--out {folder}: {error.strerror or error}") from None

    def _same_machine(self, machine: dict[str, Any]) -> None:
        try:
            before = json.loads((self.folder / "machine.json").read_text(encoding="utf-8"))
            found = [(name, before[name]) for name in ("harness_version", "settings", "torch")]
            found += [("cpu", before["cpu"]["model"]), ("gpus", [gpu["name"] for gpu in before["gpus"]])]
        except (ValueError, KeyError, TypeError):
            raise HarnessError(f"{self.folder / 'machine.json'} is damaged: give another folder") from None
        today = {**machine, "cpu": machine["cpu"]["model"], "gpus": [gpu["name"] for gpu in machine["gpus"]]}
        for name, value in found:
            if value != today[name]:
                shown = f"{name} {value}, now {today[name]}"
                raise HarnessError(f"{self.folder} holds results of another measurement ({shown}): give another folder")

    def measured(self) -> set[Key]:
        """Return the keys of the microbenchmarks that are done."""
        lines = read_text(self.microbenchmarks).splitlines()
        return {key_of(json.loads(line)) for line in lines}

    def trained(self) -> set[str]:
        """Return the names of the schedules that are done."""
        return {row["schedule"] for row in csv.DictReader(io.StringIO(read_text(self.training)))}

    def add_measurement(self, row: dict[str, Any]) -> None:
        """Append a row to `microbenchmarks.jsonl`."""
        append(self.microbenchmarks, json.dumps(row) + "\n")

    def add_training(self, row: dict[str, Any]) -> None:
        """Append a row to `training.csv`, after the columns' names where it is the first."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if not self.training.exists() or not self.training.stat().st_size:
            writer.writeheader()
        writer.writerow(row)
        append(self.training, text.getvalue())


def append(path: Path, text: str) -> None:
    """Append to a file; return when it is on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, text: str) -> None:
    """Write a whole file, or nothing."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    append(part, text)
    part.replace(path)


def drop_half_a_line(path: Path) -> None:
    """Remove a last line that a killed run did not finish."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


# --- Microbenchmarks

Key = tuple[str, str, int, str]
"""Quantity, size, threads and condition: what makes a microbenchmark different from all others."""
IDLE, ADAM_RUNS, COPIES_RUN = "idle", "cpu_adam", "copies"
"""Conditions: what else goes on. CPU Adam on all threads; copies in both directions without pause."""


def key_of(row: dict[str, Any]) -> Key:
    """Return the key of a row."""
    return row["quantity"], json.dumps(row["size"]), row["threads"], row["condition"]


@dataclass(frozen=True)
class Limits:
    """How often a measurement is repeated: for `seconds`, within these counts."""

    seconds: float
    fewest: int
    most: int

    def repeat(self, once: Callable[[], float]) -> list[float]:
        """Warm up, then collect what `once` returns."""
        once()
        once()
        found: list[float] = []
        start = time.perf_counter()
        while len(found) < self.fewest or (len(found) < self.most and time.perf_counter() - start < self.seconds):
            found.append(once())
        return found


def by_clock(work: Callable[[], object], synchronize: Callable[[], None]) -> float:
    """Seconds of the host clock until the work is done."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def by_events(stream: Stream, work: Callable[[], object], calls: int) -> float:
    """Seconds of the device per call. The stream is held back until all is enqueued, so launches are not in it."""
    torch.cuda.synchronize()
    with stream.use():
        torch.cuda._sleep(5_000_000)  # cycles: about 3 ms
        start = stream.mark()
        for _ in range(calls):
            work()
        end = stream.mark()
    end.synchronize()
    return start.seconds_until(end) / calls


@dataclass(frozen=True)
class Measurement:
    """One row of `microbenchmarks.jsonl`; `once` prepares and returns what measures one repetition."""

    quantity: str
    size: int | tuple[int, int, int]
    unit: str
    threads: int
    condition: str
    clock: str
    once: Callable[[], Callable[[], float]] = field(repr=False)

    def row(self, seconds: list[float]) -> dict[str, Any]:
        """Return the row for these repetitions."""
        named = ("quantity", "size", "unit", "threads", "condition", "clock")
        return {name: getattr(self, name) for name in named} | {"seconds": seconds}

    def rate(self, seconds: list[float]) -> str:
        """Return the median as a rate, to be shown."""
        median = statistics.median(seconds)
        if isinstance(self.size, tuple):
            return f"{2 * math.prod(self.size) / median / 1e12:.3g} TFLOP/s"
        if self.unit == "launches":
            return f"{median * 1e6:.3g} us"
        return f"{self.size / median / 1e9:.3g} G{'B' if self.unit == 'bytes' else 'elements'}/s"

    def __str__(self) -> str:
        size = " x ".join(map(str, self.size)) if isinstance(self.size, tuple) else f"{self.size:.3g}"
        return f"{self.quantity}, {size} {self.unit}, {self.threads} threads, {self.condition}"


def fused_adam(master: Tensor, gradient: Tensor, momentum: Tensor, variance: Tensor, step: int) -> None:
    """Fused AdamW, on whichever device the tensors are."""
    steps = [torch.full((), float(step - 1), dtype=FP32, device=master.device)]
    adamw([master], [gradient], [momentum], [variance], [], steps, fused=True, amsgrad=False, maximize=False, **ADAM)


ADAM: dict[str, Any] = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "eps": 1e-8}


def loop_until_stopped(work: Callable[[], object], stop: threading.Event) -> None:
    """Do the work again and again."""
    while not stop.is_set():
        work()


@contextmanager
def running(work: Callable[[], object]) -> Iterator[None]:
    """Keep a background thread at the work meanwhile."""
    stop = threading.Event()
    thread = threading.Thread(target=loop_until_stopped, args=(work, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Microbenchmarks:
    """All measurements that make sense on this machine, in the order in which they are made."""

    def __init__(self, device: Device, threads: int, quick: bool) -> None:
        self.device = device
        self.threads = threads
        self.quick = quick
        self.limits = Limits(0.02, 3, 5) if quick else Limits(0.4, 5, 50)
        self.held: tuple[object, Any] = (None, None)
        self.loads: dict[str, Callable[[], object]] = {}

    def all(self) -> list[Measurement]:
        """Return the measurements; none has begun."""
        measurements = list(self.cpu())
        if self.device.cuda:
            measurements += [*self.copies(), *self.gpu()]
        return [*measurements, *self.gemms(), *self.launches()]

    def measure(self, measurement: Measurement) -> list[float]:
        """Return the seconds of each repetition."""
        with ExitStack() as meanwhile:
            once = measurement.once()
            if measurement.condition != IDLE:
                meanwhile.enter_context(running(self.load(measurement.condition)))
            return self.limits.repeat(once)

    def hold(self, key: object, build: Callable[[], Any]) -> Any:
        """Return the arrays of a group of measurements; those of the group before are let go first."""
        if self.held[0] != key:
            self.held = (None, None)
            self.loads.clear()
            self.device.release()
            self.held = (key, build())
        return self.held[1]

    def largest(self, bytes_per_element: float, wanted: int, free: int) -> int:
        """Return the wanted elements, divided by 10 until they take at most a quarter of what is free."""
        while wanted > 1000 and wanted * bytes_per_element > free / 4:
            wanted //= 10
        return wanted

    # Work that goes on meanwhile

    def load(self, condition: str) -> Callable[[], object]:
        """Return the work of a condition; its arrays are kept as long as those of the group."""
        if condition not in self.loads:
            self.loads[condition] = self.adam_load() if condition == ADAM_RUNS else self.copy_load()
        return self.loads[condition]

    def adam_load(self) -> Callable[[], object]:
        """CPU Adam on all threads, on arrays that no cache holds."""
        elements = 2_000_000 if self.quick else 50_000_000
        master, gradient, momentum, variance = (torch.full((elements,), 0.01) for _ in range(4))
        return partial(fused_adam, master, gradient, momentum, variance, 1)

    def copy_load(self) -> Callable[[], object]:
        """Pinned copies in both directions."""
        size = 64 * 2**20
        host = [self.device.host(size, torch.uint8) for _ in range(2)]
        on_gpu = [self.device.empty(size, torch.uint8) for _ in range(2)]
        up, down = self.device.stream(), self.device.stream()
        done = [torch.cuda.Event(blocking=True) for _ in range(2)]  # a spinning wait would take a core

        def copy() -> None:
            for _ in range(4):
                with up.use():
                    on_gpu[0].copy_(host[0], non_blocking=True)
                with down.use():
                    host[1].copy_(on_gpu[1], non_blocking=True)
            for event, stream in zip(done, (up, down), strict=True):
                event.record(stream.cuda_stream)
            for event in done:
                event.synchronize()

        return copy

    # CPU

    def cpu(self) -> Iterator[Measurement]:
        """Kernels of the update on the CPU, over threads at one size, and over sizes with all threads."""
        sizes = [100_000, 1_000_000] if self.quick else [1_000_000, 10_000_000, 100_000_000]
        largest = self.largest(20, sizes[-1], available_host_bytes())
        sizes = sorted({min(size, largest) for size in sizes})
        counts = [1 << power for power in range(self.threads.bit_length()) if 1 << power < self.threads]
        cases = [(sizes[-1], count, IDLE) for count in counts]
        cases += [(size, self.threads, IDLE) for size in sizes]
        if self.device.cuda:
            cases.append((sizes[-1], self.threads, COPIES_RUN))
        for size, threads, condition in cases:
            for quantity in self.cpu_kernels(1):
                once = partial(self.on_cpu, quantity, size, threads)
                yield Measurement(quantity, size, "elements", threads, condition, "host", once)

    def cpu_kernels(self, elements: int) -> dict[str, Callable[[], object]]:
        """Return the work of each quantity on arrays of a size."""
        a, b, c, d = (torch.full((elements,), 0.01) for _ in range(4))
        half = torch.full((elements,), 0.01, dtype=BF16)
        return {
            "host_copy": lambda: b.copy_(a),
            "host_add": lambda: torch.add(a, b, out=c),
            "cpu_adam": partial(fused_adam, a, b, c, d, 1),
            "cpu_scale": lambda: b.mul_(1.0),
            "cpu_downcast": lambda: half.copy_(a),
            "cpu_downcast_fresh": lambda: a.to(BF16),
            "cpu_upcast": lambda: a.copy_(half),
        }

    def on_cpu(self, quantity: str, elements: int, threads: int) -> Callable[[], float]:
        """Prepare a kernel of the CPU."""
        torch.set_num_threads(self.threads)  # so that memory is first touched by all threads
        work = self.hold(("cpu", elements), partial(self.cpu_kernels, elements))[quantity]

        def once() -> float:
            return by_clock(work, lambda: None)

        torch.set_num_threads(threads)
        return once

    # Copies

    def copies(self) -> Iterator[Measurement]:
        """Copies between host and GPU, while the CPU is idle and while it is busy."""
        sizes = [2**12, 2**16, 2**20] if self.quick else [2**12, 2**16, 2**20, 2**24, 2**26, 2**28, 2**30]
        free = min(self.device.free_bytes(), available_host_bytes())
        sizes = [size for size in sizes if 8 * size <= free]
        quantities = {
            "h2d_pinned": "device",
            "d2h_pinned": "device",
            "duplex_pinned": "host",
            "h2d_pageable": "host",
            "d2h_pageable": "host",
            "d2h_pageable_fresh": "host",
        }
        for condition in (IDLE, ADAM_RUNS):
            for size in sizes:
                for quantity, clock in quantities.items():
                    once = partial(self.copy, quantity, size, sizes[-1])
                    yield Measurement(quantity, size, "bytes", self.threads, condition, clock, once)

    def copy(self, quantity: str, size: int, largest: int) -> Callable[[], float]:
        """Prepare a copy."""
        torch.set_num_threads(self.threads)
        arrays = self.hold("copies", partial(self.copy_arrays, largest))
        pinned, other, pageable, on_gpu, out_gpu = (array[:size] for array in arrays)
        down, up = self.device.stream(), self.device.stream()
        calls = 10 if size <= 2**20 else 1

        def duplex() -> None:
            for _ in range(calls):
                with up.use():
                    on_gpu.copy_(pinned, non_blocking=True)
                with down.use():
                    other.copy_(out_gpu, non_blocking=True)

        blocking: dict[str, Callable[[], object]] = {
            "h2d_pageable": lambda: on_gpu.copy_(pageable),
            "d2h_pageable": lambda: pageable.copy_(on_gpu),
            "d2h_pageable_fresh": lambda: on_gpu.to("cpu"),
        }
        if quantity == "h2d_pinned":
            return lambda: by_events(up, lambda: on_gpu.copy_(pinned, non_blocking=True), calls)
        if quantity == "d2h_pinned":
            return lambda: by_events(down, lambda: pinned.copy_(on_gpu, non_blocking=True), calls)
        if quantity == "duplex_pinned":
            return lambda: by_clock(duplex, torch.cuda.synchronize) / calls
        return lambda: by_clock(blocking[quantity], torch.cuda.synchronize)

    def copy_arrays(self, size: int) -> list[Tensor]:
        """Pinned memory twice, pageable memory, and device memory twice."""
        pageable = torch.full((size,), 1, dtype=torch.uint8)
        pinned = [self.device.host(size, torch.uint8) for _ in range(2)]
        return [*pinned, pageable, *(self.device.full(size, torch.uint8, 1) for _ in range(2))]

    # GPU

    def gpu(self) -> Iterator[Measurement]:
        """Element-wise kernels on the GPU: bound by its memory."""
        sizes = [1_000_000] if self.quick else [1_000_000, 10_000_000, 100_000_000, 400_000_000]
        free = self.device.free_bytes()
        for size in sorted({self.largest(24, size, free) for size in sizes}):
            for quantity in self.gpu_kernels(1):
                once = partial(self.on_gpu, quantity, size)
                yield Measurement(quantity, size, "elements", self.threads, IDLE, "device", once)

    def gpu_kernels(self, elements: int) -> dict[str, Callable[[], object]]:
        """Return the work of each quantity on arrays of a size."""
        a, b, c, d = (self.device.full(elements, FP32, 0.01) for _ in range(4))
        half = self.device.full(elements, BF16, 0.01)
        step = torch.ones(())
        foreach = partial(adamw, [a], [b], [c], [d], [], [step], foreach=True, amsgrad=False, maximize=False, **ADAM)
        return {
            "gpu_copy": lambda: b.copy_(a),
            "gpu_add": lambda: torch.add(a, b, out=c),
            "gpu_adamw_fused": partial(fused_adam, a, b, c, d, 1),
            "gpu_adamw_foreach": foreach,
            "gpu_downcast": lambda: half.copy_(a),
            "gpu_upcast": lambda: a.copy_(half),
        }

    def on_gpu(self, quantity: str, elements: int) -> Callable[[], float]:
        """Prepare a kernel of the GPU."""
        work = self.hold(("gpu", elements), partial(self.gpu_kernels, elements))[quantity]
        return lambda: by_events(self.device.compute, work, 1 if elements > 10_000_000 else 5)

    def gemms(self) -> Iterator[Measurement]:
        """Matrix products in bf16, m x k by k x n: squares, and those of layers."""
        shapes = [(size, size, size) for size in ((128, 256) if self.quick else (256, 512, 1024))]
        if self.device.cuda and not self.quick:
            shapes += [(size, size, size) for size in (2048, 4096, 8192)]
            for tokens in (2048, 8192):
                for hidden in (2048, 4096, 5120, 8192):
                    shapes += [(tokens, hidden, hidden), (tokens, 4 * hidden, hidden), (tokens, hidden, 4 * hidden)]
        clock = "device" if self.device.cuda else "host"
        for shape in dict.fromkeys(shapes):
            yield Measurement("gemm", shape, "m x n x k", self.threads, IDLE, clock, partial(self.gemm, shape))

    def gemm(self, shape: Sequence[int]) -> Callable[[], float]:
        """Prepare a matrix product."""
        torch.set_num_threads(self.threads)
        m, n, k = shape
        self.hold("gemm", lambda: None)
        a = torch.randn(m, k, dtype=BF16, device=self.device.torch)
        b = torch.randn(k, n, dtype=BF16, device=self.device.torch)
        if self.device.cuda:
            return lambda: by_events(self.device.compute, lambda: a @ b, 5)
        return lambda: by_clock(lambda: a @ b, lambda: None)

    def launches(self) -> Iterator[Measurement]:
        """Time of the host thread to launch a kernel, and one layer's forward; work is too small to matter."""
        for quantity in ("kernel_launch", "layer_forward_launch"):
            once = partial(self.launch, quantity)
            yield Measurement(quantity, 1, "launches", self.threads, IDLE, "host", once)

    def launch(self, quantity: str) -> Callable[[], float]:
        """Prepare launches; the queue of the GPU holds all of them."""
        torch.set_num_threads(self.threads)
        number = torch.ones(1, device=self.device.torch)
        layer: nn.Module = Layer(Shape(1, 64, 128, 2, 16, 8), self.device.torch)
        hidden = torch.ones(1, 8, 64, dtype=BF16, device=self.device.torch)
        work: Callable[[], object]
        work, calls = (partial(number.add_, 1), 200) if quantity == "kernel_launch" else (partial(layer, hidden), 10)

        def once() -> float:
            self.device.synchronize()
            with torch.no_grad():  # as under activation checkpointing
                start = time.perf_counter()
                for _ in range(calls):
                    work()
                return (time.perf_counter() - start) / calls

        return once


# --- The model


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer: SwiGLU, rotary embedding, as many key and value heads as query heads."""

    layers: int
    hidden: int
    ffn_hidden: int
    heads: int
    vocab: int
    sequence: int

    @property
    def parameters(self) -> int:
        """Parameters, with embedding and head."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.ffn_hidden + 2 * self.hidden
        return self.layers * layer + 2 * self.vocab * self.hidden + self.hidden


def choose_shape(parameters: float, sequence: int) -> Shape:
    """Return a shape of about so many parameters: hidden size about 128 times the layers, as in published models."""
    unit, vocab = (128, 32_000) if parameters >= 1e8 else (64, 512)
    hidden = max(unit, round((parameters * 128 / 12) ** (1 / 3) / unit) * unit)
    one = Shape(1, hidden, round(8 / 3 * hidden / unit) * unit, hidden // unit, vocab, sequence)
    layer = one.parameters - 2 * vocab * hidden - hidden
    layers = max(2, round((parameters - 2 * vocab * hidden) / layer))
    return Shape(layers, hidden, one.ffn_hidden, one.heads, vocab, sequence)


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        super().__init__()
        linear = partial(nn.Linear, bias=False, dtype=BF16, device=device)
        self.heads = shape.heads
        self.input_norm = nn.RMSNorm(shape.hidden, dtype=BF16, device=device)
        self.query = linear(shape.hidden, shape.hidden)
        self.key_value = linear(shape.hidden, 2 * shape.hidden)
        self.attention_output = linear(shape.hidden, shape.hidden)
        self.post_attention_norm = nn.RMSNorm(shape.hidden, dtype=BF16, device=device)
        self.up = linear(shape.hidden, 2 * shape.ffn_hidden)
        self.down = linear(shape.ffn_hidden, shape.hidden)
        positions = torch.arange(shape.sequence, device=device, dtype=FP32)[:, None]
        half = shape.hidden // shape.heads // 2
        angles = positions / 10_000 ** (torch.arange(half, device=device) / half)
        self.turn = (angles.cos().to(BF16), angles.sin().to(BF16))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotary position embedding of (batch, heads, sequence, head)."""
        first, second = x.chunk(2, dim=-1)
        cos, sin = self.turn
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states to hidden states."""
        batch, sequence, width = hidden.shape
        normed = self.input_norm(hidden)
        query, key, value = (
            part.view(batch, sequence, self.heads, -1).transpose(1, 2)
            for part in (self.query(normed), *self.key_value(normed).chunk(2, dim=-1))
        )
        context = functional.scaled_dot_product_attention(self.rotate(query), self.rotate(key), value, is_causal=True)
        hidden = hidden + self.attention_output(context.transpose(1, 2).reshape(batch, sequence, width))
        gate, up = self.up(self.post_attention_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(functional.silu(gate) * up)


class Transformer(nn.Module):
    """A transformer with activation checkpointing that returns the loss of predicting the next token."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab, shape.hidden, dtype=BF16, device=device)
        self.layers = nn.ModuleList(Layer(shape, device) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, dtype=BF16, device=device)
        self.head = nn.Linear(shape.hidden, shape.vocab, bias=False, dtype=BF16, device=device)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def pieces(self) -> list[nn.Module]:
        """Return the modules that run one after another."""
        return [self.embedding, *self.layers, self.norm, self.head]

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the mean loss of tokens (batch, sequence + 1)."""
        hidden = self.embedding(tokens[:, :-1])
        for index, layer in enumerate(self.layers):
            with record_function(f"layer {index}"):
                hidden = checkpoint(layer, hidden, use_reentrant=False)
        logits = self.head(self.norm(hidden)).float()
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


# --- The schedules

LOSS_SCALE = 128.0  # a power of two: scaling and unscaling change no digit
IN_FLIGHT = 2  # gradient buckets


@dataclass(frozen=True)
class Schedule:
    """A schedule and its options, named as offsim names them."""

    scheduler: str
    cpu_ratio: float = 1.0
    update_stride: int | None = None

    @property
    def name(self) -> str:
        """Name of a trace, and of the row."""
        ratio = "" if self.cpu_ratio == 1 else f"_cpu_ratio{self.cpu_ratio:g}"
        return self.scheduler + ratio + (f"_stride{self.update_stride}" if self.update_stride else "")


SCHEDULES = (
    Schedule("zero3_offload"),
    Schedule("zero3_offload_async_grads"),
    Schedule("zero3_offload_async_grads", cpu_ratio=0.5),
    *(Schedule("deep_optimizer_states", update_stride=stride) for stride in (2, 3, 4, 8)),
)


@dataclass
class Subgroup:
    """Consecutive parameters that are updated together. All tensors are flat; state is fp32."""

    index: int
    elements: int
    members: list[nn.Parameter]
    resident: bool
    bf16: Tensor
    master: Tensor
    momentum: Tensor
    variance: Tensor
    gradient: Tensor
    accumulated: Tensor

    @property
    def state(self) -> tuple[Tensor, Tensor, Tensor]:
        """Momentum, variance and parameters: in the order in which they are moved."""
        return self.momentum, self.variance, self.master


def build_subgroups(parameters: Sequence[nn.Parameter], size: int) -> list[list[nn.Parameter]]:
    """Split parameters; a sub-group is closed as soon as it holds `size` elements."""
    groups: list[list[nn.Parameter]] = [[]]
    held = 0
    for parameter in parameters:
        if held >= size:
            groups.append([])
            held = 0
        groups[-1].append(parameter)
        held += parameter.numel()
    return groups


class Zero3Offload:
    """Optimizer state on the CPU, blocking gradient flushes, a serial update: the loop of DeepSpeed's ZeRO-3 offload.

    One rank, so nothing is gathered or reduced. Sub-groups from `cpu_ratio` on have their state on the GPU (TwinFlow).
    """

    pinned_state = False

    def __init__(
        self, model: Transformer, device: Device, schedule: Schedule, subgroup_size: int, bucket_elements: int
    ) -> None:
        self.device = device
        self.compute, self.reduce = device.compute, device.stream()
        self.steps = 0
        self.watch: Callable[[nn.Parameter, Tensor], None] | None = None
        groups = build_subgroups(list(model.parameters()), subgroup_size)
        on_cpu = int(schedule.cpu_ratio * len(groups))
        self.subgroups = [self.place(i, members, resident=i >= on_cpu) for i, members in enumerate(groups)]
        self.on_cpu, self.on_gpu = self.subgroups[:on_cpu], self.subgroups[on_cpu:]
        self.where: dict[nn.Parameter, tuple[Subgroup, int]] = {}
        for group in self.subgroups:
            offset = 0
            for parameter in group.members:
                self.where[parameter] = (group, offset)
                offset += parameter.numel()
                parameter.register_post_accumulate_grad_hook(self.collect)
        largest = max(parameter.numel() for parameter in self.where)
        capacity = max(bucket_elements, largest)
        self.buckets = [device.empty(capacity, BF16) for _ in range(IN_FLIGHT)]
        self.filled = 0
        self.collected: list[tuple[nn.Parameter, int]] = []
        self.flushes: list[Mark] = []
        for piece in model.pieces():
            needed = sorted({self.where[parameter][0].index for parameter in piece.parameters()})
            piece.register_forward_pre_hook(partial(self.before_forward, needed))

    def place(self, index: int, members: list[nn.Parameter], resident: bool) -> Subgroup:
        """Make the parameters views of one flat tensor, and allocate the state where it lives."""
        elements = sum(parameter.numel() for parameter in members)
        bf16 = torch.cat([parameter.detach().flatten() for parameter in members])
        offset = 0
        for parameter in members:
            parameter.data = bf16[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        on_device = partial(self.device.full, elements, FP32, 0.0)
        pinned = partial(self.device.host, elements, FP32)
        pageable = partial(torch.zeros, elements, dtype=FP32)
        state = on_device if resident else pinned if self.pinned_state else pageable
        master, momentum, variance = state(), state(), state()
        master.copy_(bf16)
        gradient = on_device() if resident else pinned()
        accumulated = self.device.host(elements, BF16)
        return Subgroup(index, elements, members, resident, bf16, master, momentum, variance, gradient, accumulated)

    # Backward

    def collect(self, parameter: nn.Parameter) -> None:
        """Copy a gradient that autograd has finished into the bucket, on the reduce stream."""
        gradient = parameter.grad
        assert gradient is not None
        parameter.grad = None
        if self.watch is not None:
            self.watch(parameter, gradient)
        if self.filled + gradient.numel() > self.buckets[0].numel():
            self.flush_bucket()
        self.reduce.wait(self.compute.mark())
        with self.reduce.use():
            self.buckets[0][self.filled : self.filled + gradient.numel()].copy_(gradient.flatten())
        self.reduce.uses(gradient)
        self.collected.append((parameter, self.filled))
        self.filled += gradient.numel()

    def flush_bucket(self) -> None:
        """Store the gradients of a bucket; the host waits where too many buckets are in flight."""
        if len(self.flushes) == IN_FLIGHT:
            self.flushes.pop(0).synchronize()
        with record_function("flush bucket"), self.reduce.use():
            for parameter, start in self.collected:
                group, offset = self.where[parameter]
                gradient = self.buckets[0][start : start + parameter.numel()]
                place = slice(offset, offset + parameter.numel())
                group.accumulated[place].copy_(gradient, non_blocking=True)
                gradient.copy_(group.accumulated[place], non_blocking=True)
                self.store(group, place, gradient)
        self.flushes.append(self.reduce.mark())
        self.buckets = self.buckets[1:] + self.buckets[:1]
        self.filled = 0
        self.collected = []

    def store(self, group: Subgroup, place: slice, gradient: Tensor) -> None:
        """Keep a gradient for the update. Where it goes to the CPU the host thread stands still."""
        if group.resident:
            group.gradient[place].copy_(gradient)
        else:
            group.gradient[place].copy_(gradient.cpu())

    def end_backward(self) -> None:
        """Flush the last bucket, and wait until all gradients are where the update needs them."""
        self.flush_bucket()
        self.reduce.synchronize()
        self.compute.wait(self.reduce.mark())
        self.flushes = []

    # Update

    def step(self) -> None:
        """Update all sub-groups."""
        self.steps += 1
        for group in self.on_cpu:
            self.update_on_cpu(group)
            with record_function(f"upload sub-group {group.index}"):
                group.bf16.copy_(group.master.to(BF16))
        self.update_resident()

    def update_on_cpu(self, group: Subgroup) -> None:
        """Scale and Adam; the host thread works."""
        with record_function(f"scale sub-group {group.index}"):
            group.gradient.mul_(1 / LOSS_SCALE)
        with record_function(f"CPU Adam sub-group {group.index}"):
            fused_adam(group.master, group.gradient, group.momentum, group.variance, self.steps)

    def update_resident(self) -> None:
        """Update what lives on the GPU for good."""
        for group in self.on_gpu:
            with record_function(f"GPU Adam sub-group {group.index}"):
                group.gradient.mul_(1 / LOSS_SCALE)
                fused_adam(group.master, group.gradient, group.momentum, group.variance, self.steps)
                group.bf16.copy_(group.master)

    def before_forward(self, needed: list[int], module: nn.Module, inputs: object) -> None:
        """Let forward wait for the parameters of these sub-groups; here they are up to date."""

    def finish(self) -> None:
        """Wait until all parameters and state are where they live."""
        self.device.synchronize()

    def close(self) -> None:
        """End what runs in the background."""


class Zero3OffloadAsyncGrads(Zero3Offload):
    """The same with gradients converted on the GPU and copied to pinned memory while backward goes on."""

    def store(self, group: Subgroup, place: slice, gradient: Tensor) -> None:
        """Keep a gradient for the update, without stopping the host thread."""
        group.gradient[place].copy_(gradient.float(), non_blocking=True)


class DeepOptimizerStates(Zero3OffloadAsyncGrads):
    """Of each block of `update_stride` sub-groups the last is fetched to the GPU, updated there and flushed back."""

    pinned_state = True

    def __init__(
        self, model: Transformer, device: Device, schedule: Schedule, subgroup_size: int, bucket_elements: int
    ) -> None:
        assert schedule.update_stride is not None
        self.stride = schedule.update_stride
        super().__init__(model, device, schedule, subgroup_size, bucket_elements)
        self.copy_streams = [device.stream() for _ in range(3)]  # of momentum, variance, parameters
        self.upload = device.stream()
        largest = max(group.elements for group in self.subgroups)
        self.slot = [device.empty(largest, FP32) for _ in range(3)]
        self.slot_gradient = device.empty(largest, FP32)
        self.staged: dict[int, Tensor] = {}  # bf16 gradients on the GPU, by sub-group
        self.to_flush: Subgroup | None = None
        self.updated: Mark | None = None
        self.background = ThreadPoolExecutor(1)
        self.staging = [device.host(largest, BF16) for _ in range(self.stride - 1)]
        self.uploaded: dict[int, Mark] = {}  # by staging buffer
        self.uploads: dict[int, Future[Mark]] = {}  # that forward has not waited for, by sub-group

    def runs_on_gpu(self, group: Subgroup) -> bool:
        """Whether this is the last of its block."""
        return (group.index + 1) % self.stride == 0

    def store(self, group: Subgroup, place: slice, gradient: Tensor) -> None:
        """Keep gradients of what runs on the GPU there, in bf16."""
        if not self.runs_on_gpu(group):
            super().store(group, place, gradient)
            return
        if group.index not in self.staged:
            self.staged[group.index] = self.device.empty(group.elements, BF16)
        self.staged[group.index][place].copy_(gradient)

    def step(self) -> None:
        """Update all sub-groups. What the last block uploads, and its flush, may reach into the next iteration."""
        self.steps += 1
        block: list[Subgroup] = []  # CPU sub-groups whose bf16 parameters are not yet uploaded
        for group in self.subgroups:
            if self.runs_on_gpu(group):
                self.update_on_gpu(group)
                continue
            if group.index % self.stride == 0:
                self.flush_previous_and_fetch_next(group)
                self.upload.synchronize()
            self.update_on_cpu(group)
            block.append(group)
            if (group.index + 2) % self.stride == 0 or group is self.subgroups[-1]:
                for buffer, waiting in enumerate(block):
                    done = self.background.submit(self.downcast_and_upload, waiting, buffer)
                    self.uploads[waiting.index] = done
                block = []
        self.upload.synchronize()

    def flush_previous_and_fetch_next(self, trigger: Subgroup) -> None:
        """A tensor's fetch waits for that tensor's flush only: both directions of the link are busy at once."""
        if self.to_flush is not None:
            self.flush(self.to_flush)
        following = trigger.index + self.stride - 1
        if following < len(self.subgroups):
            group = self.subgroups[following]
            with record_function(f"fetch sub-group {group.index}"):
                for stream, slot, tensor in zip(self.copy_streams, self.slot, group.state, strict=True):
                    with stream.use():
                        slot[: group.elements].copy_(tensor, non_blocking=True)

    def flush(self, group: Subgroup) -> None:
        """Enqueue the copies of the state back to the host, behind its update."""
        assert self.updated is not None
        with record_function(f"flush sub-group {group.index}"):
            for stream, slot, tensor in zip(self.copy_streams, self.slot, group.state, strict=True):
                stream.wait(self.updated)
                with stream.use():
                    tensor.copy_(slot[: group.elements], non_blocking=True)
        self.to_flush = None

    def update_on_gpu(self, group: Subgroup) -> None:
        """Wait for the state, then launch the update; the host thread goes on."""
        for stream in self.copy_streams:
            stream.synchronize()
        momentum, variance, master = (slot[: group.elements] for slot in self.slot)
        gradient = self.slot_gradient[: group.elements]
        with record_function(f"GPU Adam sub-group {group.index}"):
            staged = self.staged.pop(group.index)
            gradient.copy_(staged)
            self.compute.uses(staged)
            gradient.mul_(1 / LOSS_SCALE)
            fused_adam(master, gradient, momentum, variance, self.steps)
            # With the flush, as in the released code, forward could find the last sub-group's parameters stale.
            group.bf16.copy_(master)
        self.updated = self.compute.mark()
        self.to_flush = group

    def downcast_and_upload(self, group: Subgroup, buffer: int) -> Mark:
        """The background thread: nobody waits for it but the forward of the layers that need its parameters."""
        if buffer in self.uploaded:
            self.uploaded[buffer].synchronize()
        staging = self.staging[buffer][: group.elements]
        with record_function(f"downcast sub-group {group.index}"):
            staging.copy_(group.master)
        with record_function(f"upload sub-group {group.index}"), self.upload.use():
            group.bf16.copy_(staging, non_blocking=True)
        self.uploaded[buffer] = self.upload.mark()
        return self.uploaded[buffer]

    def before_forward(self, needed: list[int], module: nn.Module, inputs: object) -> None:
        """Let forward wait for the uploads that it needs, and for no others."""
        for index in needed:
            if index in self.uploads:
                self.compute.wait(self.uploads.pop(index).result())

    def finish(self) -> None:
        """Wait until all parameters and state are where they live."""
        for upload in self.uploads.values():
            self.compute.wait(upload.result())
        self.uploads = {}
        if self.to_flush is not None:
            self.flush(self.to_flush)
        self.device.synchronize()

    def close(self) -> None:
        """End the background thread."""
        self.background.shutdown()


OPTIMIZERS: dict[str, type[Zero3Offload]] = {
    "zero3_offload": Zero3Offload,
    "zero3_offload_async_grads": Zero3OffloadAsyncGrads,
    "deep_optimizer_states": DeepOptimizerStates,
}


# --- Training

TOLERANCE = 1e-6
"""Largest difference of a parameter from plain AdamW: rounding. A gradient missed or used twice makes about 1e-3."""
CHECKED_ITERATIONS, TRACED_ITERATIONS = 2, 2
PHASES = ("forward", "backward", "step")


class PlainAdamW:
    """The reference: AdamW on fp32 master weights, with the bf16 gradients that a schedule's backward has made."""

    def __init__(self, optimizer: Zero3Offload, device: torch.device) -> None:
        self.masters = {
            parameter: nn.Parameter(parameter.detach().to(device, FP32, copy=True)) for parameter in optimizer.where
        }
        options: dict[str, Any] = {"lr": ADAM["lr"], "weight_decay": ADAM["weight_decay"], "eps": ADAM["eps"]}
        betas = (ADAM["beta1"], ADAM["beta2"])
        self.adam = torch.optim.AdamW(self.masters.values(), betas=betas, foreach=False, fused=False, **options)

    def watch(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Take a gradient from backward."""
        master = self.masters[parameter]
        master.grad = gradient.to(master.device, FP32, copy=True) / LOSS_SCALE

    def difference(self, optimizer: Zero3Offload) -> float:
        """Largest difference of a master parameter; infinite where the bf16 parameters are not the rounded masters."""
        found = 0.0
        for group in optimizer.subgroups:
            if not torch.equal(group.bf16, group.master.to(group.bf16.device, BF16)):
                return math.inf
            masters = torch.cat([self.masters[parameter].detach().flatten() for parameter in group.members])
            difference = (masters - group.master.to(masters.device)).abs().max().item()
            if math.isnan(difference):
                return math.inf
            found = max(found, difference)
        return found


@dataclass(frozen=True)
class Plan:
    """What is trained, and how long one schedule is measured."""

    shape: Shape
    subgroup_size: int
    bucket_elements: int
    seconds: float
    fewest: int
    most: int


def choose_plan(parameters: float, cuda: bool, quick: bool) -> Plan:
    """Return the plan for a model of about so many parameters."""
    sequence = 64 if quick else 2048 if cuda else 256
    shape = choose_shape(parameters, sequence)
    # About 20 sub-groups, since the longest stride is 8; DeepSpeed's defaults from 2e9 and 1e9 parameters on
    subgroup_size = min(100_000_000, shape.parameters // 20)
    bucket_elements = min(500_000_000, shape.parameters // 2)
    return Plan(shape, subgroup_size, bucket_elements, *((0.0, 3, 3) if quick else (15.0, 3, 8)))


class Iterations:
    """Runs training iterations, and keeps when each phase began and how much GPU memory it took."""

    def __init__(self, model: Transformer, optimizer: Zero3Offload, device: Device, shape: Shape) -> None:
        self.model, self.optimizer, self.device, self.shape = model, optimizer, device, shape
        self.random = torch.Generator().manual_seed(0)
        self.marks: list[list[Mark]] = []
        self.memory: dict[str, float] = {}

    def run(self) -> None:
        """Run one iteration; the end of its update is not waited for more than the schedule does."""
        tokens = torch.randint(self.shape.vocab, (1, self.shape.sequence + 1), generator=self.random)
        on_device = tokens.to(self.device.torch)
        marks = [self.mark("before_forward")]
        with record_function("forward"):
            loss = self.model(on_device)
        marks.append(self.mark("after_forward", "before_backward"))
        with record_function("backward"):
            (loss * LOSS_SCALE).backward()
            marks.append(self.device.compute.mark())
            self.optimizer.end_backward()
        marks.append(self.mark("after_backward", "before_step"))
        with record_function("step"):
            self.optimizer.step()
        marks.append(self.mark("after_step"))
        self.marks.append(marks)

    def mark(self, *instants: str) -> Mark:
        """Return the mark of now; note memory in use and its high-water mark since the last instant."""
        mark = self.device.compute.mark()
        if self.device.cuda:
            for instant in instants:
                self.memory[f"mem_{instant}_gib"] = torch.cuda.memory_allocated() / GIB
                self.memory[f"peak_{instant}_gib"] = torch.cuda.max_memory_allocated() / GIB
                torch.cuda.reset_peak_memory_stats()
        return mark

    def seconds(self, first: int, last: int) -> list[float]:
        """Time between two marks of each iteration."""
        return [marks[first].seconds_until(marks[last]) for marks in self.marks]

    def times(self) -> dict[str, float | None]:
        """Return medians in ms, and standard deviations over means, named as in tables of measured runs."""
        found: dict[str, float] = {"iterations": len(self.marks)}
        for name, first, last in (("fwd", 0, 1), ("bwd", 1, 3), ("step", 3, 4)):
            seconds = self.seconds(first, last)
            found[f"{name}_ms"] = 1e3 * statistics.median(seconds)
            found[f"{name}_cv"] = statistics.pstdev(seconds) / statistics.mean(seconds)
            if name == "bwd":
                found["bwd_inner_ms"] = 1e3 * statistics.median(self.seconds(1, 2))
                found["bwd_allreduce_ms"] = 1e3 * statistics.median(self.seconds(2, 3))
        starts = [marks[0] for marks in self.marks]
        iterations = [start.seconds_until(after) for start, after in pairwise(starts)]
        found["iteration_ms"] = 1e3 * statistics.median(iterations)
        return {name: round(value, 4) for name, value in found.items()}


def train(schedule: Schedule, plan: Plan, device: Device, threads: int, traces: Path) -> dict[str, Any]:
    """Check a schedule, measure and trace it; return its row."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Transformer(plan.shape, device.torch)
    optimizer = OPTIMIZERS[schedule.scheduler](model, device, schedule, plan.subgroup_size, plan.bucket_elements)
    try:
        iterations = Iterations(model, optimizer, device, plan.shape)
        difference, seconds = compare_with_plain_adamw(iterations, optimizer, device)
        if not difference <= TOLERANCE:
            raise Mismatch(f"a parameter differs from plain AdamW by {difference:.3g}, tolerance {TOLERANCE:g}")
        iterations.run()  # the memory of the reference is given back: allocate anew before it counts
        device.synchronize()
        iterations.marks.clear()
        count = max(plan.fewest, min(plan.most, int(plan.seconds / seconds)))
        for _ in range(count):
            iterations.run()
        device.synchronize()
        measured = iterations.times() | memory_columns(iterations)
        trace(iterations, device, traces / f"{schedule.name}.json.gz")
        optimizer.finish()
        checked = {"parameter_difference": difference, "parameter_tolerance": TOLERANCE}
        return describe_run(schedule, plan, device, threads, optimizer) | measured | checked
    finally:
        optimizer.close()


class Mismatch(Exception):
    """A schedule does not compute what plain AdamW computes."""


def compare_with_plain_adamw(iterations: Iterations, optimizer: Zero3Offload, device: Device) -> tuple[float, float]:
    """Train with a reference beside; return the largest difference, and the seconds of an iteration."""
    parameters = iterations.shape.parameters
    on_gpu = device.cuda and device.free_bytes() > 20 * parameters + 8e9
    reference = PlainAdamW(optimizer, device.torch if on_gpu else torch.device("cpu"))
    optimizer.watch = reference.watch
    seconds = 0.0
    for _ in range(CHECKED_ITERATIONS):
        start = time.perf_counter()
        iterations.run()
        device.synchronize()
        seconds = time.perf_counter() - start
        reference.adam.step()
    optimizer.finish()
    optimizer.watch = None
    difference = reference.difference(optimizer)
    del reference
    device.release()
    return difference, seconds


def trace(iterations: Iterations, device: Device, path: Path) -> None:
    """Write a Kineto trace of a few iterations."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.cuda else [])]
    options: dict[str, Any] = {}
    with suppress(TypeError):  # the background thread too; older versions do not know how
        options["experimental_config"] = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with profile(activities=activities, **options) as profiler:
        for index in range(TRACED_ITERATIONS):
            with record_function(f"iteration {index}"):
                iterations.run()
        device.synchronize()
    part = path.with_name(f"part-{path.name}")  # the ending decides whether it is compressed
    profiler.export_chrome_trace(str(part))
    part.replace(path)


def describe_run(
    schedule: Schedule, plan: Plan, device: Device, threads: int, optimizer: Zero3Offload
) -> dict[str, Any]:
    """Return the configuration columns."""
    shape = plan.shape
    name = torch.cuda.get_device_name() if device.cuda else "cpu only"
    return {
        "hardware": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        "schedule": schedule.name,
        "model": f"{shape.parameters / 1e9:.3g}B",
        "layers": shape.layers,
        "hidden": shape.hidden,
        "ffn_hidden": shape.ffn_hidden,
        "heads": shape.heads,
        "kv_heads": shape.heads,
        "seq": shape.sequence,
        "vocab": shape.vocab,
        "swiglu": True,
        "untied": True,
        "checkpointing": True,
        "flash_attn": True,
        "params_per_tp_rank": shape.parameters,
        "tp": 1,
        "dp": 1,
        "micro_batch": 1,
        "global_batch": 1,
        "cpu_ratio": schedule.cpu_ratio,
        "subgroup_size": plan.subgroup_size,
        "subgroups": len(optimizer.subgroups),
        "largest_subgroup": max(group.elements for group in optimizer.subgroups),
        "bucket_elements": plan.bucket_elements,
        "scheduler": schedule.scheduler,
        "update_stride": schedule.update_stride,
        "dos_build": "C" if schedule.update_stride else None,
        "threads": threads,
    }


def memory_columns(iterations: Iterations) -> dict[str, float | None]:
    """Return GPU memory of the last measured iteration in GiB; empty without a GPU."""
    instants = [f"{when}_{phase}" for phase in PHASES for when in ("before", "after")]
    columns = [f"{kind}_{instant}_gib" for instant in instants for kind in ("mem", "peak")]
    return {name: round(iterations.memory[name], 3) if name in iterations.memory else None for name in columns}


# --- The command


def check_fit(parameters: int, device: Device) -> None:
    """Raise HarnessError where training would run out of memory."""
    # Host: state and gradients, which pinning may round up to powers of two, and the reference with its temporaries.
    needs = [("host", 56 * parameters + 1e9, available_host_bytes(), 56)]
    if device.cuda:  # bf16 parameters, half of the state, buckets, activations
        needs.append(("GPU", 16 * parameters + 4e9, device.free_bytes(), 16))
    for name, needed, free, each in needs:
        if needed > free:
            most = max(0.0, parameters - (needed - free) / each)
            raise HarnessError(
                f"a model of {parameters:.3g} parameters needs about {needed / 1e9:.0f} GB of {name} memory and "
                f"{free / 1e9:.0f} GB are free: give --model-params {most:.1g} or less"
            )


class Progress:
    """Says what runs, and how long is left."""

    def __init__(self, estimates: list[float], total: int) -> None:
        self.left = list(estimates)
        self.total = total
        self.expected = 0.0
        self.start = time.perf_counter()

    def begin(self, what: str) -> None:
        """Say what begins now."""
        number = self.total - len(self.left) + 1
        print(f"[{number}/{self.total}] {what} ... ", end="", flush=True)

    def end(self, found: str) -> None:
        """Say what was found, and correct the time left by how long the work so far has really taken."""
        self.expected += self.left.pop(0)
        left_s = sum(self.left) * (time.perf_counter() - self.start) / self.expected
        shown = f"{left_s / 60:.0f} min" if left_s >= 90 else f"{left_s:.0f} s"
        print(f"{found}  (about {shown} left)", flush=True)


def measure_everything(results: Results, device: Device, plan: Plan, threads: int, quick: bool) -> bool:
    """Run what the folder does not have yet; return whether all went well."""
    microbenchmarks = Microbenchmarks(device, threads, quick)
    listed = microbenchmarks.all()
    measured, trained = results.measured(), results.trained()
    to_measure = [m for m in listed if key_of(m.row([])) not in measured]
    to_train = [schedule for schedule in SCHEDULES if schedule.name not in trained]
    estimates = [0.1 if quick else 1.2] * len(to_measure) + [1.5 if quick else 35.0] * len(to_train)
    progress = Progress(estimates, len(listed) + len(SCHEDULES))
    if results.resumes:
        print(f"{len(listed) - len(to_measure)} measurements and {len(SCHEDULES) - len(to_train)} schedules are done")
    well = True
    for measurement in to_measure:
        progress.begin(str(measurement))
        try:
            seconds = microbenchmarks.measure(measurement)
        except torch.cuda.OutOfMemoryError:
            well = False
            progress.end("left out: out of GPU memory")
            continue
        results.add_measurement(measurement.row(seconds))
        progress.end(measurement.rate(seconds))
    microbenchmarks.hold(None, lambda: None)
    for schedule in to_train:
        progress.begin(f"training, {schedule.name}")
        try:
            row = train(schedule, plan, device, threads, results.traces)
        except (torch.cuda.OutOfMemoryError, Mismatch) as error:
            well = False
            reason = str(error) if isinstance(error, Mismatch) else "out of GPU memory"
            progress.end(f"left out: {reason}")
        else:
            results.add_training(row)
            times = ", ".join(f"{phase} {row[f'{phase}_ms']:.4g} ms" for phase in ("fwd", "bwd", "step"))
            equal = f"equals plain AdamW within {row['parameter_difference']:.2g} (tolerance {TOLERANCE:g})"
            progress.end(f"{times}; {equal}")
        gc.collect()  # the model and its hooks refer to each other
        device.release()
    return well


def parameter_count(text: str) -> float:
    """Read --model-params."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1e5 <= value <= 1e12:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number of parameters from 1e5 to 1e12")
    return value


def thread_count(text: str) -> int:
    """Read --threads."""
    most = usable_cores()
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"found '{text}', expected 1 to {most}, the cores of this machine")
    return int(text)


class Parser(argparse.ArgumentParser):
    """Answers bad arguments with one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with status 2."""
        self.exit(2, f"{self.prog}: {message} (--help lists the arguments)\n")


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="harness.py", description="Measure a machine for offsim.", allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute: to see that it works")
    parser.add_argument(
        "--model-params", type=parameter_count, metavar="P", help="size of the trained model (1e9; 2e7 without a GPU)"
    )
    parser.add_argument(
        "--threads", type=thread_count, metavar="N", help="threads of CPU work (as many as physical cores)"
    )
    return parser.parse_args(arguments)


def run(arguments: Sequence[str] | None) -> int:
    """Measure as the command line says; return the exit status."""
    given = read_arguments(arguments)
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_TORCH:
        raise HarnessError(f"found PyTorch {torch.__version__}, expected {'.'.join(map(str, OLDEST_TORCH))} or newer")
    device = Device()
    threads = given.threads or torch.get_num_threads()
    parameters = given.model_params or (1e6 if given.quick else 1e9 if device.cuda else 2e7)
    plan = choose_plan(parameters, device.cuda, given.quick)
    check_fit(plan.shape.parameters, device)
    settings = {"quick": given.quick, "model_params": parameters, "threads": threads}
    machine = describe_machine(device, settings)
    results = Results(given.out, machine)
    gpu = machine["gpus"][0]["name"] if device.cuda else "no GPU: what runs on one is left out or done by the CPU"
    print(f"{machine['cpu']['model']}, {threads} threads; {gpu}; results in {given.out}")
    if (machine["load_average"] or 0) > 0.5:
        print(f"note: other work runs here (load average {machine['load_average']:.1f}): times will be too long")
    well = measure_everything(results, device, plan, threads, given.quick)
    print("done" if well else "done, but for what was left out above: the same command tries it again")
    return 0 if well else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; errors of the user end with status 2 and Ctrl-C with 130."""
    try:
        return run(arguments)
    except HarnessError as error:
        print(f"harness.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nharness.py: stopped; the same command goes on with what is missing", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
