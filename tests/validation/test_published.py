"""Published figures: tables of them, and how predictions are scored by them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.results.simulate import simulate
from offsim.validation.published import COLUMNS, Scored, quantities, read_figures, score, shipped_figures

SCENARIO = "zero3_3b_rtx4090"
ROW = {"schedule": "zero3_offload", "quantity": "iteration_s", "scenario": SCENARIO, "measured": "1", "source": "a log"}


def table(tmp_path: Path, **cells: str) -> Path:
    row = ROW | {"band": "0.25"} | cells
    path = tmp_path / "figures.csv"
    written = ",".join(f'"{row.get(name, "")}"' for name in COLUMNS)
    path.write_text(f"{','.join(COLUMNS)}\n{written}\n", encoding="utf-8")
    return path


def test_shipped_rows_are_of_shipped_scenarios():
    figures = shipped_figures()
    assert {Path(figure.where.rpartition(":")[0]).name for figure in figures} >= {"zero.csv", "storage.csv"}
    assert {figure.band for figure in figures if figure.quantity != "fits"} <= {0.05, 0.1, 0.25}


def test_settings_choose_the_scheduler_and_change_values(tmp_path):
    settings = "scheduler=zero3_offload_async_grads; training.micro_batch=2; training.global_batch=2"
    (scored,) = score(read_figures(table(tmp_path, settings=settings, quantity="tokens_per_s")))
    overrides = ["scheduler.name=zero3_offload_async_grads", "training.micro_batch=2", "training.global_batch=2"]
    assert scored.predicted == pytest.approx(simulate(SCENARIO, overrides).tokens_per_s)


def test_a_speed_up_is_the_baseline_over_it_and_other_ratios_are_over_the_baseline(tmp_path):
    settings, baseline = "scheduler=zero3_offload_async_grads", "scheduler=zero3_offload"
    fast, slow = quantities(SCENARIO, settings), quantities(SCENARIO, baseline)
    cells = {"settings": settings, "baseline_settings": baseline}
    (scored,) = score(read_figures(table(tmp_path, quantity="speedup", **cells)))
    assert scored.predicted == pytest.approx(slow["iteration_s"] / fast["iteration_s"])
    (scored,) = score(read_figures(table(tmp_path, quantity="backward_s", **cells)))
    assert scored.predicted == pytest.approx(fast["backward_s"] / slow["backward_s"])


def test_bytes_are_those_that_the_schedule_moves():
    moved = quantities(SCENARIO, "scheduler=zero3_offload")
    parameters = simulate(SCENARIO).run.workload.parameters
    assert moved["h2d_bytes"] >= 2 * parameters * 0.99  # updated parameters return
    assert moved["storage_read_bytes"] == 0


def test_what_does_not_fit_has_no_times(tmp_path):
    too_large = "model.layers=2000"
    (fits,) = score(read_figures(table(tmp_path, quantity="fits", settings=too_large, measured="0")))
    (time,) = score(read_figures(table(tmp_path, settings=too_large)))
    assert (fits.predicted, fits.inside) == (0, True)
    assert (time.predicted, time.error, time.inside) == (None, None, False)


def test_the_band_is_around_the_range(tmp_path):
    (figure,) = read_figures(table(tmp_path, measured="10", low="8", high="12", band="0.10"))
    inside = [Scored(figure, value).inside for value in (7.1, 7.3, 13.1, 13.3)]
    assert inside == [False, True, True, False]
    assert Scored(figure, 11.0).error == pytest.approx(0.1)
    assert not Scored(replace(figure, low=10, high=10), 11.5).inside


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"quantity": "iterations_s"}, "unknown quantity 'iterations_s'; did you mean 'iteration_s'?"),
        ({"schedule": "zero3_ofload"}, "schedule: unknown scheduler 'zero3_ofload'; did you mean 'zero3_offload'?"),
        ({"scenario": "nowhere"}, "scenario: unknown scenario 'nowhere'"),
        ({"settings": "training.micro_bach=2"}, "settings: 'training.micro_bach=2': unknown key"),
        ({"settings": "scheduler=zero3_ofload"}, "did you mean 'zero3_offload'?"),
        ({"quantity": "speedup"}, "baseline_settings: found nothing"),
        ({"measured": "fast"}, "measured: found 'fast', expected a number"),
        ({"measured": "-1"}, "measured: found -1, expected a number above 0"),
        ({"measured": "2", "low": "3"}, "expected them in this order"),
        ({"band": "25"}, "band: found 25, expected a share from 0 to below 1"),
        ({"source": ""}, "source: found nothing"),
    ],
)
def test_a_wrong_cell_is_one_message_with_its_line(tmp_path, complaint, cells, message):
    path = table(tmp_path, **cells)
    error = complaint("validate", "--published", path)
    assert message in error
    assert error.startswith(f"{path}:2: ")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"schedule\n", ",".join(COLUMNS).encode()])
def test_what_is_no_table_is_one_message(tmp_path, complaint, content):
    path = tmp_path / "figures.csv"
    path.write_bytes(content)
    assert complaint("validate", "--published", path).startswith(str(path))


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys, complaint):
    document = tmp_path / "scored.json"
    assert main(["validate", "--published", str(table(tmp_path)), "--json", str(document)]) == 0
    assert "predictions are inside their bands" in capsys.readouterr().out
    (row,) = json.loads(document.read_bytes())["figures"]
    assert row["error"] == pytest.approx(row["predicted"] / row["measured"] - 1)
    complaint("validate", "--published", "--plot", "x.png")
