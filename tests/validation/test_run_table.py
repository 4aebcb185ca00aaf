import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from offsim.inputs.errors import InputError
from offsim.programs.transformer import Workload
from offsim.schedulers import scenario_scheduler
from offsim.validation import run_table
from offsim.validation.run_table import REQUIRED, RunTable, read_rows, read_runs

DOS = {"scheduler": "deep_optimizer_states", "update_stride": "3"}


def problem_of(path: Path) -> str:
    """The error that reading gives, with the file's name instead of its path."""
    with pytest.raises(InputError) as caught:
        read_runs(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), path.name)


def test_a_row_is_a_scenario(make_table):
    run = read_runs(make_table({"scheduler": "zero3_offload", "cpu_ratio": "0.75"})).runs[0]
    scenario = run.scenario
    assert run.line == 2
    assert scenario.hardware == "polaris-4xa100"
    assert scenario.model.model_dump() == {
        "layers": 2, "hidden": 512, "ffn_hidden": 1024, "heads": 8, "kv_heads": 4, "vocab": 1024, "sequence": 128,
        "swiglu": True, "fused_swiglu": False, "tied_embeddings": False,
        "flash_attention": False, "softmax_fp32": False, "dropout": False,
    }  # fmt: skip
    assert scenario.training.model_dump() == {
        "micro_batch": 2, "global_batch": 8, "data_parallel": 4, "tensor_parallel": 1, "activation_checkpointing": True,
        "zero_stage": 3, "subgroup_size": 1_000_000, "reduce_bucket_size": None, "loss_chunks": 1,
    }  # fmt: skip
    assert scenario.scheduler.options == {"cpu_ratio": 0.75}
    assert run.measured == {"fwd_ms": 10.5, "bwd_ms": 40.0, "step_ms": 60.0}


@pytest.mark.parametrize(
    ("build", "transfers"), [("A", "one_stream"), ("B", "three_streams"), ("C", "three_streams"), ("a", "one_stream")]
)
def test_the_build_of_deep_optimizer_states_says_how_it_transfers(make_table, build, transfers):
    run = read_runs(make_table(DOS | {"dos_build": build})).runs[0]
    assert run.scenario.scheduler.options == {"cpu_ratio": 1, "update_stride": 3, "transfers": transfers}


def test_without_a_build_deep_optimizer_states_is_the_released_one(make_table):
    _, options = scenario_scheduler(read_runs(make_table(DOS | {"update_stride": "3.0"})).runs[0].scenario)
    assert options.model_dump() == {"cpu_ratio": 1.0, "update_stride": 3, "transfers": "three_streams"}


def test_what_does_not_concern_a_scheduler_is_left_out(make_table):
    rows = [{"update_stride": "5", "dos_build": "A"}, {"scheduler": "no_offload", "cpu_ratio": ""}]
    runs = read_runs(make_table(*rows)).runs
    assert [run.scenario.scheduler.options for run in runs] == [{"cpu_ratio": 1}, {}]


def test_optional_columns_may_be_missing(make_table):
    path = make_table(without=("series", "update_stride", "dos_build", "fwd_ms", "bwd_ms", "step_ms"))
    run = read_runs(path).runs[0]
    assert run.measured == {}
    assert run.cell("series") == ""


def test_numbers_and_flags_are_read_as_spreadsheets_and_libraries_write_them(make_table):
    row = {"subgroup_size": "1e6", "dp": "4.0", "swiglu": "FALSE", "untied": "0", "checkpointing": "1"}
    scenario = read_runs(make_table({**row, "hidden": " 512 "})).runs[0].scenario
    assert (scenario.training.subgroup_size, scenario.training.data_parallel, scenario.model.hidden) == (10**6, 4, 512)
    assert not scenario.model.swiglu
    assert scenario.model.tied_embeddings
    assert scenario.training.activation_checkpointing


def test_unknown_columns_are_kept_as_they_are(make_table):
    found = read_runs(make_table({"note": "x, y ", "fwd_ms": ""}))
    assert found.columns[-1] == "note"
    assert found.runs[0].cells["note"] == "x, y "
    assert found.runs[0].measured == {"bwd_ms": 40.0, "step_ms": 60.0}  # a blank cell is not scored


def test_a_table_may_be_gzipped_and_begin_with_a_byte_order_mark(make_table, tmp_path):
    text = make_table({}, {"dp": "2"}).read_bytes()
    zipped = tmp_path / "runs.csv.gz"
    zipped.write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b",,\r\n\r\n"))
    assert [run.scenario.training.data_parallel for run in read_runs(zipped).runs] == [4, 2]


@pytest.mark.parametrize("column", REQUIRED)
def test_a_missing_column_is_named(make_table, column):
    assert problem_of(make_table(without=(column,))) == f"runs.csv:1: missing the column '{column}'"


def test_a_misspelt_column_is_found(make_table):
    path = make_table({"microbatch": "2"}, without=("micro_batch",))
    assert problem_of(path) == "runs.csv:1: missing the column 'micro_batch'; the nearest found is 'microbatch'"


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ({"layers": "two"}, "column 'layers': found 'two', expected a whole number"),
        ({"layers": "2.5"}, "column 'layers': found '2.5', expected a whole number"),
        ({"layers": ""}, "column 'layers': found nothing, expected a number"),
        ({"layers": "0"}, "column 'layers': found '0', expected at least 1"),
        ({"hardware": " "}, "column 'hardware': found nothing, expected a name"),
        ({"swiglu": "maybe"}, "column 'swiglu': found 'maybe', expected true or false"),
        ({"swiglu": ""}, "column 'swiglu': found nothing, expected true or false"),
        ({"heads": "7"}, "column 'heads': found '7', expected a divisor of column 'hidden' (512)"),
        ({"tp": "3"}, "column 'tp': found '3', expected a divisor of column 'heads' (8)"),
        ({"global_batch": "9"}, "column 'global_batch': found '9', expected a multiple of micro_batch x data_par"),
        ({"cpu_ratio": "1.5"}, "column 'cpu_ratio': found 1.5, expected at most 1"),
        ({"cpu_ratio": "all"}, "column 'cpu_ratio': found 'all', expected a number"),
        ({"cpu_ratio": "nan"}, "column 'cpu_ratio': found nan, expected a finite number"),
        ({"cpu_ratio": ""}, "column 'cpu_ratio': found nothing, expected a number (zero3_offload needs it)"),
        ({"hardware": "polaris-4xa10"}, "column 'hardware': unknown hardware profile 'polaris-4xa10'; did you mean"),
        ({"hardware": "./mine.yaml"}, "column 'hardware': no hardware profile at "),
        ({"scheduler": "zero3_ofload"}, "column 'scheduler': unknown scheduler 'zero3_ofload'; did you mean 'zero3_o"),
        (DOS | {"update_stride": ""}, "column 'update_stride': found nothing, expected a number (deep_optimizer_st"),
        (DOS | {"update_stride": "1"}, "column 'update_stride': found 1, expected at least 2"),
        (DOS | {"dos_build": "D"}, "column 'dos_build': found 'D', expected A, B, C or an empty cell"),
        ({"fwd_ms": "fast"}, "column 'fwd_ms': found 'fast', expected a number above 0, or an empty cell"),
        ({"bwd_ms": "-1"}, "column 'bwd_ms': found '-1', expected a number above 0, or an empty cell"),
        ({"step_ms": "nan"}, "column 'step_ms': found 'nan', expected a number above 0, or an empty cell"),
        ({"step_ms": "1e999"}, "column 'step_ms': found '1e999', expected a number above 0, or an empty cell"),
        ({"swiglu": "x" * 99}, f"column 'swiglu': found '{'x' * 37}...', expected true or false"),
    ],
)
def test_a_bad_cell_is_named_with_its_line_and_column(make_table, cells, problem):
    assert problem_of(make_table({}, {}, cells)).startswith(f"runs.csv:4: {problem}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", ": found an empty file, expected a CSV file with the columns' names in line 1"),
        (b" \n\n", ": found an empty file, expected a CSV file with the columns' names in line 1"),
        (b"\x89PNG\r\n\x1a\n", ":1: found byte 0x89, expected UTF-8 text of columns separated by commas"),
        (b"hardware\nPAR1\x00", ":2: found byte 0x00, expected UTF-8 text of columns separated by commas"),
        (b"\x1f\x8bnot gzip", ": found a damaged gzip file, expected a CSV file"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-10], ": found a damaged gzip file, expected a CSV file"),
        (b"hardware;model;layers\n", ":1: found columns separated by semicolons, expected commas"),
        (b"hardware\tmodel\tlayers\n", ":1: found columns separated by tabs, expected commas"),
        (b"a,b,a\n", ":1: found the column 'a' twice, expected different names"),
        (b"fits,model\n", ":1: found a column 'fits', which is a name of the results; expected another one"),
        (b'hardware,"model\n', ":1: not valid CSV: unexpected end of data"),
        (",".join(REQUIRED).encode() + b"\n", ": found no rows below the columns' names, expected one per run"),
        (",".join(REQUIRED).encode() + b"\n\n1,2\n", f":3: found 2 cells, expected {len(REQUIRED)}, one for each"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, problem):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    assert problem_of(path).startswith(f"runs.csv{problem}")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert problem_of(tmp_path / "none.csv") == "none.csv: no such file"
    assert problem_of(tmp_path).endswith(": found a folder, expected a CSV file")
    assert problem_of(Path("a\0b")) == "a\0b: cannot be read: embedded null byte"


def test_size_is_bounded_also_of_what_a_small_file_unpacks_to(tmp_path, monkeypatch):
    monkeypatch.setattr(run_table, "MAX_BYTES", 100)
    path = tmp_path / "runs.csv"
    path.write_bytes(b"x" * 101)
    assert problem_of(path) == "runs.csv: found more than 100 bytes, expected a table of runs"
    path.write_bytes(gzip.compress(b"x" * 10**6, mtime=0))
    assert problem_of(path) == "runs.csv: found more than 100 bytes, expected a table of runs"


def test_lines_are_counted_also_behind_cells_of_several_lines(make_table):
    path = make_table({"note": "one\ntwo"}, {"layers": "x"})
    assert problem_of(path) == "runs.csv:4: column 'layers': found 'x', expected a whole number"


def test_a_profile_is_looked_up_beside_the_table(make_table, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nextends: polaris-4xa100\nvalidated: false\n")
    assert read_runs(make_table({"hardware": "./mine.yaml"})).runs[0].scenario.folder == tmp_path


def test_what_is_wrong_in_a_profile_is_said_of_its_own_file(make_table, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nextends: polaris-4xa100\nvalidated: 3\n")
    with pytest.raises(InputError, match=r"mine\.yaml:3: validated: found 3, expected true or false"):
        read_runs(make_table({"hardware": "./mine.yaml"}))


def test_the_shipped_table_is_what_the_workload_says(shipped: RunTable):
    assert len(shipped.runs) == 80
    for run in shipped.runs:
        workload = Workload(run.scenario.model, run.scenario.training)
        assert workload.parameters == int(run.cell("params_per_tp_rank"))
        assert len(workload.subgroups) == int(run.cell("subgroups"))
        assert max(s.elements for s in workload.subgroups) == int(run.cell("largest_subgroup"))


def test_plain_rows(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n\n3,\n")
    assert list(read_rows(path)) == [{"a": "1", "b": "2"}, {"a": "3", "b": ""}]


def test_reading_a_table_loads_no_heavy_library():
    heavy = "('numpy', 'pandas', 'matplotlib')"
    code = f"import sys, offsim.validation.run_table; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
