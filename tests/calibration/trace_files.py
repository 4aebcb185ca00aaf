"""Small traces as profilers write them, made for the tests."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

REAL = Path(os.environ.get("OFFSIM_TRACES", "/nowhere"))
needs_real_traces = pytest.mark.skipif(not REAL.is_dir(), reason="OFFSIM_TRACES names no folder of recorded traces")
GEMM = "ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_tn"
ADAM = "void at::native::multi_tensor_apply_kernel<TensorListMetadata<4>, AdamFunctor<float> >(float)"

Json = dict[str, Any]


def call(name: str, ts: float, dur: float, correlation: int, tid: int = 10) -> Json:
    args = {"cbid": 211, "correlation": correlation}
    return {"ph": "X", "cat": "cuda_runtime", "name": name, "pid": 9, "tid": tid, "ts": ts, "dur": dur, "args": args}


def on_gpu(cat: str, name: str, ts: float, dur: float, correlation: int, stream: int = 7, **args: object) -> Json:
    args = {"device": 0, "stream": stream, "correlation": correlation, **args}
    return {"ph": "X", "cat": cat, "name": name, "pid": 0, "tid": stream, "ts": ts, "dur": dur, "args": args}


def offloaded_step(origin_us: float = 1_661_203_463_000_000) -> list[Json]:
    """A step of 1.2 ms: copy a parameter in on its own stream, GEMM behind it, copy out, wait, CPU Adam, GPU Adam."""
    at = origin_us
    events = [
        {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "ts": at, "args": {"name": "python"}},
        {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "pid": "Spans", "tid": "PyTorch Profiler",
         "ts": at - 500, "dur": 5000, "args": {"Op count": 0}},
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#3", "pid": 9, "tid": 10, "ts": at, "dur": 1200},
        {"ph": "X", "cat": "cpu_op", "name": "aten::copy_", "pid": 9, "tid": 10, "ts": at, "dur": 20},
        call("cudaMemcpyAsync", at + 5, 10, 1),
        on_gpu("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", at + 20, 200, 1, 20, bytes=5_000_000),
        call("cudaEventRecord", at + 22, 2, 2),
        call("cudaStreamWaitEvent", at + 25, 2, 3),
        {"ph": "X", "cat": "cuda_sync", "name": "Stream Wait Event", "pid": 0, "tid": 7, "ts": at + 25, "dur": 1,
         "args": {"stream": 7, "wait_on_stream": 20, "wait_on_cuda_event_record_corr_id": 2, "correlation": 3,
                  "device": 0}},
        call("cudaLaunchKernel", at + 30, 10, 4),
        on_gpu("kernel", GEMM, at + 222, 178, 4),
        call("cudaMemcpyAsync", at + 45, 5, 5),
        on_gpu("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", at + 402, 98, 5, bytes=2_000_000),
        call("cudaStreamSynchronize", at + 60, 450, 6),
        {"ph": "X", "cat": "user_annotation", "name": "DeepSpeedCPUAdam", "pid": 9, "tid": 10, "ts": at + 520,
         "dur": 480},
        call("cudaLaunchKernel", at + 1010, 10, 7),
        on_gpu("kernel", ADAM, at + 1025, 100, 7),
        call("cudaDeviceSynchronize", at + 1030, 100, 8),
        {"ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": at + 1200},
    ]  # fmt: skip
    return events


def write_kineto(path: Path, events: list[Json] | None = None, **document: object) -> Path:
    """Write a trace of Kineto, gzipped where the name ends in .gz."""
    devices = [{"id": 0, "name": "NVIDIA H100 80GB HBM3"}, {"id": 1, "name": "NVIDIA H100 80GB HBM3"}]
    whole: Json = {"schemaVersion": 1, "deviceProperties": devices, "distributedInfo": {"rank": 2}}
    whole |= {"traceEvents": offloaded_step() if events is None else events} | document
    data = json.dumps(whole, indent=1).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


NSIGHT: dict[str, tuple[tuple[str, ...], list[tuple[object, ...]]]] = {
    "StringIds": (("id", "value"), [(1, GEMM), (2, "gemm"), (3, "cudaLaunchKernel_v7000"), (4, "cudaMemcpyAsync_v3020"),
                                    (5, "cudaStreamSynchronize_v3020"), (6, "step")]),
    "TARGET_INFO_GPU": (("id", "name"), [(0, "NVIDIA H200")]),
    "CUPTI_ACTIVITY_KIND_RUNTIME": (
        ("start", "end", "globalTid", "correlationId", "nameId"),
        [(0, 10_000, (5 << 24) + 77, 1, 4), (20_000, 30_000, (5 << 24) + 77, 2, 3),
         (40_000, 330_000, (5 << 24) + 77, 3, 5)],
    ),
    "CUPTI_ACTIVITY_KIND_KERNEL": (
        ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", "demangledName", "shortName"),
        [(220_000, 320_000, 0, 7, 2, 5 << 24, 1, 2)],
    ),
    "CUPTI_ACTIVITY_KIND_MEMCPY": (
        ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", "bytes", "copyKind", "srcKind",
         "dstKind"),
        [(15_000, 215_000, 0, 7, 1, 5 << 24, 5_000_000, 1, 1, 2)],
    ),
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": (
        ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", "syncType", "eventId"),
        [(41_000, 329_000, 0, 7, 3, 5 << 24, 3, 2**32 - 1)],
    ),
    "NVTX_EVENTS": (
        ("start", "end", "globalTid", "text", "textId"),
        [(0, 340_000, (5 << 24) + 77, None, 6), (100, None, (5 << 24) + 77, "a mark", None)],
    ),
}  # fmt: skip


def write_nsight(path: Path, **changes: tuple[tuple[str, ...], list[tuple[object, ...]]] | None) -> Path:
    """Write an export of Nsight Systems with other tables or, where None, without some."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    database = sqlite3.connect(plain)
    for table, content in (NSIGHT | changes).items():
        if content is not None:
            columns, rows = content
            database.execute(f"CREATE TABLE {table} ({', '.join(f'[{column}]' for column in columns)})")
            database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)
    database.commit()
    database.close()
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path
