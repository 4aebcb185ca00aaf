from itertools import pairwise
from pathlib import Path

import pytest

from offsim.validation import page
from offsim.validation.page import COMPARISON, ITERATION, SCATTER, held_out, main
from offsim.validation.series import compare_series, read_series

DOCS = Path(__file__).parents[2] / "docs"

LEFT_OUT = {"jlse-4xh100": {"7B": {"forward": {"n": 3, "median": 1.234, "p90": 5.0}}}}


@pytest.fixture(scope="module")
def series(shipped):
    return compare_series(read_series(), shipped.runs)


def test_the_page_is_up_to_date(validation, series):
    made = page.page(validation, series, held_out())
    assert (DOCS / "validation.md").read_text(encoding="utf-8") == made, "run python -m offsim.validation.page"
    for name in (SCATTER, ITERATION):
        assert f"](images/{name})" in made
        assert (DOCS / "images" / name).stat().st_size > 10_000


def test_the_page_is_written_with_its_pictures(tmp_path):
    main([str(tmp_path)])
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted([COMPARISON, ITERATION, SCATTER])
    assert (tmp_path / "validation.md").read_text(encoding="utf-8").startswith("# Validation\n")


def test_models_left_out_are_shown_where_they_are_known(validation, series, tmp_path, monkeypatch):
    with_them = page.page(validation, series, LEFT_OUT)
    assert "| jlse-4xh100 | 7B | forward | 3 | 1.2 % | 5.0 % |" in with_them
    monkeypatch.setattr(page, "HELD_OUT", tmp_path / "none.json")
    without = page.page(validation, series, held_out())
    assert "left out" not in without.split("## Errors")[1]


def test_tables_are_even(validation, series):
    lines = page.page(validation, series, LEFT_OUT).split("\n")
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert above.count("|") == line.count("|")
    assert all(len(line) <= 120 or line.startswith("|") for line in lines)
