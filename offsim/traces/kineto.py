"""Traces of PyTorch's profiler (Kineto): Chrome trace events in JSON, of NVIDIA and AMD GPUs and without one.

Times are microseconds, whole ones in old files and with nanoseconds behind the point in new ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from offsim.inputs.errors import InputError
from offsim.traces.events import NONE, EventTable, Trace, quoted
from offsim.traces.graph import Activity, activity_of, graph_of
from offsim.traces.trace_json import TraceJson
from offsim.traces.work import work_of

# Category -> kind; in lower case, as old files write "Kernel" and new ones "kernel".
_KINDS = {
    "kernel": "kernel",
    **dict.fromkeys(("gpu_memcpy", "memcpy"), "memcpy"),
    **dict.fromkeys(("gpu_memset", "memset"), "memset"),
    **dict.fromkeys(("cuda_runtime", "cuda_driver", "hip_runtime", "runtime", "driver"), "runtime"),
    "cuda_sync": "sync",
    **dict.fromkeys(("cpu_op", "operator"), "cpu_op"),
    "user_annotation": "annotation",
    "gpu_user_annotation": "gpu_annotation",
    "python_function": "python",
    "overhead": "overhead",
}
_ON_GPU = ("kernel", "memcpy", "memset", "sync", "gpu_annotation")
_OF_THE_PROFILER = "trace"
"""The category of the profiler's own span, which is longer than what it recorded."""

_DIRECTION = re.compile(r"([HDP])(?:ost|evice|eer)?to([HDP])", re.IGNORECASE)
_ENDS = re.compile(r"\((\w+) -> (\w+)\)")
_LATEST_US = 4e15
"""Microseconds since 1970 until the year 2096; two of them, in nanoseconds, fit into 64 bits."""
_LARGEST = 2**53


def read_kineto(read: Callable[[int], bytes], path: Path) -> Trace:
    """Read a trace from the bytes of its JSON; InputError for what is no trace."""
    document = TraceJson(read, path)
    table = EventTable(path)
    activities: list[tuple[str, Activity, float]] = []
    for number, event in enumerate(document.events()):
        if event.get("ph") == "X":
            try:
                _add(table, event, activities)
            except InputError as error:
                raise InputError(f"event {number}: {error.problem}", str(path)) from None
    distributed = document.others.get("distributedInfo")
    rank = distributed.get("rank") if isinstance(distributed, dict) else None
    trace = table.trace("Kineto", _devices(document.others), {0: max(_id(rank), 0)})
    return replace(trace, graph=graph_of(activities, document.others.get("otherData"), str(path)))


def _devices(others: Mapping[str, Any]) -> dict[int, str]:
    properties = others.get("deviceProperties")
    known = [entry for entry in properties if isinstance(entry, dict)] if isinstance(properties, list) else []
    return {_id(entry.get("id")): str(entry.get("name", "")) for entry in known}


def _add(table: EventTable, event: Mapping[str, Any], activities: list[tuple[str, Activity, float]]) -> None:
    category = str(event.get("cat", "")).lower()
    if category == _OF_THE_PROFILER:
        return
    kind = _KINDS.get(category, "other")
    found = event.get("args")
    args: Mapping[str, Any] = found if isinstance(found, dict) else {}
    start = round(1000 * _microseconds(event, "ts"))
    took = round(1000 * _microseconds(event, "dur"))
    if took < 0:
        raise InputError(f"dur: found {event['dur']}, expected at least 0")
    name = str(event.get("name", ""))
    device, stream = NONE, f"thread {event.get('tid', '?')}"
    if kind in _ON_GPU:
        device = _id(args.get("device", event.get("pid")))
        stream = f"GPU {device} stream {_id(args.get('stream', event.get('tid')))}"
    if (activity := activity_of(args)) is not None:
        activities.append((stream, activity, took / 1e9))
    direction, memory = copy_of(name, args) if kind == "memcpy" else ("", "")
    table.add(
        kind,
        name,
        stream,
        start,
        start + took,
        device=device,
        nbytes=_bytes(args),
        direction=direction,
        memory=memory,
        correlation=_id(args.get("correlation")),
        waits_on=_id(args.get("wait_on_stream")),
        waits_record=_id(args.get("wait_on_cuda_event_record_corr_id")),
        work=work_of(kind, name, args),
    )


def copy_of(name: str, args: Mapping[str, Any]) -> tuple[str, str]:
    """Direction and host memory of a copy by its name, such as "Memcpy HtoD (Pinned -> Device)"."""
    found = _DIRECTION.search(name) or _DIRECTION.search(str(args.get("kind", "")))
    if found is None:
        return "", ""
    source, target = (end.upper().replace("P", "D") for end in found.groups())
    direction = f"{source}2{target}"
    if direction == "D2D":
        return direction, "device"
    ends = _ENDS.search(name)
    memory = ends.group(1 if source == "H" else 2).lower() if ends else ""
    return direction, memory if memory in ("pinned", "pageable") else ""


def _microseconds(event: Mapping[str, Any], key: str) -> float:
    value = event.get(key)
    if type(value) not in (int, float) or not -_LATEST_US < value < _LATEST_US:  # type: ignore[operator]
        raise InputError(f"{key}: found {quoted(value)}, expected a number of microseconds")
    return value  # type: ignore[return-value]


def _bytes(args: Mapping[str, Any]) -> int:
    """Bytes moved; AMD's calls write them as text."""
    value = args.get("bytes", args.get("size", 0))
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:17])
    if type(value) not in (int, float) or not 0 <= value <= _LARGEST:
        raise InputError(f"bytes: found {quoted(value)}, expected a number that is at least 0")
    return int(value)


def _id(value: object) -> int:
    """A number that names something; also of "stream 7"."""
    if isinstance(value, str):
        digits = re.search(r"-?\d{1,18}$", value)
        return int(digits.group()) if digits else NONE
    return value if type(value) is int and abs(value) <= _LARGEST else NONE
