"""The harness runs for real on the CPU, as the one file that users copy; without torch only its imports are checked."""

import ast
import contextlib
import csv
import gzip
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offsim.calibration.microbenchmarks.rows import UNITS, read_microbenchmarks
from offsim.cli import main
from offsim.validation.run_table import MEASURED, SHIPPED_RUNS, read_runs

PACKAGE = Path(__file__).parents[2] / "offsim" / "calibration" / "harness"
SCHEDULES = [
    "zero3_offload",
    "zero3_offload_async_grads",
    "zero3_offload_async_grads_cpu_ratio0.5",
    *(f"deep_optimizer_states_stride{stride}" for stride in (2, 3, 4, 8)),
]
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start the harness as a copied file that the command has written, without GPU and this repository on the path."""
    archive = tmp_path_factory.mktemp("copied") / "harness.pyz"
    assert main(["harness", str(archive)]) == 0
    # Threads that wait asleep do not take cores from the tests beside
    threads = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    environment = {**os.environ, **threads, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return lambda *given: subprocess.Popen([sys.executable, str(archive), *map(str, given)], cwd="/", **how)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def stop_when(process: subprocess.Popen[str], ready: Callable[[], bool], how: signal.Signals) -> tuple[int, str, str]:
    while process.poll() is None and not ready():
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    process.send_signal(how)
    return finish(process)


@pytest.fixture(scope="module")
def folder(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a run that was killed among the microbenchmarks, interrupted in training, and then completed."""
    out = tmp_path_factory.mktemp("harness") / "results"
    arguments = ("--out", out, "--quick", "--model-params", "2e5")
    measured, trained = out / "microbenchmarks.jsonl", out / "training.csv"

    assert stop_when(start(*arguments), lambda: len(lines(measured)) >= 3, signal.SIGKILL)[0] == -signal.SIGKILL
    before = lines(measured)
    with measured.open("a") as file:
        file.write('{"quantity": "half a l')

    status, output, errors = stop_when(start(*arguments), lambda: len(lines(trained)) >= 3, signal.SIGINT)
    assert status == 130, errors
    assert "the same command goes on" in errors
    assert f"{len(before)} measurements and 0 schedules are done" in output
    assert lines(measured)[: len(before)] == before
    rows = lines(trained)
    with trained.open("a") as file:
        file.write("cpu-only,half a l")

    status, output, errors = finish(start(*arguments))
    assert status == 0, errors
    assert re.search(r"\[\d+/\d+\] training, .*equals plain AdamW within .*\(about \d+ s left\)", output)
    assert lines(trained)[: len(rows)] == rows
    return out


@needs_torch
def test_microbenchmarks(folder: Path) -> None:
    rows = [json.loads(line) for line in lines(folder / "microbenchmarks.jsonl")]
    for row in rows:
        assert list(row) == ["quantity", "size", "unit", "threads", "condition", "clock", "seconds"]
        assert row["unit"] in ("elements", "m x n x k", "launches")
        assert row["condition"] == "idle"
        assert row["clock"] == "host"
        assert 3 <= len(row["seconds"]) <= 5
        assert all(0 < seconds < 10 for seconds in row["seconds"])
    keys = [(row["quantity"], str(row["size"]), row["threads"], row["condition"]) for row in rows]
    assert len(set(keys)) == len(keys)
    cpu = {"host_copy", "host_add", "cpu_adam", "cpu_scale", "cpu_downcast", "cpu_downcast_fresh", "cpu_upcast"}
    assert {row["quantity"] for row in rows} == cpu | {"gemm", "kernel_launch", "layer_forward_launch"}
    assert all(len(row["size"]) == 3 for row in rows if row["quantity"] == "gemm")


@needs_torch
def test_training_is_a_table_of_measured_runs(folder: Path, tmp_path: Path) -> None:
    with (folder / "training.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["schedule"] for row in rows] == SCHEDULES
    for row in rows:
        assert float(row["parameter_difference"]) <= float(row["parameter_tolerance"]) == 1e-6
        for column in ("fwd_ms", "bwd_ms", "bwd_inner_ms", "bwd_allreduce_ms", "step_ms", "iteration_ms"):
            assert float(row[column]) > 0
        assert int(row["subgroups"]) > 3
        assert not row["mem_before_forward_gib"]  # no GPU
    with SHIPPED_RUNS.open(encoding="utf-8") as file:
        shipped = next(csv.reader(file))
    extra = {"schedule", "bucket_elements", "threads", "parameter_difference", "parameter_tolerance"}
    assert set(rows[0]) - extra <= set(shipped)

    table = tmp_path / "runs.csv"
    table.write_text((folder / "training.csv").read_text().replace("cpu-only", "jlse-4xh100"))
    runs = read_runs(table).runs
    assert [run.scenario.scheduler.name for run in runs] == [row["scheduler"] for row in rows]
    assert set(runs[0].measured) == {"fwd_ms", "bwd_ms", "step_ms", "iteration_ms"} <= set(MEASURED)


@needs_torch
def test_machine_and_traces(folder: Path) -> None:
    machine = json.loads((folder / "machine.json").read_text())
    assert machine["settings"] == {"quick": True, "model_params": 2e5, "threads": 2}
    assert machine["gpus"] == []
    assert machine["cpu"]["usable_cores"] >= 1
    assert sorted(path.name for path in (folder / "traces").iterdir()) == sorted(f"{n}.json.gz" for n in SCHEDULES)
    for name in SCHEDULES:
        path = folder / "traces" / f"{name}.json.gz"
        assert path.stat().st_size < 2_000_000
        with gzip.open(path) as file:
            annotated = [e for e in json.load(file)["traceEvents"] if e.get("cat") == "user_annotation"]
        names = {event["name"] for event in annotated}
        assert {"forward", "backward", "step", "flush bucket", "CPU Adam sub-group 0", "iteration 1"} <= names
        if name == "deep_optimizer_states_stride3":
            of_gpu = {int(n.rsplit(" ", 1)[1]) for n in names if n.startswith("GPU Adam")}
            assert of_gpu == {int(n.rsplit(" ", 1)[1]) for n in names if n.startswith("fetch")}
            assert all(index % 3 == 2 for index in of_gpu)


@needs_torch
def test_a_complete_folder_is_left_alone_and_another_measurement_refused(start: Start, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = start("--out", folder, "--quick", "--model-params", "2e5")
    other = start("--out", folder, "--quick", "--model-params", "3e5")
    status, output, errors = finish(again)
    assert status == 0, errors
    assert "training," not in output
    status, _, errors = finish(other)
    assert status == 2
    assert re.fullmatch(r"harness.pyz: .* holds results of another measurement \(settings .*\): .*\n", errors)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@needs_torch
def test_bad_arguments(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cases = {
        "required: --out": [],
        "found '0', expected 1 to": ["--out", tmp_path, "--threads", "0"],
        "found 'big', expected a number of parameters": ["--out", tmp_path, "--model-params", "big"],
        "unrecognized arguments: --fast": ["--out", tmp_path, "--fast"],
        "memory and": ["--out", tmp_path, "--model-params", "1e12"],
        "file": ["--out", tmp_path / "file", "--quick"],
    }
    processes = [(message, start(*arguments)) for message, arguments in cases.items()]
    for message, process in processes:
        status, output, errors = finish(process)
        assert status == 2, errors
        assert message in errors
        assert errors.startswith("harness.pyz: ")
        assert errors.count("\n") == 1
        assert not output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@needs_torch
@pytest.mark.parametrize("broken", ["update", "upload", "gradient"])
def test_a_schedule_that_computes_something_else_is_left_out(broken, tmp_path, monkeypatch, capfd) -> None:
    from offsim.calibration.harness import command, everything
    from offsim.calibration.harness.deep_optimizer_states import DeepOptimizerStates
    from offsim.calibration.harness.device import Mark
    from offsim.calibration.harness.training import Schedule

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(everything, "SCHEDULES", [Schedule(DeepOptimizerStates, "broken", {"update_stride": 3})])
    monkeypatch.setattr(everything, "microbenchmarks", lambda bench: [])
    cls = DeepOptimizerStates
    if broken == "update":  # the fetched state is not flushed
        monkeypatch.setattr(cls, "flush", lambda self, group: setattr(self, "to_flush", None))
    elif broken == "upload":

        def forget(self, group, buffer):
            return Mark(None)

        monkeypatch.setattr(cls, "downcast_and_upload", forget)
    else:
        store = cls.store

        def forget_embedding(self, group, place, gradient):
            if group.index:
                store(self, group, place, gradient)

        monkeypatch.setattr(cls, "store", forget_embedding)
    assert command.run(["--out", str(tmp_path / "out"), "--quick", "--model-params", "2e5"]) == 1
    assert "left out: a parameter differs from plain AdamW by" in capfd.readouterr().out
    assert not (tmp_path / "out" / "training.csv").exists()


class StandInEvent:
    def __init__(self, **options):
        self.ms = 0.0

    def record(self, stream):
        self.ms = 1e3 * time.perf_counter()

    def elapsed_time(self, later):
        assert 0 < self.ms <= later.ms
        return later.ms - self.ms

    def synchronize(self):
        assert self.ms


class StandInStream:
    def wait_event(self, event):
        assert event.ms

    def synchronize(self):
        pass


@needs_torch
def test_what_only_a_gpu_runs_at_least_runs_on_a_stand_in(tmp_path, monkeypatch) -> None:
    """Shows that the calls fit together; times and the order of streams mean nothing here."""
    import torch

    from offsim.calibration.harness import everything, training
    from offsim.calibration.harness.device import Device
    from offsim.calibration.harness.folder import ResultFolder
    from offsim.calibration.harness.measurement import Bench
    from offsim.calibration.harness.training import SCHEDULES, choose_plan

    stand_ins = {
        "Event": StandInEvent,
        "Stream": StandInStream,
        "current_stream": StandInStream,
        "stream": lambda stream: contextlib.nullcontext(),
        "synchronize": lambda: None,
        "mem_get_info": lambda: (10**10, 10**10),
        "empty_cache": lambda: None,
        "_sleep": lambda cycles: None,
        "memory_allocated": lambda: 2**30,
        "max_memory_allocated": lambda: 2**31,
        "reset_peak_memory_stats": lambda: None,
        "is_available": lambda: True,
        "get_device_name": lambda: "NVIDIA H100 80GB HBM3",
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    device = Device()
    device.torch = torch.device("cpu")
    monkeypatch.setattr(device, "host", lambda elements, dtype: torch.zeros(elements, dtype=dtype))
    monkeypatch.setattr(training, "ProfilerActivity", types.SimpleNamespace(CPU=None, CUDA=None))
    monkeypatch.setattr(training, "profile", lambda activities, **options: StandInProfile())

    results = ResultFolder(tmp_path, {"settings": {}})
    monkeypatch.setattr(everything, "SCHEDULES", [SCHEDULES[i] for i in (0, 2, 4)])
    plan = choose_plan(2e5, cuda=False, quick=True)
    assert everything.measure_everything(results, Bench(device, threads=1, quick=True), plan)

    rows = [json.loads(line) for line in lines(results.microbenchmarks)]
    assert len(read_microbenchmarks(results.folder)) == len(rows)
    assert {row["quantity"] for row in rows} == UNITS.keys()
    found = {(row["quantity"], row["condition"]) for row in rows}
    pinned = {"h2d_pinned", "d2h_pinned", "duplex_pinned"}
    pageable = {"h2d_pageable", "d2h_pageable", "d2h_pageable_fresh"}
    assert {(q, c) for q in pinned | pageable for c in ("idle", "cpu_adam")} <= found
    assert {("cpu_adam", "copies"), ("gpu_adamw_fused", "idle"), ("gpu_adamw_foreach", "idle")} <= found
    with results.training.open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert row["hardware"] == "nvidia-h100-80gb-hbm3"
    assert (row["mem_before_forward_gib"], row["peak_after_step_gib"]) == ("1.0", "2.0")


class StandInProfile(contextlib.nullcontext[Any]):
    def __enter__(self):
        return self

    def export_chrome_trace(self, path):
        Path(path).touch()


def test_only_torch_and_the_standard_library_are_imported() -> None:
    files = list(PACKAGE.glob("*.py"))
    names: set[str] = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1
            assert PACKAGE / f"{node.module}.py" in files
    assert names - sys.stdlib_module_names == {"torch"}


def test_the_harness_is_written_as_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "harness.pyz"
    assert main(["harness", str(path)]) == 0
    assert "python harness.pyz --out results" in capsys.readouterr().out
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {"__main__.py", *(f"harness/{file.name}" for file in PACKAGE.glob("*.py"))}
