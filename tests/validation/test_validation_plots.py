from io import BytesIO

import pytest

from offsim.validation.plot import plot_scatter
from offsim.validation.plot_iteration import median_iteration, plot_iteration
from offsim.validation.score import SCORED, Comparison, comparisons
from offsim.validation.series import SeriesComparison, run_of
from offsim.views.figure import save_picture


def test_a_panel_per_phase_with_all_runs(validation, overlaps):
    compared = comparisons(validation)
    picture = plot_scatter(compared)
    assert [axes.get_title(loc="left") for axes in picture.axes] == list(SCORED)
    for axes in picture.axes:
        drawn = [line for line in axes.lines if line.get_gid()]
        assert sum(len(line.get_xdata()) for line in drawn) == 80
        assert axes.get_xlim() == axes.get_ylim()
        low, high = axes.get_xlim()
        for line in drawn:
            for values in (line.get_xdata(), line.get_ydata()):
                assert low < min(values)
                assert max(values) < high
    names = [text.get_text() for text in picture.legends[0].get_texts()]
    assert names[:3] == ["jlse-4xh100", "polaris-4xa100", "polaris-4xa100-numa-bound"]
    assert names[3:] == ["predicted = measured", "within 10 %"]
    assert overlaps(picture) == []


def test_one_value_is_enough_for_a_picture():
    picture = plot_scatter([Comparison(2, "x", "hw", "step", "ms", 100.0, 100.0)])
    assert len(picture.axes) == 1
    picture.savefig(BytesIO(), format="png")


@pytest.mark.parametrize("times", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_no_value_is_behind_the_panel_s_note(times):
    runs = [Comparison(2, "x", "hw", "step", "ms", measured, 100.0 * times) for measured in (60.0, 100.0, 150.0)]
    picture = plot_scatter(runs)
    picture.canvas.draw()
    (axes,) = picture.axes
    (note,) = [text for text in axes.texts if text.get_gid() == "note"]
    box = note.get_window_extent()
    points = axes.transData.transform([(run.measured / 1e3, run.predicted / 1e3) for run in runs])
    assert not any(box.contains(x, y) for x, y in points)


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="nothing to draw: no value was both measured and predicted"):
        plot_scatter([])


@pytest.fixture(scope="module")
def one(series) -> SeriesComparison:
    return next(one for one in series if one.series.name.endswith("ratio 1 deep_optimizer_states stride 2"))


def test_the_median_iteration_is_shown(one):
    lengths = sorted(iteration.time_s[-1] for iteration in one.series.iterations)
    assert median_iteration(one).time_s[-1] == lengths[1]


def test_measured_is_above_predicted_on_one_axis(one, shipped, tmp_path, overlaps):
    picture = plot_iteration(one, run_of(one.series, shipped.runs))
    assert len(picture.axes) == 4
    assert len({axes.get_xlim() for axes in picture.axes}) == 1
    assert picture.axes[0].get_ylim() == picture.axes[2].get_ylim()
    assert picture.axes[1].get_ylim() == picture.axes[3].get_ylim()
    for axes in (picture.axes[0], picture.axes[2]):
        labels = [text.get_text() for text in axes.texts if text.get_gid() == "phase"]
        assert labels[::2] == ["forward", "backward", "step"]
        assert {c.get_gid() for c in axes.collections} >= {"H2D", "D2H"}
    assert overlaps(picture) == []
    save_picture(picture, tmp_path / "one.png")
    save_picture(plot_iteration(one, run_of(one.series, shipped.runs)), tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
