"""Reading what profilers write: every version of it, and nothing else."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from offsim.traces import read, read_trace, trace_json
from tests.calibration.trace_files import (
    GEMM,
    NSIGHT,
    REAL,
    call,
    needs_real_traces,
    offloaded_step,
    on_gpu,
    write_kineto,
    write_nsight,
)
from tests.inputs.messages import message_of


def problem_of(path: Path) -> str:
    """The error that reading gives, with the file's name instead of its path."""
    message = message_of(lambda: read_trace(path))
    assert "\n" not in message
    return message.replace(str(path), path.name)


def copies(events: pd.DataFrame) -> dict[tuple[str, str], tuple[int, int, float]]:
    """Direction and memory -> copies, bytes, GB/s."""
    rows = events[events["kind"] == "memcpy"]
    found = {}
    for (direction, memory), group in rows.groupby(["direction", "memory"], observed=True):
        moved, seconds = int(group["bytes"].sum()), float((group["end_s"] - group["start_s"]).sum())
        found[str(direction), str(memory)] = (len(group), moved, moved / seconds / 1e9)
    return found


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "without_suffix"])
def test_kineto(tmp_path: Path, name: str) -> None:
    trace = read_trace(write_kineto(tmp_path / name))
    assert trace.tool == "Kineto"
    assert trace.devices == {0: "NVIDIA H100 80GB HBM3"}
    assert trace.span_s == pytest.approx(1200e-6)
    events = trace.events
    assert set(events["rank"]) == {2}
    assert copies(events) == {
        ("H2D", "pinned"): (1, 5_000_000, pytest.approx(25.0)),
        ("D2H", "pinned"): (1, 2_000_000, pytest.approx(2e6 / 98e-6 / 1e9)),
    }
    gemm = events[events["name"] == GEMM].iloc[0]
    assert (gemm["kind"], gemm["stream"], gemm["device"]) == ("kernel", "GPU 0 stream 7", 0)
    assert (gemm["start_s"], gemm["end_s"]) == (pytest.approx(222e-6), pytest.approx(400e-6))
    launch = events.loc[gemm["launched_by"]]
    assert (launch["name"], launch["stream"], launch["device"]) == ("cudaLaunchKernel", "thread 10", -1)
    wait = events[events["kind"] == "sync"].iloc[0]
    assert (wait["waits_on"], wait["waits_record"]) == (20, 2)
    assert events["start_s"].is_monotonic_increasing


def test_old_kineto_files_write_other_categories_and_threads_as_text(tmp_path: Path) -> None:
    events = [
        {**call("cudaMemcpyAsync", 100, 5, 1), "cat": "Runtime", "tid": "10"},
        {**on_gpu("Memcpy", "Memcpy HtoD (Pageable -> Device)", 110, 10, 1, bytes=1000), "tid": "stream 7"},
        {"ph": "X", "cat": "Operator", "name": "aten::add", "pid": 9, "tid": "10", "ts": 90, "dur": 20},
    ]
    found = read_trace(write_kineto(tmp_path / "a.json", events)).events
    assert list(found["kind"]) == ["cpu_op", "runtime", "memcpy"]
    assert found["stream"].iloc[2] == "GPU 0 stream 7"
    assert found["launched_by"].iloc[2] == 1


def test_new_kineto_files_have_nanoseconds(tmp_path: Path) -> None:
    events = [on_gpu("kernel", "k", 1419116963728.412, 2.76, 1)]
    path = write_kineto(tmp_path / "a.json", events, displayTimeUnit="ms", baseTimeNanoseconds=1751410836000000000)
    assert read_trace(path).span_s == pytest.approx(2.76e-6, rel=1e-9)


def test_copies_of_amd_say_host_and_may_leave_their_bytes_to_the_call(tmp_path: Path) -> None:
    launch = call("hipMemcpyWithStream", 0, 5, 1)
    launch["args"] |= {"size": "2560", "kind": "1"}
    events = [launch, on_gpu("gpu_memcpy", "Memcpy HtoD (Host -> Device)", 2, 2, 1, kind="HtoD")]
    events.append(on_gpu("gpu_memcpy", "CopyDeviceToHost", 5, 2, 2, bytes=8))
    found = read_trace(write_kineto(tmp_path / "a.json", events)).events
    assert list(copies(found)) == [("H2D", ""), ("D2H", "")]
    assert found["bytes"].iloc[1] == 2560


def test_what_is_unknown_is_kept_or_passed_over(tmp_path: Path) -> None:
    events = [
        {"ph": "X", "cat": "new_in_2030", "name": "x", "pid": 1, "tid": None, "ts": 1, "dur": 1, "args": None},
        {"ph": "X", "name": "y", "ts": 1, "dur": 0},
        {"ph": "C", "name": "counter", "ts": "never", "args": {"x": 1}},
        {"ph": "s", "id": 3, "ts": 2},
        {},
    ]
    found = read_trace(write_kineto(tmp_path / "a.json", events, distributedInfo=None, deviceProperties="none"))
    assert list(found.events["kind"]) == ["other", "other"]
    assert found.devices == {}
    assert set(found.events["rank"]) == {0}


def test_an_array_of_events_is_a_trace_also_without_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + ",\n".join(json.dumps(event) for event in offloaded_step()) + ",\n")
    assert len(read_trace(path).events) == len(read_trace(write_kineto(tmp_path / "b.json")).events)


def test_names_may_have_braces_quotes_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = write_kineto(tmp_path / "a.json", [on_gpu("kernel", 'a{"\\}]µ~', 1, 1, 1)])
    path.write_bytes(path.read_bytes().replace(b"~", b"\xff"))
    assert read_trace(path).events["name"].iloc[0] == 'a{"\\}]µ\N{REPLACEMENT CHARACTER}'


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_size_of_the_pieces_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    path = write_kineto(tmp_path / "a.json", INFO=[{"a": "]"}], scale=-1.5e3, flag=True)
    whole = read_trace(path)
    monkeypatch.setattr(trace_json, "_CHUNK", chunk)
    pd.testing.assert_frame_equal(read_trace(path).events, whole.events)


@pytest.mark.parametrize("name", ["a.sqlite", "a.sqlite.gz", "a b%20.db"])
def test_nsight(tmp_path: Path, name: str) -> None:
    trace = read_trace(write_nsight(tmp_path / name))
    assert (trace.tool, trace.devices) == ("Nsight Systems", {0: "NVIDIA H200"})
    events = trace.events
    assert copies(events) == {("H2D", "pinned"): (1, 5_000_000, pytest.approx(25.0))}
    kernel = events[events["kind"] == "kernel"].iloc[0]
    assert (kernel["name"], kernel["stream"]) == (GEMM, "GPU 0 stream 7")
    launch = events.loc[kernel["launched_by"]]
    assert (launch["name"], launch["stream"]) == ("cudaLaunchKernel", "thread 77")
    assert list(events.loc[events["kind"] == "annotation", "name"]) == ["step"]
    assert trace.span_s == pytest.approx(340e-6)


def test_old_nsight_exports_lack_columns_and_tables(tmp_path: Path) -> None:
    columns, rows = NSIGHT["CUPTI_ACTIVITY_KIND_SYNCHRONIZATION"]
    old = tuple("deprecatedSyncType" if column == "syncType" else column for column in columns)
    path = write_nsight(
        tmp_path / "a.sqlite",
        TARGET_INFO_GPU=None,
        NVTX_EVENTS=None,
        CUPTI_ACTIVITY_KIND_SYNCHRONIZATION=(old, rows),
        CUPTI_ACTIVITY_KIND_KERNEL=(("start", "end", "deviceId", "shortName"), [(1, 2, 1, "kernel as text")]),
    )
    trace = read_trace(path)
    assert trace.devices == {0: "", 1: ""}
    assert "kernel as text" in set(trace.events["name"])
    assert "Stream Sync" in set(trace.events["name"])


def test_nsight_waits_know_the_call_that_recorded_the_event(tmp_path: Path) -> None:
    columns = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", "syncType", "eventSyncId")
    path = write_nsight(
        tmp_path / "a.sqlite",
        CUPTI_ACTIVITY_KIND_SYNCHRONIZATION=(columns, [(5, 6, 0, 9, 3, 5 << 24, 2, 44)]),
        CUPTI_ACTIVITY_KIND_CUDA_EVENT=(
            ("globalPid", "eventSyncId", "correlationId", "streamId"),
            [(5 << 24, 44, 2, 7)],
        ),
    )
    wait = read_trace(path).events.query("kind == 'sync'").iloc[0]
    assert (wait["name"], wait["stream"], wait["waits_on"], wait["waits_record"]) == (
        "Stream Wait Event", "GPU 0 stream 9", 7, 2,
    )  # fmt: skip


def kernel(**changes: object) -> bytes:
    return json.dumps({"traceEvents": [{**on_gpu("kernel", "k", 1, 1, 1), **changes}]}).encode()


WHOLE = json.dumps({"traceEvents": [on_gpu("kernel", "k", 1, 1, 1)]}).encode()
DEEP = b'{"ph":' * 100_000 + b"1" + b"}" * 100_000
MICROSECONDS = "expected a number of microseconds"
EXPECTED = "expected a trace: JSON of Kineto, or an SQLite export of Nsight Systems"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", f"found an empty file, {EXPECTED}"),
        (b"\n \n", f"found an empty file, {EXPECTED}"),
        (b"\x89PNG\r\n\x1a\n", f"found '\N{REPLACEMENT CHARACTER}', {EXPECTED}"),
        (b"\x1f\x8bnot gzip", f"found a damaged gzip file, {EXPECTED}"),
        (gzip.compress(WHOLE, mtime=0)[:-9], f"found a damaged gzip file, {EXPECTED}"),
        (WHOLE[:60], None),
        (WHOLE[:-1], "not valid JSON: the end of the file where a key of the document is expected"),
        (b'{"traceEvents": [', "event 0: found the end of the file, expected an object"),
        (b'{"traceEvents": [1]}', "event 0: found '1', expected an object"),
        (b'{"traceEvents": {}}', "traceEvents: found '{', expected an array of events"),
        (b'{"traceEvents": []}', "found no events that have a duration, expected some"),
        (b'{"a": 1, "b": []}', "found no key 'traceEvents' (but a, b), expected a trace of Kineto"),
        (b"{}", "found no key 'traceEvents' (but none), expected a trace of Kineto"),
        (b"{a: 1}", "not valid JSON: 'a' where a key of the document is expected"),
        (b'{"a" 1}', "not valid JSON: '1' behind the key 'a', expected ':'"),
        (b'{"a": [1, nothing]}', "the value of 'a': not valid JSON, or cut off: Expecting value"),
        (b'{"traceEvents": [' + DEEP + b"]}", "event 0: not valid JSON: too many levels"),
        (b'{"traceEvents": [{"ph": ]}]}', None),
        (b'{"traceEvents": [{"ph": "X", "ts": NaN, "dur": 1}]}', f"event 0: ts: found nan, {MICROSECONDS}"),
        (kernel(ts="12"), "event 0: ts: found '12', expected a number of microseconds"),
        (kernel(ts=True), "event 0: ts: found True, expected a number of microseconds"),
        (kernel(ts=1e300), "event 0: ts: found 1e+300, expected a number of microseconds"),
        (kernel(dur=None), "event 0: dur: found nothing, expected a number of microseconds"),
        (kernel(dur=-3), "event 0: dur: found -3, expected at least 0"),
        (kernel(args={"bytes": -3}), "event 0: bytes: found -3, expected a number that is at least 0"),
        (kernel(args={"bytes": 99 * "x"}), f"event 0: bytes: found '{36 * 'x'}..., expected a number that is at least 0"),  # noqa: E501
    ],
    ids=range(26),
)  # fmt: skip
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes, problem: str | None) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    found = problem_of(path)
    assert found.startswith("a.json: event 0: not valid JSON") if problem is None else found == f"a.json: {problem}"


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "none") == "none: no such file"
    assert problem_of(tmp_path).endswith(f"found a folder, {EXPECTED}")
    assert problem_of(Path("a\0b")) == "a\0b: cannot be read: embedded null byte"
    report = "found a report of Nsight Systems, expected its export: nsys export --type sqlite run.nsys-rep"
    assert problem_of(tmp_path / "run.nsys-rep") == f"run.nsys-rep: {report}"


@pytest.mark.parametrize(
    ("table", "row", "problem"),
    [
        ("KERNEL", (0, "soon", 0, 7, 2, 5, 1, 2), "'end': found 'soon', expected a number of nanoseconds"),
        ("KERNEL", (None, 5, 0, 7, 2, 5, 1, 2), "'start': found nothing, expected a number of nanoseconds"),
        ("KERNEL", (9, 5, 0, 7, 2, 5, 1, 2), "'end': found 5, expected at least start (9)"),
        ("KERNEL", (1.5, 5, 0, 7, 2, 5, 1, 2), "'start': found 1.5, expected a number of nanoseconds"),
        ("MEMCPY", (0, 1, 0, 7, 1, 5, -8, 1, 1, 2), "'bytes': found -8, expected a number that is at least 0"),
    ],
)
def test_bad_cells_of_an_export_are_named(tmp_path: Path, table: str, row: tuple[object, ...], problem: str) -> None:
    name = f"CUPTI_ACTIVITY_KIND_{table}"
    path = write_nsight(tmp_path / "a.sqlite", **{name: (NSIGHT[name][0], [row])})
    assert problem_of(path) == f"a.sqlite: table {table}, column {problem}"


def test_other_databases_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE people (name)")
    database.close()
    assert problem_of(path).startswith("a.sqlite: found SQLite without the tables of an Nsight Systems export")
    whole = write_nsight(tmp_path / "b.sqlite").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert problem_of(path).startswith("a.sqlite: found a damaged SQLite file")
    path.write_bytes(whole[:100] + b"\xff" * 4000 + whole[4100:])
    assert problem_of(path).startswith("a.sqlite: found a damaged SQLite file")
    # A view, which may compute without end, is no table.
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS SELECT 1 AS start, 2 AS end")
    database.close()
    assert "without the tables" in problem_of(path)


def test_what_a_small_file_unpacks_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * 90_000_000, 1))
    assert "unpacks to over 250 times its size" in problem_of(path) or path.stat().st_size > 90_000_000 / 250
    monkeypatch.setattr(read, "MAX_RATIO", 50)
    assert "unpacks to over 50 times its size" in problem_of(path)
    monkeypatch.setattr(read, "MAX_BYTES", 1000)
    assert "found more than 1000 bytes" in problem_of(write_kineto(tmp_path / "b.json"))
    assert "found more than 1000 bytes" in problem_of(write_nsight(tmp_path / "c.sqlite.gz"))


def test_memory_is_bounded_by_the_events_and_not_by_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_json, "_LONGEST", 10_000)
    monkeypatch.setattr(trace_json, "_CHUNK", 1000)
    path = write_kineto(tmp_path / "a.json", [on_gpu("kernel", "k" * 20_000, 1, 1, 1)])
    assert problem_of(path) == "a.json: found a value of more than 10000 bytes, expected events of a trace"
    # Many times the longest value, in events that are short.
    path = write_kineto(tmp_path / "b.json", [on_gpu("kernel", "k", i, 1, i) for i in range(1000)])
    assert path.stat().st_size > 100_000
    assert len(read_trace(path).events) == 1000


# File -> kernels, and direction and memory -> copies, MB, GB/s, as the folder's own description has them.
PINNED, PAGEABLE, OUT_PINNED, OUT = ("H2D", "pinned"), ("H2D", "pageable"), ("D2H", "pinned"), ("D2H", "pageable")
RECORDED: dict[str, tuple[int, dict[tuple[str, str], tuple[int, float, float]]]] = {
    "fuser_h200_report1.sqlite": (18, {PAGEABLE: (2, 394, 18.45)}),
    "hta_a100-40g_fusedadam_control.json": (8568, {PINNED: (150, 424, 8.37), OUT: (60, 0.101, 0.94)}),
    "hta_a100-80g_fusedadam_rank0.json": (
        6080, {PINNED: (35, 254, 12.03), PAGEABLE: (45, 0.00672, 0.08), OUT: (30, 0.0086, 0.11)},
    ),
    "hta_a100_alexnet_pageable_h2d.json": (79, {PAGEABLE: (16, 244, 4.4)}),
    "hta_a100_event_sync_multi_stream.json": (3, {}),
    "hta_a100_nccl_args.json": (2700, {}),
    "hta_cpu_only_fusedadam.json": (0, {}),
    "hta_mi250_toy_train.json": (14, {}),
    "hta_sampled_rank-0.json": (
        1154, {PAGEABLE: (16, 0.0164, 0.25), PINNED: (8, 4.85, 5.97), OUT: (8, 0.00611, 0.38)},
    ),
    "hta_tiny_base.json": (6, {PINNED: (5, 7.79, 6.35)}),
    "kineto_v100_resnet50_nw0.json": (8772, {PAGEABLE: (12, 116, 11.11)}),
    "mordred_rtx6000_pageable_both_ways.sqlite": (12, {PAGEABLE: (164, 537, 5.32), OUT: (24, 739, 2.58)}),
    "nsysai_h100x2_pinned_h2d_offload.sqlite": (
        3442, {PINNED: (446, 5.1e4, 27.67), PAGEABLE: (4, 0.00314, 0.93), OUT_PINNED: (4, 1.8e-5, 0.0)},
    ),
    "tracelens_h100_owlv2.json": (4330, {PAGEABLE: (25, 30.9, 18.61), OUT: (55, 146, 11.35)}),
    "tracelens_h100_qwen0.5b_prefill.json": (1465, {OUT_PINNED: (1, 1e-6, 0.0)}),
    "tracelens_mi300x_owlv2.json": (4255, {("H2D", ""): (25, 30.9, 29.73), ("D2H", ""): (55, 146, 43.89)}),
}  # fmt: skip


@needs_real_traces
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_traces(name: str) -> None:
    events = read_trace(REAL / f"{name}.gz").events
    kernels, expected = RECORDED[name]
    assert (events["kind"] == "kernel").sum() == kernels
    found = copies(events)
    for key, (count, megabytes, rate) in expected.items():
        assert found[key][0] == count
        assert found[key][1] / 1e6 == pytest.approx(megabytes, rel=5e-3)
        assert found[key][2] == pytest.approx(rate, abs=0.006)
    assert (events["end_s"] >= events["start_s"]).all()


def test_a_pipe_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # so that opening it for reading does not wait
    try:
        assert problem_of(path) == "trace.json: found a pipe, expected a file"
    finally:
        os.close(writer)
