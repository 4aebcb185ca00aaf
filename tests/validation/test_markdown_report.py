"""The report in Markdown: `offsim validate --report`."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from offsim.api import simulate
from offsim.cli import main
from offsim.inputs import files
from offsim.validation import markdown_report
from offsim.validation.accounts import explanations, phase_accounts
from offsim.validation.folder import read_tables
from offsim.validation.markdown_report import make_report, worst_disagreement
from offsim.validation.predictions import validate_runs
from offsim.validation.run_table import MEASURED_PHASES, read_runs
from offsim.validation.side_by_side import plot_accounts
from tests.validation.conftest import TOO_BIG, assert_even_tables

FILES = {"scatter": "report-scatter.png", "timeline": "report-timeline.png"}
PNG = b"\x89PNG\r\n"
ASYNC = {"scheduler": "zero3_offload_async_grads"}
DOS = {"scheduler": "deep_optimizer_states", "update_stride": "2"}
TIMES = ("fwd_ms", "bwd_ms", "step_ms")


def report_of(path: Path) -> str:
    return make_report(validate_runs(read_runs(path)), FILES)[0]


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def shipped_report(validation):
    return make_report(validation, FILES)


def test_sections_and_pictures(shipped_report):
    text, pictures = shipped_report
    assert re.findall(r"^##? (.*)$", text, re.MULTILINE) == [
        "Predicted against measured: measured_runs.csv",
        "Errors",
        "Errors by scheduler",
        "Choosing by prediction",
        "The worst runs",
        "The worst disagreement, activity by activity",
    ]
    assert re.findall(r"!\[[^]]+\]\((.*)\)", text) == list(FILES.values())
    assert list(pictures) == list(FILES)
    assert all(picture.to_png().startswith(PNG) for picture in pictures.values())
    assert "Without a trace of the run" in text


def test_tables_are_even_and_lines_short(shipped_report):
    assert_even_tables(shipped_report[0])


def test_errors_are_also_by_scheduler(shipped_report):
    table = section(shipped_report[0], "Errors by scheduler")
    assert "| jlse-4xh100 | deep_optimizer_states | forward | 4 |" in table
    rows = [line.split(" | ") for line in table.split("\n") if line.startswith("|")][2:]
    assert sum(int(row[3]) for row in rows if row[2] == "step") == 80


def test_the_worst_run_has_every_phase_accounted_for(validation, shipped_report):
    found = worst_disagreement(validation)
    text = section(shipped_report[0], "The worst disagreement, activity by activity")
    assert found.worst.name in " ".join(text.split())
    for phase, account in zip(MEASURED_PHASES.values(), found.accounts, strict=True):
        assert f"\n### {phase}\n" in shipped_report[0]
        assert account.phase == phase
        assert sum(account.path.values()) == pytest.approx(account.predicted_s)
        assert sum(a.path_s for a in account.activities) == pytest.approx(account.predicted_s)


def test_activities_of_the_phases_add_up_to_the_timeline(make_table):
    run = read_runs(make_table({**DOS, "global_batch": "16"})).runs[0]
    result = simulate(run.scenario)
    accounts = phase_accounts(result.run, run.measured)
    timeline = result.timeline[result.timeline["start_s"] >= 0]
    for kind, rows in timeline[timeline["alone_s"] > 0].groupby("activity"):
        own = [a for account in accounts for a in account.activities if a.kind == kind]
        inside = rows[rows["end_s"] <= result.iteration_s]
        took = (inside["end_s"] - inside["start_s"]).sum()
        assert sum(a.alone_s + a.lost_s for a in own) >= took * (1 - 1e-9)
        assert sum(a.bytes for a in own) >= inside["bytes"].sum() * (1 - 1e-9)
        assert sum(a.count for a in own) >= len(inside)


def test_activities_stretched_by_what_explains_it_bring_about_what_was_measured(make_table):
    run = read_runs(make_table(DOS)).runs[0]
    predicted = simulate(run.scenario).durations
    wanted = {"fwd_ms": 1e3 * predicted["forward"], "bwd_ms": 1.2e3 * predicted["backward"]}
    wanted["step_ms"] = 0.9e3 * predicted["update"]
    accounts = phase_accounts(simulate(run.scenario).run, wanted)
    found = explanations(run.scenario, accounts)
    assert {times for (phase, _), times in found.items() if phase == "forward"} == {1.0}
    checked = 0
    for (phase, kind), times in found.items():
        if times is None:
            continue
        assert (times > 1) if phase == "backward" else (times < 1) if phase == "step" else times == 1
        simulated = simulate(run.scenario, stretch={kind: times}).durations
        column = {"forward": "fwd_ms", "backward": "bwd_ms", "step": "step_ms"}[phase]
        name = {"step": "update"}.get(phase, phase)
        assert 1e3 * simulated[name] == pytest.approx(wanted[column], rel=5e-3)
        checked += phase != "forward"
    assert checked >= 3


def test_a_phase_that_was_not_measured_is_said_to_be_none(make_table):
    text = report_of(make_table({"fwd_ms": ""}))
    assert "- Best scheduler: no measured runs differ in it alone.\n" in text
    assert re.search(r"### forward\n\nPredicted [0-9.]+ ms, not measured\.\n", text)
    assert "Alone would explain it:" in text or "No kind of activity explains it alone." in text


def test_without_measured_values_there_is_nothing_to_draw(make_table):
    text, pictures = make_report(validate_runs(read_runs(make_table(without=TIMES))), FILES)
    assert "Nothing to compare with: no measured values in the table." in text
    assert (pictures, "![" in text) == ({}, False)


def test_what_does_not_fit_is_named(make_table):
    text = report_of(make_table({}, TOO_BIG))
    assert "Predicted not to fit in memory, so without times:\n\n- polaris-4xa100 made-up tiny" in text


def test_cells_of_a_table_stay_cells_and_micro_steps_are_summed(make_table):
    text = report_of(make_table({"series": "a|b", "global_batch": "32"}))
    assert "a\\|b" in section(text, "The worst runs")
    assert "Forward and backward are summed over 4 micro-steps." in " ".join(text.split())


def test_measured_brackets_stand_above_the_timeline(make_table):
    run = read_runs(make_table(DOS)).runs[0]
    result = simulate(run.scenario)
    picture = plot_accounts(result, phase_accounts(result.run, run.measured), title="x")
    above, below = picture.axes
    assert below.get_xlim() == above.get_xlim()
    names = [text.get_text() for text in above.texts if text.get_gid() == "phase"]
    assert names == ["forward", "10.5 ms", "backward", "40.0 ms", "step", "60.0 ms"]
    assert above.get_position().y0 > below.get_position().y1
    assert above.get_xlim()[1] >= 0.1105
    with pytest.raises(ValueError, match="nothing to draw: no phase of the run was measured"):
        plot_accounts(result, phase_accounts(result.run, {}), title="x")


def test_the_command_writes_report_and_pictures_and_the_rest(make_table, tmp_path, capsys):
    make_table({}, ASYNC)
    out = tmp_path / "my reports"
    out.mkdir()
    plot, document = out / "plot.png", out / "result.json"
    arguments = ["validate", str(tmp_path / "runs.csv"), "--plot", str(plot), "--json", str(document)]
    assert main([*arguments, "--report", str(out / "a b.md")]) == 0
    assert capsys.readouterr().out.startswith("2 runs of runs.csv")
    assert sorted(os.listdir(out)) == ["a b-scatter.png", "a b-timeline.png", "a b.md", "plot.png", "result.json"]
    assert len(json.loads(document.read_bytes())["runs"]) == 2
    assert "](a%20b-timeline.png)" in (out / "a b.md").read_text()
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main([*arguments, "--report", str(out / "a b.md")]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def folder_of(make_table, folder: Path) -> Path:
    """Two tables of runs, one of them gzipped, one table of something else, and other files."""
    folder.mkdir()
    (folder / "training.csv").write_bytes(make_table({}, ASYNC).read_bytes())
    (folder / "more.csv.gz").write_bytes(gzip.compress(make_table({}, DOS).read_bytes()))
    (folder / "nodes.csv").write_text("node,gpus\nn1,4\n")
    (folder / "notes.txt").write_text("x")
    return folder


def test_a_folder_of_tables_is_one_table(make_table, tmp_path, capsys):
    folder = folder_of(make_table, tmp_path / "measured")
    assert main(["validate", str(folder), "--report", str(tmp_path / "report.md"), "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"left out {folder / 'nodes.csv'}: no table of runs, missing the column 'model'")
    runs = json.loads(captured.out)["runs"]
    assert [run["table"] for run in runs] == ["more.csv.gz"] * 2 + ["training.csv"] * 2
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Predicted against measured: measured\n\n4 runs, ")


def test_runs_of_several_tables_are_told_apart(make_table, tmp_path):
    table, left_out = read_tables(folder_of(make_table, tmp_path / "measured"))
    names = list(validate_runs(table).names.values())
    assert len(left_out) == 1
    assert len(set(names)) == 4
    assert [name.split(", ")[1:] for name in names] == [["more.csv.gz"], [], ["training.csv"], []]


def test_lines_in_names_are_those_of_the_runs_own_table(make_table, tmp_path):
    (tmp_path / "both").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "both" / name).write_bytes(make_table({}, {}).read_bytes())
    table, _ = read_tables(tmp_path / "both")
    names = validate_runs(table).names
    assert [name.split(", ", 1)[1] for name in names.values()] == [
        "a.csv, line 2", "a.csv, line 3", "b.csv, line 2", "b.csv, line 3",
    ]  # fmt: skip


def test_a_folder_with_one_table_is_that_table(make_table, tmp_path):
    path = make_table({}, ASYNC)
    table, left_out = read_tables(tmp_path)
    assert (table, left_out) == (read_runs(path), [])


@pytest.mark.parametrize(
    ("source", "report", "message"),
    [
        ("nowhere", "report.md", "nowhere: no such file"),
        ("empty", "report.md", "found a folder without CSV files, expected tables of runs in it"),
        ("others", "report.md", "found no table of runs among 1 CSV files, the first is"),
        ("broken", "report.md", "column 'layers': found 'x'"),
        ("runs.csv", "report.txt", "found the suffix '.txt', expected .md or .markdown"),
        ("runs.csv", "none/report.md", "found the missing folder"),
        ("runs.csv", "folder.md", "found a folder, expected a file"),
        ("runs.csv", "blocked.md", "scatter of --report"),
        ("runs.csv", "/dev/null", "found no plain file, expected one, with pictures written beside it"),
    ],
)
def test_errors(make_table, tmp_path, monkeypatch, complaint, source, report, message):
    monkeypatch.chdir(tmp_path)
    make_table({"layers": "x"}).rename(tmp_path / "x.csv")
    make_table()
    for name in ("empty", "others", "broken", "folder.md", "blocked-scatter.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "others" / "nodes.csv").write_text("node,gpus\nn1,4\n")
    (tmp_path / "x.csv").rename(tmp_path / "broken" / "x.csv")
    assert message in complaint("validate", source, "--report", report)


def test_a_picture_that_cannot_be_drawn_leaves_the_old_report(make_table, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("cannot draw")

    make_table()
    (tmp_path / "report.md").write_text("old")
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(markdown_report, "plot_accounts", fail)
    with pytest.raises(RuntimeError, match="cannot draw"):
        main(["validate", str(tmp_path / "runs.csv"), "--report", str(tmp_path / "report.md")])
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "report.md").read_text() == "old"


def test_a_full_disk_is_one_message_and_leaves_nothing(make_table, tmp_path, monkeypatch, capsys):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert main(["validate", str(make_table()), "--report", str(tmp_path / "report.md")]) == 2
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["runs.csv"]
