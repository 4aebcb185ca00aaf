"""`compare --all`: every registered schedule, with a result or a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.inputs.errors import InputError
from offsim.programs.schedule import LEGEND, UNCLIPPED
from offsim.results.simulate import simulate
from offsim.results.survey import survey
from offsim.scenario import load_scenario
from offsim.schedulers.registry import available_schedulers, find_scheduler
from offsim.views.survey_picture import BAR_IN, ROW_IN, plot_survey

SCENARIO = "zero3_3b_rtx4090"


@pytest.fixture(scope="module")
def surveyed():
    return survey(SCENARIO)


def test_every_schedule_has_a_result_or_a_reason(surveyed):
    assert sorted(entry.schedule for entry in surveyed.entries) == sorted(available_schedulers())
    assert len(surveyed.fitting) > 5
    assert all(entry.reason for entry in surveyed.entries if not entry.fits)
    times = [entry.result.iteration_s for entry in surveyed.fitting]
    assert times == sorted(times)
    assert surveyed.inapplicable


def test_a_schedule_of_another_stage_runs_in_that_stage(surveyed):
    moved = [entry for entry in surveyed.entries if any("ZeRO stage" in change for change in entry.changes)]
    assert moved
    for entry in moved:
        stage = entry.result.scenario.training.zero_stage
        assert stage in find_scheduler(entry.schedule).stages
        assert load_scenario(SCENARIO).training.zero_stage not in find_scheduler(entry.schedule).stages
        again = simulate(entry.result.scenario)
        assert (again.fits, again.gpu_peak_bytes) == (entry.fits, entry.result.gpu_peak_bytes)


def test_a_placement_that_a_schedule_has_no_tiers_for_is_left_out():
    scenario = load_scenario(SCENARIO, ["placement.optimizer=host", "placement.parameters=host"])
    entries = {entry.schedule: entry for entry in survey(scenario).entries}
    assert entries["no_offload"].changes == ("default parameters", "default optimizer")
    assert entries["no_offload"].result.scenario.placement.optimizer is None
    assert entries["zero3_offload"].changes == ()


def test_results_are_exact_stale_racing_or_approximate():
    def said(name, **options):
        cls = find_scheduler(name)
        return cls.exactness(cls.Options(**options))

    assert said("zero3_offload") == "exact"
    assert said("roundpipe") == "stale by 1 update"
    assert said("roundpipe", is_async=False) == "exact"
    assert said("deep_optimizer_states") == "race: late parameters up to 1 update old"
    assert said("l2l") == said("lohan") == said("autohete") == UNCLIPPED
    assert said("fsdp_offload") == said("llmq") == said("greedysnake", late=1) == "exact"
    assert said("smart_infinity", compression=0.02) == "approximate: compressed gradients"


def test_what_no_schedule_can_run_is_one_message():
    with pytest.raises(InputError, match="nowhere"):
        survey(load_scenario(SCENARIO, ["hardware_changes.link.nowhere=x2"]))


def test_the_picture_has_a_bar_as_long_as_each_time(surveyed):
    picture = plot_survey(surveyed)
    bars = [(bar.get_y(), bar.get_width()) for bar in picture.axes[0].patches]
    first = surveyed.fitting[0].result
    up = (ROW_IN / 2 - BAR_IN) / ROW_IN
    assert sum(width for y, width in bars if y == up) == pytest.approx(sum(first.durations.values()))
    texts = {text.get_text() for text in picture.texts}
    assert {entry.schedule for entry in surveyed.fitting} <= texts


def test_the_picture_shows_what_does_not_fit():
    found = survey(load_scenario(SCENARIO, ["hardware_changes.gpu.memory_bytes=2e9"]))
    assert not found.fitting
    texts = [text.get_text() for text in plot_survey(found).texts]
    assert sum(text.startswith("does not fit") for text in texts) == len(found.too_large) > 0


def test_compare_all_writes_text_json_and_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    plot, document = tmp_path / "all.png", tmp_path / "all.json"
    assert (
        main(
            ["compare", SCENARIO, "--all", "--price-per-gpu-hour", "0.4", "--plot", str(plot), "--json", str(document)]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert all(name in text.replace("\n", "") for name in ("no_offload", "do not apply"))
    assert f"{UNCLIPPED}: {LEGEND[UNCLIPPED]}" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert plot.stat().st_size > 20_000
    schedules = {row["schedule"]: row for row in json.loads(document.read_bytes())["schedules"]}
    assert schedules.keys() == set(available_schedulers())
    assert all(row["fits"] or row["reason"] for row in schedules.values())
    for figures in (row["figures"] for row in schedules.values() if row["fits"]):
        assert f"{figures['cost_per_1e9_tokens']:,.2f}" in text
        assert f"{100 * figures['mfu']:.1f} %" in text


def test_all_and_single_schedulers_exclude_each_other(capsys: pytest.CaptureFixture[str]):
    assert main(["compare", SCENARIO, "--all", "--scheduler", "no_offload"]) == 2
    assert "--all: found --scheduler as well" in capsys.readouterr().err
