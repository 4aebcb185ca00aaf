"""Facts about the machine, as `machine.json` holds them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

VERSION = 2
"""Of the rows and files that the harness writes."""


def describe_machine(cuda: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the contents of `machine.json`; null stands for what the system does not tell."""
    cpu = read_text("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpu)
    physical = set(re.findall(r"physical id\s*:\s*(\d+)(?:.|\n)*?core id\s*:\s*(\d+)", cpu))
    nodes = sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
    return {
        "harness_version": VERSION,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": settings,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
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
            "memory_bytes": _memory_bytes("MemTotal"),
            "memory_available_bytes": available_host_bytes(),
        },
        "gpus": [_describe_gpu(index) for index in range(torch.cuda.device_count())] if cuda else [],
    }


def identity(machine: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that measurements in one folder share."""
    same = {name: machine[name] for name in ("harness_version", "settings", "torch")}
    return same | {"cpu": machine["cpu"]["model"], "gpus": [gpu["name"] for gpu in machine["gpus"]]}


def available_host_bytes() -> int:
    """Host memory that can be taken without swapping; 16 GB where the system does not say."""
    return _memory_bytes("MemAvailable") or 16 * 10**9


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_text(path: str | Path) -> str:
    """Return a file's text, or nothing where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _memory_bytes(name: str) -> int | None:
    found = re.search(rf"{name}:\s+(\d+) kB", read_text("/proc/meminfo"))
    return int(found[1]) * 1024 if found else None


def _describe_gpu(index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    return {
        "name": found.name,
        "memory_bytes": found.total_memory,
        "multiprocessors": found.multi_processor_count,
        "capability": f"{found.major}.{found.minor}",
    } | _query_driver(f"GPU-{found.uuid}")


def _query_driver(gpu: str) -> dict[str, str | None]:
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
