import csv
import json

import pytest

from offsim.validation.markdown_report import make_report
from offsim.validation.predictions import validate_runs
from offsim.validation.report import format_validation, signed_percent, to_json
from offsim.validation.run_table import MEASURED, SHIPPED_RUNS, read_runs
from tests.validation.conftest import TOO_BIG


def test_the_document_has_the_rows_as_given(validation):
    document = to_json(validation)
    assert list(document) == ["runs", "summary"]
    with SHIPPED_RUNS.open() as file:
        rows = list(csv.DictReader(file))
    for row, run in zip(rows, document["runs"], strict=True):
        measured, predicted = run.pop("measured"), run.pop("predicted")
        assert run.pop("fits") is True
        assert run == {column: cell for column, cell in row.items() if column not in MEASURED}
        assert measured == {column: float(row[column]) for column in MEASURED if row[column]}
        assert list(predicted) == list(MEASURED)
        assert all(value > 0 for value in predicted.values())


def test_the_summary(validation):
    document = to_json(validation)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    summary = document["summary"]
    assert summary["runs"] == 80
    assert summary["do_not_fit"] == []
    assert sorted(summary["errors"]) == ["jlse-4xh100", "polaris-4xa100", "polaris-4xa100-numa-bound"]
    step = summary["errors"]["jlse-4xh100"]["step"]
    assert list(step) == ["n", "median_percent", "p90_percent", "worst_percent", "bias_percent", "worst_run"]
    assert step["n"] == 12
    assert 0 <= step["median_percent"] <= step["p90_percent"] <= step["worst_percent"]
    assert len(summary["worst_runs"]) == 5
    for which in ("best_scheduler", "best_stride"):
        found = summary[which]
        assert found["series"] - found["agree"] == len(found["disagree"])
        assert found["pairs_in_order"] <= found["pairs"]


def test_blank_cells_and_other_columns(make_table):
    table = read_runs(make_table({"fwd_ms": "", "note": "kept", "update_stride": "7"}))
    (run,) = to_json(validate_runs(table))["runs"]
    assert run["measured"] == {"bwd_ms": 40.0, "step_ms": 60.0}
    assert list(run["predicted"]) == ["fwd_ms", "bwd_ms", "step_ms"]
    assert (run["note"], run["update_stride"], run["cpu_ratio"]) == ("kept", "7", "1")


def test_a_run_that_does_not_fit(make_table):
    validation = validate_runs(read_runs(make_table({}, TOO_BIG)))
    document = to_json(validation)
    run = document["runs"][1]
    assert (run["fits"], run["predicted"], run["measured"]["fwd_ms"]) == (False, {}, 10.5)
    assert run["verdict"]["tier"] == "GPU 0"
    assert run["verdict"]["occupants"]
    assert run["verdict"]["text"].startswith("does not fit: GPU 0 memory")
    assert document["summary"]["do_not_fit"] == [validation.names[3]]
    assert document["summary"]["errors"]["polaris-4xa100"]["forward"]["n"] == 1
    assert f"predicted not to fit in memory:\n  {validation.names[3]}" in format_validation(validation)


def test_a_table_of_configurations_only(make_table):
    columns = ("fwd_ms", "bwd_ms", "step_ms")
    validation = validate_runs(read_runs(make_table(without=columns)))
    (run,) = to_json(validation)["runs"]
    assert run["measured"] == {}
    assert list(run["predicted"]) == list(MEASURED)
    assert "nothing to compare with: no measured values in the table" in format_validation(validation)


def test_the_text(validation):
    text = format_validation(validation)
    lines = text.split("\n")
    assert lines[0] == "80 runs of measured_runs.csv, predicted from their configuration alone"
    assert lines[2].split() == ["hardware", "phase", "runs", "median", "p90", "worst", "bias"]
    assert sum(line.strip().startswith("peak after backward") for line in lines) == 3
    worst = lines.index("largest errors of a phase, 5 runs:")
    assert sum(line.endswith(" %") for line in lines[worst + 3 : lines.index("", worst)]) == 5
    assert any(line.startswith("best scheduler: predicted in ") for line in lines)
    assert any(line.startswith("best stride: predicted in ") for line in lines)
    assert not any(line.endswith(" ") for line in lines)


def test_the_text_says_where_a_wrong_choice_is_predicted(make_table):
    rows = [{"step_ms": "1000000"}, {"scheduler": "zero3_offload_async_grads", "step_ms": "2000000"}]
    validation = validate_runs(read_runs(make_table(*rows)))
    line = "\n  polaris-4xa100 made-up tiny dp4 tp1 ratio 1 global batch 8: zero3_offload is best, zero3_offload_async"
    assert f"{line}_grads is predicted, +100.0 %" in format_validation(validation)
    assert line in make_report(validation, {"scatter": "a", "timeline": "b"})[0]
    (wrong,) = to_json(validation)["summary"]["best_scheduler"]["disagree"]
    assert wrong["loss_percent"] == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize(
    ("fraction", "digits", "text"),
    [(0.012, 1, "+1.2 %"), (-0.0004, 1, "0.0 %"), (0.0, 0, "0 %"), (-0.2, 0, "-20 %"), (0.1, 1, "+10.0 %")],
)
def test_signed_percent(fraction, digits, text):
    assert signed_percent(fraction, digits) == text
