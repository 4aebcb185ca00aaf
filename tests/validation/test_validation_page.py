from pathlib import Path

from offsim.validation.accuracy import held_out
from offsim.validation.folder import shipped_runs
from offsim.validation.page import COMPARISON, ITERATION, SCATTER, main, page, with_accuracy
from offsim.validation.predictions import validate_runs
from offsim.validation.published import score, shipped_figures
from offsim.validation.ranking import Ranking
from tests.validation.conftest import assert_even_tables

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_up_to_date(series):
    made = page(validate_runs(shipped_runs()), series, held_out(), score(shipped_figures()))
    assert (DOCS / "validation.md").read_text(encoding="utf-8") == made, "run python -m offsim.validation.page"
    assert_even_tables(made)


def test_the_page_is_written_with_its_pictures(tmp_path):
    main([str(tmp_path / "docs")])
    written = (tmp_path / "docs" / "validation.md").read_text(encoding="utf-8")
    for name in (SCATTER, ITERATION):
        assert f"](images/{name})" in written
    for name in (SCATTER, ITERATION, COMPARISON):
        assert (tmp_path / "docs" / "images" / name).stat().st_size > 10_000
        assert (DOCS / "images" / name).exists()


def test_models_left_out_are_shown_where_they_are_known(validation, series):
    phases = ("forward", "backward", "update", "sum")
    left_out = {"jlse-4xh100": {"7B": {phase: {"n": 3, "median": 1.234, "p90": 5.0} for phase in phases}}}
    assert f"| jlse-4xh100 | 7B | 3 |{' 1.2 / 5.0 |' * 4}\n" in page(validation, series, left_out, [])
    assert "| left out |" not in page(validation, series, {}, [])


def test_wrong_choices_are_named(validation, series, monkeypatch):
    wrong = Ranking("some series", {"a": 1.0, "b": 1.1}, {"a": 2.0, "b": 1.0})
    monkeypatch.setattr("offsim.validation.page.rankings", lambda predictions: {"scheduler": [wrong]})
    assert "some series: a is best, b is predicted, +10.0 %." in page(validation, series, {}, [])


def test_a_readme_without_marks_stays_as_it_is(validation):
    assert with_accuracy("# offsim\n", validation, {}, []) == "# offsim\n"
