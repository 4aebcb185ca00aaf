"""Pictures of sweeps show the table's numbers, the best of what is not drawn, and where nothing fits."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

import offsim
from offsim.views.figure import Picture
from offsim.views.sweep_axes import shown
from offsim.views.sweeps import front_of, plot_front, plot_heatmap, plot_lines
from tests.study.small_sweeps import small_sweep


@pytest.fixture
def table() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for stride, ratio, size in product([2, 3, 4], [0.5, 1.0], [100, 200]):
        seconds = stride + ratio + size / 1000
        rows.append({"scheduler": "dos", "stride": stride, "ratio": ratio, "size": size, "iteration_s": seconds})
    rows.append({"scheduler": "none", "size": 100, "iteration_s": 3.0})
    frame = pd.DataFrame(rows)
    frame["fits"] = ~((frame["stride"] == 2) & (frame["ratio"] == 0.5))
    frame["tokens_per_s"] = 100 / frame["iteration_s"]
    frame["gpu_peak_bytes"] = (10 - frame["iteration_s"]) * 2**30
    frame.attrs["axes"] = ["stride", "ratio", "size"]
    return frame


def test_a_heat_map_has_the_best_of_each_place_and_hatches_what_does_not_fit(table: pd.DataFrame) -> None:
    picture = plot_heatmap(table, "stride", "ratio", title="a title")
    axes = picture.axes[0]
    cells = {(text.get_position()): text.get_text() for text in axes.texts}
    assert cells == {
        (1.5, 0.5): "3.60",
        (2.5, 0.5): "4.60",
        (0.5, 1.5): "3.10",
        (1.5, 1.5): "4.10",
        (2.5, 1.5): "5.10",
    }
    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    hatched = [patch.get_xy() for patch in patches if patch.get_hatch()]
    assert hatched == [(0, 0)]
    (best,) = (patch.get_xy() for patch in patches if patch.get_gid() == "best")
    assert best == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "3", "4"]
    assert [text.get_text() for text in picture.texts if text.get_gid() == "subtitle"] == [
        "iteration (s), the best over size"
    ]


def test_more_tokens_are_better(table: pd.DataFrame) -> None:
    axes = plot_heatmap(table, "stride", "ratio", "tokens_per_s").axes[0]
    (best,) = (patch for patch in axes.patches if patch.get_gid() == "best")
    assert isinstance(best, Rectangle)
    assert best.get_xy() == (0, 1)


def test_lines_have_the_tables_points_and_a_level_for_what_lacks_the_axis(table: pd.DataFrame) -> None:
    axes = plot_lines(table, "stride").axes[0]
    points, level = axes.lines
    assert points.get_gid() == "dos"
    assert np.allclose(points.get_xydata(), [[2, 3.1], [3, 3.6], [4, 4.6]])
    assert level.get_gid() == "none"
    assert set(np.asarray(level.get_ydata()).tolist()) == {3.0}


def test_a_line_under_another_shows_beside_it() -> None:
    seconds = {"under": [2.0, 3.0], "over": [2.0, 3.001], "apart": [1.0, 1.5]}
    rows = [{"scheduler": name, "link": x, "iteration_s": y} for name, ys in seconds.items() for x, y in enumerate(ys)]
    widths = {
        line.get_gid(): line.get_linewidth()
        for line in plot_lines(pd.DataFrame(rows).assign(fits=True), "link").axes[0].lines
    }
    drawn = list(widths)
    first, second = sorted(("under", "over"), key=drawn.index)
    assert widths[first] > widths[second] == widths["apart"]


def test_factors_are_placed_by_size_and_words_as_they_come() -> None:
    table = pd.DataFrame({"link": ["x4", "x1", "x2"], "scheduler": "a", "iteration_s": [1.0, 4.0, 2.0], "fits": True})
    (line,) = plot_lines(table, "link").axes[0].lines
    assert np.asarray(line.get_xydata()).tolist() == [[1, 4], [2, 2], [4, 1]]
    words = table.assign(link=["b", "c", "a"])
    (line,) = plot_lines(words, "link").axes[0].lines
    assert np.asarray(line.get_ydata()).tolist() == [1, 4, 2]


def test_the_front_is_drawn_through_what_nothing_beats(table: pd.DataFrame) -> None:
    axes = plot_front(table).axes[0]
    (front,) = (line for line in axes.lines if line.get_gid() == "front")
    expected = front_of(table[table["fits"]])
    assert np.asarray(front.get_ydata()).tolist() == expected["iteration_s"].tolist()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1))
def test_the_front_is_what_no_row_beats(points: list[tuple[int, int]]) -> None:
    table = pd.DataFrame(points, columns=["iteration_s", "gpu_peak_bytes"]).astype(float)
    found = set(front_of(table).itertuples(index=False, name=None))
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert found == {(float(a), float(b)) for a, b in set(points) - beaten}


@pytest.fixture(scope="module")
def swept() -> pd.DataFrame:
    """A real table, with axes that change together."""
    spec = small_sweep()
    link = "hardware_changes.link"
    spec["axes"]["scheduler.cpu_ratio"] = [0.5, 1]
    spec["axes"]["both ways"] = {"zip": {f"{link}.{way}_bytes_per_s": ["x1", "x2"] for way in ("h2d", "d2h")}}
    del spec["axes"][f"{link}.h2d_bytes_per_s"]
    return offsim.sweep(spec, jobs=1)


def texts(picture: Picture, gid: str) -> list[str]:
    return [text.get_text() for text in picture.texts if text.get_gid() == gid]


def test_a_real_sweep_is_drawn_by_short_names(swept: pd.DataFrame) -> None:
    now = swept[swept["hardware_changes.link.h2d_bytes_per_s"] == "x1"]
    picture = plot_heatmap(now, "update_stride", "cpu_ratio")
    assert picture.axes[0].get_xlabel() == "update_stride"
    assert texts(picture, "y label") == ["cpu_ratio"]
    assert texts(picture, "subtitle") == ["iteration (s)"]  # of the schedulers only one has strides
    drawn = {text.get_text() for text in picture.axes[0].texts}
    strided = now[now["scheduler.update_stride"].notna()]
    assert drawn == {f"{seconds:.2f}" for seconds in strided["iteration_s"]}


def test_axes_that_change_together_are_one_and_the_scheduler_is_no_axis_beside_itself(swept: pd.DataFrame) -> None:
    picture = plot_lines(swept, "link.h2d_bytes_per_s")
    assert picture.axes[0].get_xlabel() == "link.h2d_bytes_per_s, link.d2h_bytes_per_s"
    assert texts(picture, "subtitle") == ["iteration (s), the best over update_stride, cpu_ratio"]
    assert texts(plot_lines(swept, "update_stride"), "subtitle") == [
        "iteration (s), the best over cpu_ratio, link.h2d_bytes_per_s"
    ]


def test_what_varies_is_said_where_joining_tables_lost_the_axes(swept: pd.DataFrame) -> None:
    joined = pd.concat([swept[::2], swept[1::2].assign(other=1)])
    joined.attrs.clear()
    assert texts(plot_lines(joined, "update_stride"), "subtitle") == [
        "iteration (s), the best over cpu_ratio, link.h2d_bytes_per_s"
    ]


def test_places_that_are_not_in_the_table_are_empty_rather_than_hatched(table: pd.DataFrame) -> None:
    skipped = table[~((table["stride"] == 3) & (table["ratio"] == 1.0))]
    patches = [patch for patch in plot_heatmap(skipped, "stride", "ratio").axes[0].patches if patch.get_gid() != "best"]
    places = {patch.get_xy(): bool(patch.get_hatch()) for patch in patches if isinstance(patch, Rectangle)}
    assert (1, 1) not in places
    assert [place for place, hatched in places.items() if hatched] == [(0, 0)]


def test_a_scheduler_has_one_colour_in_all_pictures(swept: pd.DataFrame) -> None:
    def colours(picture: Picture) -> dict[str, Any]:
        return {str(line.get_gid()): line.get_color() for line in picture.axes[0].lines if line.get_gid() != "front"}

    assert colours(plot_front(swept[::-1])) == colours(plot_lines(swept, "cpu_ratio"))


@pytest.mark.parametrize("number", [1e8, 16384, 0.625, 3, 2.05e10])
def test_numbers_of_an_axis_are_not_rounded(number: float) -> None:
    assert float(shown(number)) == number


def test_what_cannot_be_drawn(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="expected one of iteration_s, forward_s"):
        plot_heatmap(table, "stride", "ratio", "seconds")
    with pytest.raises(ValueError, match="no column strid"):
        plot_lines(table, "strid")
    with pytest.raises(ValueError, match="no row of the sweep table has both stride and ratio"):
        plot_heatmap(table[table["scheduler"] == "none"], "stride", "ratio")
