import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from offsim.api import Result
from offsim.views.intervals import from_their_beginning
from offsim.views.perfetto import category, event_name, trace_events, write_trace


def written(tables: Result, path: Path) -> dict[str, Any]:
    events = trace_events(tables.timeline, tables.memory, tables.bandwidth, tables.phases)
    write_trace(path, events, {"scheduler": "x"})
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return json.loads(data)


@pytest.fixture(scope="module")
def events(baseline: Result, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return written(baseline, tmp_path_factory.mktemp("trace") / "run.json.gz")["traceEvents"]


def of(events: list[dict[str, Any]], ph: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == ph]


def test_the_document_has_the_metadata_and_is_the_same_packed_or_not(baseline: Result, tmp_path: Path) -> None:
    plain, packed = written(baseline, tmp_path / "run.json"), written(baseline, tmp_path / "run.json.gz")
    assert plain == packed
    assert plain["otherData"] == {"scheduler": "x"}
    assert plain["displayTimeUnit"] == "ms"


def test_an_event_for_each_activity_in_microseconds(baseline: Result, events: list[dict[str, Any]]) -> None:
    slices = [event for event in of(events, "X") if event["cat"] != "user_annotation"]
    assert len(slices) == len(baseline.timeline)
    rows = from_their_beginning(baseline.timeline).sort_values(
        ["start_s", "end_s"], ascending=[True, False], kind="stable"
    )
    for event, row in zip(slices, rows.itertuples(), strict=True):
        assert event["ts"] == pytest.approx(row.start_s * 1e6, abs=1e-3)
        assert event["dur"] == pytest.approx((row.end_s - row.start_s) * 1e6, abs=2e-3)
        assert event["args"].get("bytes", 0) == pytest.approx(row.bytes, abs=0.5)
    assert sum(event["args"].get("bytes", 0) for event in slices) == pytest.approx(baseline.timeline["bytes"].sum())


def test_copies_look_as_pytorch_writes_them(events: list[dict[str, Any]]) -> None:
    copies = [event for event in events if event.get("cat") == "gpu_memcpy"]
    copy = next(event for event in copies if event["name"].startswith("Memcpy HtoD: "))
    assert copy["args"]["memory bandwidth (GB/s)"] == pytest.approx(copy["args"]["bytes"] / copy["dur"] / 1e3, rel=1e-3)
    assert copy["args"]["device"] == 0
    assert copy["args"]["stream"] == copy["tid"]
    assert isinstance(copy["args"]["correlation"], int)
    correlations = [event["args"]["correlation"] for event in events if "correlation" in event.get("args", {})]
    assert len(correlations) == len(set(correlations))


def test_categories_and_names() -> None:
    assert category("h2d", "copy p") == "gpu_memcpy"
    assert category("conversion", "background thread") == "cpu_op"
    assert category("conversion", "reduce") == "kernel"
    assert category("nvme read", "nvme") == "cpu_op"
    assert category("surprise", "compute") == "kernel"
    assert event_name("all_gather", "layer 3") == "ncclDevKernel_AllGather: layer 3"
    assert event_name("cpu_adam", "CPU Adam 4") == "CPU Adam 4"


def test_slices_of_a_thread_only_nest(events: list[dict[str, Any]]) -> None:
    threads: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in of(events, "X"):
        start = round(event["ts"] * 1000)
        threads.setdefault((event["pid"], event["tid"]), []).append((start, start + round(event["dur"] * 1000)))
    for spans in threads.values():
        for i, (start, end) in enumerate(spans):
            for other_start, other_end in spans[i + 1 :]:
                assert other_start >= end or (start <= other_start and other_end <= end)


def test_every_thread_and_process_is_named_and_placed(baseline: Result, events: list[dict[str, Any]]) -> None:
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in of(events, "M") if e["name"] == "thread_name"}
    order = {(e["pid"], e["tid"]): e["args"]["sort_index"] for e in of(events, "M") if e["name"] == "thread_sort_index"}
    assert {(e["pid"], e["tid"]) for e in of(events, "X")} == names.keys() == order.keys()
    ranks = {name: order[key] for key, name in names.items() if key[0] == 0}
    assert sorted(ranks, key=ranks.__getitem__)[:3] == ["host thread", "compute", "upload"]
    assert set(ranks) == set(baseline.timeline["stream"])
    processes = {e["pid"]: e["args"]["name"] for e in of(events, "M") if e["name"] == "process_name"}
    assert processes == {0: "rank 0", 1: "iteration, memory and links"}


def test_flows_pair_and_are_tied_to_slices_of_different_streams(baseline: Result, events: list[dict[str, Any]]) -> None:
    starts, ends = {e["id"]: e for e in of(events, "s")}, {e["id"]: e for e in of(events, "f")}
    assert len(starts) == len(of(events, "s"))
    assert starts.keys() == ends.keys()
    streams = baseline.timeline["stream"]
    shown = from_their_beginning(baseline.timeline)
    waiting = shown[(shown["waited_for"] >= 0) & (shown["end_s"] > shown["start_s"])]
    expected = {i for i, source in waiting["waited_for"].items() if streams[i] != streams[source]}
    assert starts.keys() == expected
    assert len(expected) > 20
    slices: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in of(events, "X"):
        slices.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for flow, begin in starts.items():
        end = ends[flow]
        assert (begin["pid"], begin["tid"]) != (end["pid"], end["tid"])
        assert begin["ts"] <= end["ts"]
        assert end["bp"] == "e"
        for event in (begin, end):
            assert any(a <= event["ts"] < b for a, b in slices[event["pid"], event["tid"]])


def test_counters_go_forward_and_end_where_the_tables_end(baseline: Result, events: list[dict[str, Any]]) -> None:
    series: dict[str, list[tuple[float, float]]] = {}
    for event in of(events, "C"):
        ((_, value),) = event["args"].items()
        series.setdefault(event["name"], []).append((event["ts"], value))
    for points in series.values():
        times = [time for time, _ in points]
        assert all(a < b for a, b in itertools.pairwise(times))
    gpu = baseline.memory[baseline.memory["tier"] == "GPU 0"]
    assert series["GPU 0: used"][-1] == pytest.approx((gpu["time_s"].iloc[-1] * 1e6, gpu["used_bytes"].iloc[-1] / 1e9))
    assert {name for name in series if not name.startswith(("GPU 0: ", "host: "))} == set(
        baseline.bandwidth["resource"]
    )


def test_phases_have_their_own_track(baseline: Result, events: list[dict[str, Any]]) -> None:
    phases = [event for event in events if event.get("cat") == "user_annotation"]
    assert [event["name"] for event in phases] == ["forward", "backward", "update"]
    assert {event["tid"] for event in phases} == {0}
    delayed = baseline.phases.copy()
    delayed.loc[2, ["start_s", "end_s"]] = [0.0, 0.5]
    events = trace_events(baseline.timeline, baseline.memory, baseline.bandwidth, delayed)
    assert len({event["tid"] for event in events if event.get("cat") == "user_annotation"}) == 2


def test_ranks_are_processes(baseline: Result) -> None:
    second = baseline.timeline.assign(rank=1)
    second.index += len(baseline.timeline)
    both = pd.concat([baseline.timeline, second])
    events = trace_events(both, baseline.memory, baseline.bandwidth, baseline.phases)
    assert {event["pid"] for event in of(events, "X") if event["cat"] != "user_annotation"} == {0, 1}
    assert {event["pid"] for event in of(events, "C")} == {2}


def test_what_begins_before_zero_moves_the_whole_trace(dos: Result) -> None:
    events = trace_events(dos.timeline, dos.memory, dos.bandwidth, dos.phases)
    assert min(event["ts"] for event in of(events, "X")) == 0.0
    forward = next(event for event in events if event["name"] == "forward")
    assert forward["ts"] == pytest.approx(-1e6 * dos.timeline["start_s"].min(), abs=1e-3)
