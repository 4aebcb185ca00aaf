"""Whether a configuration lies inside what was measured on its hardware, and the held-out runs near it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from small_scenarios import profile, scenario

from offsim.calibration.runs.recipe_file import RecipeFile, read_recipe
from offsim.calibration.runs.refit import measured_by
from offsim.inputs.errors import InputError
from offsim.platform.held_out import FILE_NAME as HELD_OUT
from offsim.platform.held_out import read_held_out
from offsim.platform.measured import FILE_NAME, Configuration, measured_text, read_measured
from offsim.platform.profiles import available_profiles
from offsim.results.comparison import compare
from offsim.results.measured_range import measured_range, outside_of
from offsim.results.result import Result
from offsim.results.simulate import simulate
from offsim.views.facts import comparison_facts, facts_of

FOLDER = available_profiles()["jlse-4xh100"].parent
SCENARIO = "zero3_20b_4xh100"


@pytest.fixture(scope="module")
def recipes() -> list[RecipeFile]:
    return [read_recipe(path) for path in sorted((FOLDER / "recipes").glob("*.yaml"))]


def test_the_shipped_file_has_what_the_shipped_profiles_were_fitted_to(recipes: list[RecipeFile]) -> None:
    fitted = {name: runs for recipe in recipes for name, runs in measured_by(recipe).items()}
    assert read_measured(FOLDER / FILE_NAME) == fitted


def test_each_held_out_run_has_its_residuals(recipes: list[RecipeFile]) -> None:
    held_out = read_held_out(FOLDER / HELD_OUT)
    for recipe in recipes:
        for point in recipe.data:
            result = simulate(point.run.scenario)
            found = result.measured_range
            assert found.inside, str(found)
            same = [run for run in found.nearest if run.distance == 0]
            assert same or all(point not in judged for judged in recipe.groups.values())
            for run in same:
                assert point in recipe.groups[run.left_out]
                scores = held_out[result.run.profile.name][run.left_out]
                assert math.log1p(run.errors["sum"]) == pytest.approx(
                    min((-r for r in scores["sum"].residuals), key=lambda r: abs(r - math.log1p(run.errors["sum"])))
                )


NEVER = "never measured on this hardware"


@pytest.mark.parametrize(
    ("override", "dimension", "factor", "text"),
    [
        ("model.sequence=32768", "model.sequence", 16, "sequence 32,768 is 16 times the most measured, 2,048"),
        ("model.layers=10", "model.layers", 3.2, "layers 10 is 1/3.2 of the least measured, 32"),
        ("training.global_batch=16", "training.micro_steps", 4, "micro steps 4 is 4 times the most measured, 1"),
        ("training.data_parallel=2", "training.data_parallel", 2, "data parallel 2 is 1/2 of the least measured, 4"),
        ("scheduler.cpu_ratio=0.2", "share of optimizer in gpu", None, ""),
        ("model.flash_attention=true", "model.flash_attention", None, f"flash attention true was {NEVER}"),
        ("training.activation_checkpointing=false", "share of layers recomputed", None, "0 is below the least"),
        ("scheduler.overlap_comm=false", "scheduler.overlap_comm", None, f"overlap comm false was {NEVER}"),
    ],
)
def test_what_is_outside_and_by_how_much(override: str, dimension: str, factor: float | None, text: str) -> None:
    found = simulate(SCENARIO, [override]).measured_range
    assert not found.inside
    outside = {one.dimension: one for one in found.outside}
    assert dimension in outside
    if factor is not None:
        assert outside[dimension].factor == pytest.approx(factor)
    assert text in str(found)


def test_a_little_beyond_is_still_inside() -> None:
    assert simulate(SCENARIO, ["model.sequence=2240"]).measured_range.inside
    assert not simulate(SCENARIO, ["model.sequence=2304"]).measured_range.inside


def test_the_farther_out_the_farther_the_nearest_run() -> None:
    found = [simulate(SCENARIO, [f"model.sequence={2048 * times}"]).measured_range for times in (1, 2, 4, 8)]
    distances = [one.nearest[0].distance for one in found]
    assert distances == pytest.approx([math.log(times) for times in (1, 2, 4, 8)])
    assert {one.nearest[0].name for one in found} == {found[0].nearest[0].name}


def test_a_scheduler_that_was_never_measured() -> None:
    found = simulate(SCENARIO, ["scheduler.name=zenflow"]).measured_range
    assert str(found).endswith("scheduler zenflow was never measured on this hardware")
    assert [one.dimension for one in found.outside] == ["scheduler"]  # none of its options


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda: simulate("zero3_3b_rtx4090"), "no configuration was measured on workstation-rtx4090"),
        (lambda: simulate(scenario(), profile=profile()), "made-up was given in Python, not by its file"),
        (
            lambda: simulate(SCENARIO, ["hardware_changes.link.h2d_bytes_per_s=x2"]),
            "no runs were measured on this hardware, which hardware_changes make",
        ),
    ],
)
def test_where_nothing_was_measured(result: object, reason: str) -> None:
    assert callable(result)
    found = measured_range(result())
    assert not found.inside
    assert str(found) == reason
    assert found.notes == ()


def test_said_wherever_results_are_shown() -> None:
    inside, outside = simulate(SCENARIO), simulate(SCENARIO, ["model.sequence=4096"])
    assert facts_of(inside).set_up["measured"].startswith("inside the range of the 12 configurations")
    assert "predicted forward" in facts_of(inside).set_up["nearest"]
    facts = facts_of(outside)
    assert "sequence 4,096 is 2 times the most measured, 2,048" in facts.set_up["measured"]
    assert facts.notes == ("Outside what was measured on jlse-4xh100 in: sequence.",)
    assert json.loads(json.dumps(outside.to_dict(series=False)))["measured_range"]["inside"] is False
    said = comparison_facts(compare([SCENARIO, outside.scenario], labels=["one", "other"])).notes
    assert said == ("Outside the configurations measured on their hardware (`offsim run` says in what): other.",)


def _own(folder: Path, runs: list[Configuration], residuals: list[float]) -> Result:
    (folder / "own.yaml").write_text("name: own\nextends: jlse-4xh100\nvalidated: true\n")
    (folder / FILE_NAME).write_bytes(measured_text({"own": runs}))
    score = {"n": len(residuals), "median": 1.0, "p90": 1.0, "worst": 1.0, "residuals": residuals}
    (folder / HELD_OUT).write_text(json.dumps({"own": {"a": {"sum": score}}}))
    return simulate(SCENARIO, [f"hardware={folder / 'own.yaml'}"])


def test_runs_and_residuals_that_do_not_go_together(tmp_path: Path) -> None:
    run = Configuration(name="run", left_out="a", dimensions={"scheduler": "zero3_offload"})
    assert _own(tmp_path, [run], [0.1]).measured_range.nearest[0].errors == {"sum": pytest.approx(math.expm1(-0.1))}
    with pytest.raises(InputError, match="own: a: found 1 runs, expected as many"):
        _ = _own(tmp_path, [run], [0.1, 0.2]).measured_range


def test_dimensions_that_were_not_recorded_are_not_judged() -> None:
    run = Configuration(name="run", dimensions={"scheduler": "a", "parameters": 10})
    assert outside_of({"scheduler": "a", "parameters": 10, "new": 3}, [run]) == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"own": [{"name": 3}]}'])
def test_a_broken_file(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(InputError) as error:
        read_measured(tmp_path / FILE_NAME)
    assert str(error.value).startswith(f"{tmp_path / FILE_NAME}: ")
