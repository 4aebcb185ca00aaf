"""Training logs become rows of the measured-runs table; what they don't say stays blank."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from offsim.calibration.logs import log_file
from offsim.calibration.logs.logged_runs import missing, read_log
from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.validation.run_table import read_runs
from tests.calibration.synthetic_logs import (
    STAMP,
    ZERO_AS_DICTIONARY,
    deepspeed_configuration,
    iteration,
    megatron_arguments,
    memory,
    timers,
    whole_log,
)
from tests.conftest import Complaint


def written(folder: Path, lines: list[str], name: str = "train.log") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def row_of(folder: Path, lines: list[str]) -> dict[str, str]:
    rows = read_log(written(folder, lines))
    assert len(rows) == 1
    return rows[0]


def test_a_whole_log(tmp_path: Path) -> None:
    row = row_of(tmp_path, whole_log())
    expected = {
        "series": "train", "layers": "40", "hidden": "5120", "ffn_hidden": "13632", "heads": "40", "kv_heads": "4",
        "seq": "2048", "vocab": "50304", "swiglu": "True", "untied": "True", "checkpointing": "True",
        "flash_attn": "False", "params_per_tp_rank": "11197895680", "tp": "1", "dp": "4", "micro_batch": "1",
        "global_batch": "4", "cpu_ratio": "0.8", "subgroup_size": "100000000", "subgroups": "81", "iterations": "10",
        "fwd_ms": "1256.0", "fwd_cv": "0.0010", "bwd_ms": "11038.7", "bwd_cv": "0.0010", "bwd_inner_ms": "10878.7",
        "bwd_allreduce_ms": "160.0", "step_ms": "7920.3", "step_cv": "0.0010", "optimizer_step_ms": "7890.3",
        "iteration_ms": "20580.0", "mem_before_forward_gib": "23.06", "mem_after_forward_gib": "27.88",
        "peak_after_forward_gib": "30.18", "peak_after_backward_gib": "30.99", "mem_after_step_gib": "23.06",
    }  # fmt: skip
    assert {column: row[column] for column in expected} == expected
    assert missing(row) == ["hardware", "scheduler"]


def test_the_written_table_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path, whole_log())
    out = tmp_path / "runs.csv"
    assert main(["logs", str(log), str(log), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    told = f"{log} does not say: hardware, scheduler; fill them with --set COLUMN=VALUE"
    assert printed.err.splitlines()[1:] == [told, told]
    assert "1256.0" in printed.out
    fills = ["--set", "hardware=jlse-4xh100", "--set", "scheduler=zero3_offload"]
    assert main(["logs", str(log), "--out", str(out), *fills]) == 0
    assert capsys.readouterr().err == f"wrote {out}\n"
    (run,) = read_runs(out).runs
    assert run.measured["bwd_ms"] == 11038.7
    assert run.scenario.training.global_batch == 4


@pytest.mark.parametrize("prefix", ["node017: ", "0: ", "[default0]:", "2024-03-05T10:11:12Z worker-0 | "])
def test_prefixes_do_not_matter(tmp_path: Path, prefix: str) -> None:
    row = row_of(tmp_path, [prefix + line for line in whole_log()])
    assert row == row_of(tmp_path, whole_log())


@pytest.mark.parametrize("prefix", ["{}: ", "[default{}]:", "[rank{}]: "])
def test_of_several_ranks_the_first_counts(tmp_path: Path, prefix: str) -> None:
    own, other = whole_log(), whole_log(forward=999.0, backward=1.0)
    other = [line for line in other if "Rank" not in line]
    lines = [prefix.format(rank) + line for pair in zip(own, other, strict=False) for rank, line in enumerate(pair)]
    lines += [prefix.format(0) + line for line in own[len(other) :]]
    lines += [timers({"fwd": 999.0}, rank=1)] * 5
    row = row_of(tmp_path, lines)
    assert (row["fwd_ms"], row["mem_after_forward_gib"]) == ("1256.0", "27.88")


def test_two_lines_in_one_are_told_apart(tmp_path: Path) -> None:
    lines = [timers({"fwd": 12.0}, rank=1) + timers({"fwd": 10.0, "step": 3.0}) for _ in range(4)]
    row = row_of(tmp_path, lines)
    assert (row["fwd_ms"], row["step_ms"]) == ("10.0", "3.0")


def test_damage_is_passed_over(tmp_path: Path) -> None:
    lines = whole_log()
    text = "\n".join(lines).encode()
    noise = b"\xff\xfe\x00 garbage \x80\n" + b"x" * 500_000 + b" | time (ms) | fwd: 1.0\n"
    cut = f"{STAMP}[logging.py:96:log_dist] [Rank 0] time (ms) | fwd: 1256.0 | bwd: 1".encode()
    path = tmp_path / "train.log"
    path.write_bytes(noise + text + b"\n" + noise + b"Downloading 10%\rDownloading 90%\r\n" + cut)
    (row,) = read_log(path)
    (tmp_path / "clean").mkdir()
    assert row == row_of(tmp_path / "clean", lines)


@pytest.mark.parametrize("filling", [" ", "  num_layers . ", "| fwd: ", "iteration ", "[Rank 0] ", "MA 1 GB ", "9"])
def test_long_lines_do_not_take_long(tmp_path: Path, filling: str) -> None:
    long = f"  num_layers .... 4{filling * (190_000 // len(filling))}x"
    began = time.monotonic()
    row = row_of(tmp_path, [long, *whole_log()])
    assert time.monotonic() - began < 2  # seconds, for what takes hundredths
    assert row["layers"] == "40"


def test_gzipped_and_cut_off(tmp_path: Path) -> None:
    whole = gzip.compress(("\n".join(whole_log()) + "\n").encode(), mtime=0)
    path = tmp_path / "train.log.gz"
    path.write_bytes(whole)
    (row,) = read_log(path)
    assert row["fwd_ms"] == "1256.0"
    path.write_bytes(whole[: len(whole) - 200])
    (row,) = read_log(path)
    assert row["layers"] == "40"


def test_microsteps_sum_to_iterations(tmp_path: Path) -> None:
    micro = timers({"fwd_microstep": 10.0, "bwd_microstep": 20.0, "step_microstep": 0.1})
    last = timers({"fwd_microstep": 10.0, "bwd_microstep": 26.0, "step_microstep": 50.0})
    lines = [*deepspeed_configuration(batch=12, steps=3), *[micro, micro, last] * 5]
    row = row_of(tmp_path, lines)
    assert (row["dp"], row["fwd_ms"], row["bwd_ms"], row["step_ms"]) == ("4", "30.0", "66.0", "50.2")
    assert row["iterations"] == "5"
    whole = [timers({"fwd": value}) for value in (31.0, 31.0, 31.5)]
    assert row_of(tmp_path, [*lines, *whole])["fwd_ms"] == "31.5"
    assert row_of(tmp_path, [micro, micro, last] * 5)["fwd_ms"] == ""  # how many belong together is not known


BATCHES = {"global_batch": "4", "micro_batch": "1", "dp": "4", "subgroup_size": "100000000"}
GROUPED = {"num_attention_heads": 32, "group_query_attention": True, "num_query_groups": 8}
JSON = [
    f"{STAMP}[config.py:978:print_user_config]   json = {{",
    '    "train_batch_size": 4, ',
    '    "train_micro_batch_size_per_gpu": 1, ',
    '    "gradient_accumulation_steps": 1, ',
    '    "zero_optimization": {',
    '        "sub_group_size": 1.000000e+08, ',
]


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (deepspeed_configuration(ZERO_AS_DICTIONARY), BATCHES),
        (JSON, BATCHES),
        (deepspeed_configuration("stage=3 offload_optimizer=None"), {"scheduler": "no_offload", "cpu_ratio": "1"}),
        (megatron_arguments(GROUPED), {"kv_heads": "8"}),
        (megatron_arguments(GROUPED | {"group_query_attention": False}), {"kv_heads": "32"}),
        (megatron_arguments({"num_attention_heads": 32, "num_key_value_heads": None}), {"kv_heads": "32"}),
        (megatron_arguments({"num_attention_heads": 32}), {"kv_heads": ""}),
        (megatron_arguments({"recompute_granularity": "full"}), {"checkpointing": "True"}),
        (megatron_arguments({"recompute_granularity": None}), {"checkpointing": "False"}),
    ],
)
def test_what_configurations_say(tmp_path: Path, configuration: list[str], expected: dict[str, str]) -> None:
    row = row_of(tmp_path, [*configuration, *iteration(1)])
    assert {column: row[column] for column in expected} == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1, 2, 3, 4, 5], "4.0"),  # means of 3, 4, 5
        ([10, 20, 30], "2.5"),  # the first is of iterations 1 to 10
        ([1001, 1002, 1003, 1004], "3.5"),  # resumed
        ([1], ""),
    ],
)
def test_megatrons_lines_alone(tmp_path: Path, counts: list[int], expected: str) -> None:
    lines = [
        f" [2024-03-05 10:11:12] iteration {count:5d}/ 2000 | elapsed time per iteration (ms): {index}.0 | loss: 1 |"
        for index, count in enumerate(counts, 1)
    ]
    row = row_of(tmp_path, lines)
    assert row["iteration_ms"] == expected
    assert "fwd_ms" in missing(row)


def test_memory_in_other_words(tmp_path: Path) -> None:
    lines = [
        "[Rank 0] (after 3 iterations) memory (MB) | allocated: 9216.0 | max allocated: 13000.1 | reserved: 1 |",
        f"{STAMP}[utils.py:803:see_memory_usage] Before backward pass",
        f"{STAMP}[utils.py:803:see_memory_usage] After initializing ZeRO optimizer",
        *memory(99.0, 99.0),
        "[stage3.py:2069:_initialize] [Begin] Initialize optimizer states 0 / 3 subgroups, num_elems: 104857600, "
        "swappable opt/param:False/False",
        "[Begin] Initialize optimizer states 1 / 3 subgroups, num_elems: 327357440, swappable opt/param:False/False",
        timers({"fwd": 1.0}),
    ]
    row = row_of(tmp_path, lines)
    assert (row["mem_after_step_gib"], row["mem_before_backward_gib"]) == ("9.00", "")
    assert (row["subgroups"], row["largest_subgroup"]) == ("3", "327357440")
    assert row["fwd_ms"] == ""  # one iteration is warm-up


def test_runs_appended_to_a_file_are_rows(tmp_path: Path) -> None:
    path = written(tmp_path, [*whole_log(), *whole_log(step=5000.0)])
    assert [row["step_ms"] for row in read_log(path)] == ["7920.3", "5000.0"]


@pytest.mark.parametrize(("limit", "what"), [("MAX_SIZE", "characters"), ("MAX_LINES", "lines with timings")])
def test_a_long_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, what: str) -> None:
    monkeypatch.setattr(log_file, limit, 100)
    with pytest.raises(InputError, match=f"found more than 100 {what}"):
        read_log(written(tmp_path, whole_log()))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "found no timings or memory reports, expected a training log of DeepSpeed"),
        (b"hello\n", "found no timings or memory reports"),
        (b"\x1f\x8bnot really", "found a damaged gzip file, expected a training log"),
        (("\n".join(megatron_arguments()) + "\n").encode(), "found no timings or memory reports"),
        (b"time (ms) | fwd: " + b"9" * 10_000 + b"\n", "found no timings"),
    ],
)
def test_what_is_no_log_is_one_message(tmp_path: Path, complaint: Complaint, content: bytes, problem: str) -> None:
    path = tmp_path / "some.log"
    path.write_bytes(content)
    assert complaint("logs", path, "--out", tmp_path / "runs.csv").startswith(f"{path}: {problem}")
