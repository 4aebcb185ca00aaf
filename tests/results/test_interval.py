"""The conformal interval of a prediction: its coverage, and when there is one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from offsim.inputs.errors import InputError
from offsim.platform.held_out import FILE_NAME, HeldOut, held_out_of, read_held_out
from offsim.platform.measured import FILE_NAME as MEASURED
from offsim.platform.measured import Configuration, measured_text
from offsim.platform.profiles import available_profiles
from offsim.results.dimensions import dimensions
from offsim.results.interval import PredictionInterval, conformal_quantile, conformal_rank
from offsim.results.simulate import simulate
from offsim.results.verdict import DoesNotFit

SCENARIO = "zero3_20b_4xh100"
REPETITIONS = 4000


@pytest.mark.parametrize(("runs", "rank"), [(1, 1), (12, 12), (18, 18), (19, 19), (20, 20), (39, 38), (41, 40)])
def test_the_rank_of_the_residual_that_bounds_a_new_one(runs: int, rank: int) -> None:
    assert conformal_rank(runs) == rank


@pytest.mark.parametrize("runs", [1, 4, 12, 19, 41, 120])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "biased", "mixed"])
def test_a_new_run_lies_within_as_often_as_is_said_whatever_the_errors_are_like(kind: str, runs: int) -> None:
    draw = np.random.default_rng(runs)
    size = (REPETITIONS, runs + 1)
    residuals = {
        "normal": lambda: draw.normal(0, 0.05, size),
        "heavy tails": lambda: 0.02 * draw.standard_cauchy(size),
        "biased": lambda: 0.2 + draw.exponential(0.03, size),
        "mixed": lambda: draw.normal(0, np.where(draw.random(size) < 0.2, 0.3, 0.02)),
    }[kind]()
    inside = np.mean([abs(row[-1]) <= conformal_quantile(row[:-1].tolist()) for row in residuals])
    coverage = PredictionInterval({}, {}, runs, ()).coverage
    assert coverage == conformal_rank(runs) / (runs + 1)
    assert coverage >= 0.95 or runs < 19
    assert inside == pytest.approx(coverage, abs=4 * math.sqrt(coverage * (1 - coverage) / REPETITIONS))


def test_runs_that_share_an_error_promise_too_much() -> None:
    # What docs say: if each model errs in its own way, runs of two models say little about a third one.
    draw = np.random.default_rng(1)
    inside = []
    for _ in range(REPETITIONS):
        models = draw.normal(0, 0.1, 3)
        known = [model + error for model in models[:2] for error in draw.normal(0, 0.01, 20)]
        inside.append(abs(models[2] + draw.normal(0, 0.01)) <= conformal_quantile(known))
    assert PredictionInterval({}, {}, 40, ()).coverage > 0.95
    assert 0.55 < np.mean(inside) < 0.8


def test_shipped_residuals_cover_the_models_that_they_are_not_of() -> None:
    # What docs say: by the residuals of the other models of its hardware, each model's runs in turn.
    inside: dict[str, list[bool]] = {}
    for groups in read_held_out(available_profiles()["jlse-4xh100"].with_name(FILE_NAME)).values():
        for left_out, scores in groups.items():
            for phase, score in scores.items():
                others = [r for name, other in groups.items() if name != left_out for r in other[phase].residuals]
                inside.setdefault(phase, []).extend(abs(r) <= conformal_quantile(others) for r in score.residuals)
    assert {phase: (sum(within), len(within)) for phase, within in inside.items()} == {
        "forward": (63, 76),
        "backward": (67, 76),
        "update": (63, 76),
        "sum": (64, 76),
    }


def test_docs_have_the_intervals_of_shipped_profiles() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sensitivity.md").read_text(encoding="utf-8")
    for name in read_held_out(available_profiles()["jlse-4xh100"].with_name(FILE_NAME)):
        held_out = held_out_of(available_profiles()[name])
        assert held_out is not None
        runs = len(held_out.residuals["sum"])
        coverage = PredictionInterval({}, {}, runs, ()).coverage
        cells = [f"± {100 * math.expm1(conformal_quantile(values)):.1f} %" for values in held_out.residuals.values()]
        row = [f"`{name}`", f"{runs} of {len(held_out.groups)} models", f"{100 * coverage:.0f} %", *cells]
        assert f"| {' | '.join(row)} |" in page


def test_bounds_are_the_widest_residual_of_few_runs() -> None:
    path = available_profiles()["jlse-4xh100"]
    held_out = held_out_of(path)
    assert held_out is not None
    result = simulate(SCENARIO)
    interval = result.interval
    assert interval is not None
    assert result.no_interval == ""
    assert (interval.runs, interval.within, interval.groups) == (12, 12, ("13B", "20B", "7B"))
    assert interval.coverage == 12 / 13
    assert interval.spreads.keys() == {"forward", "backward", "update", "iteration"}
    for phase, residuals in held_out.residuals.items():
        name = "iteration" if phase == "sum" else phase
        widest = max(map(abs, residuals))
        time = result.iteration_s if phase == "sum" else result.durations[phase]
        assert interval.bounds_s(name) == pytest.approx((time * math.exp(-widest), time * math.exp(widest)))
    low, high = interval.bounds_s()
    assert interval.half_s() == pytest.approx((high - low) / 2)


def test_more_runs_leave_out_the_farthest() -> None:
    interval = simulate("zero3_7b_2_nodes").interval
    held_out = held_out_of(available_profiles()["polaris-4xa100"])
    assert interval is not None
    assert held_out is not None
    assert (interval.runs, interval.within) == (42, 41)
    assert interval.spreads["iteration"] == sorted(map(abs, held_out.residuals["sum"]))[40]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("zero3_3b_rtx4090", "no measured runs of workstation-rtx4090 were held out of its fit"),
        (
            [SCENARIO, "hardware_changes.link.h2d_bytes_per_s=x2"],
            "no runs were measured on this hardware, which hardware_changes make",
        ),
        (
            [SCENARIO, "model.sequence=4096"],
            "it holds inside the measured range, and this is outside the range of the 12 configurations measured on "
            "jlse-4xh100: sequence 4,096 is 2 times the most measured, 2,048",
        ),
    ],
)
def test_without_held_out_runs_there_is_none_and_why(source: str | list[str], reason: str) -> None:
    name, *overrides = [source] if isinstance(source, str) else source
    result = simulate(name, overrides)
    assert result.interval is None
    assert result.no_interval == reason


def test_a_scenario_that_does_not_fit_has_none() -> None:
    with pytest.raises(DoesNotFit):
        _ = simulate(SCENARIO, ["training.micro_batch=64", "training.global_batch=256"]).interval


def test_a_profile_of_ones_own_has_one_with_held_out_runs_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nextends: jlse-4xh100\nvalidated: true\n")
    assert simulate(SCENARIO, [f"hardware={path}"]).interval is None
    figures = {"n": 2, "median": 1.0, "p90": 1.0, "worst": 1.0}
    groups = {"a": {"sum": {**figures, "residuals": [0.1, -0.2]}}, "b": {"sum": {**figures, "residuals": [0.05]}}}
    (tmp_path / FILE_NAME).write_text(json.dumps({"own": groups}))
    assert held_out_of(path) == HeldOut(("a", "b"), {"sum": (0.1, -0.2, 0.05)})
    result = simulate(SCENARIO, [f"hardware={path}"])
    assert result.no_interval == "it holds inside the measured range, and no configuration was measured on own"
    asked = dimensions(result.scenario, result.run.profile)
    runs = [Configuration(name=f"run of {group}", left_out=group, dimensions=asked) for group in ("a", "a", "b")]
    (tmp_path / MEASURED).write_bytes(measured_text({"own": runs}))
    result = simulate(SCENARIO, [f"hardware={path}"])
    assert result.interval is not None
    assert result.interval.spreads == {"iteration": 0.2}
    assert result.interval.coverage == 0.75


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Invalid JSON: EOF while parsing an object at line 1 column 1"),
        ('{"own": {"a": {"sum": 3}}}', "own.a.sum: Input should be an object"),
    ],
)
def test_a_broken_file_of_held_out_runs(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(InputError) as error:
        held_out_of(tmp_path / "own.yaml")
    assert str(error.value) == f"{tmp_path / FILE_NAME}: {problem}"
