import pandas as pd
import pytest
from matplotlib.colors import to_hex

from offsim.views.tornado import HIGH, LOW, plot_tornado, range_text
from tests.views.drawn import overlaps, texts

ROWS = [
    ("gpu.kernel_latency_s", "s", 1e-6, 2e-6, True, 1.99, 2.01),
    ("host.memory_bytes_per_s", "B/s", 1e11, 1.2e11, True, 2.2, 1.9),
    ("link.duplex_bytes_per_s", "B/s", 2e10, 3e10, False, 2.05, 2.0),
    ("host.cores", "1", 44.0, 52.0, False, 1.96, 1.97),
]


def ranges(*rows: tuple[str, str, float, float, bool, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["name", "unit", "low", "high", "known", "time_low_s", "time_high_s"])


def test_a_bar_from_the_time_now_to_each_end_the_farthest_on_top() -> None:
    figure = plot_tornado(ranges(*ROWS), 2.0)
    bars = [patch for patch in figure.axes[0].patches if patch.get_width() or patch.get_height()]
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [LOW, HIGH] * 4
    assert [bar.get_width() for bar in bars] == pytest.approx([0.2, -0.1, 0.05, 0.0, -0.04, -0.03, -0.01, 0.01])
    middles = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    assert middles[:4] == [0, 0, 1, 1]
    assert middles[4] < 2 < middles[5]  # both on one side: one above the other
    assert [bool(bar.get_hatch()) for bar in bars] == [False, False, True, True, True, True, False, False]


def test_numbers_at_the_ends() -> None:
    figure = plot_tornado(ranges(*ROWS[:2]), 2.0)
    assert texts(figure, "change") == ["+200 ms", "-100 ms", "-10.0 ms", "+10.0 ms"]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["value at its low end", "value at its high end"]


def test_the_interval_is_a_band_and_what_is_left_out_is_said() -> None:
    figure = plot_tornado(ranges(*ROWS), 2.0, half_s=0.3, most=2)
    axes = figure.axes[0]
    band = next(patch for patch in axes.patches if patch.get_gid() == "interval")
    assert (band.get_x(), band.get_width()) == (pytest.approx(-0.3), pytest.approx(0.6))
    assert axes.get_xlabel().endswith("2 more values change it by at most 40.0 ms")
    assert axes.get_xlim()[0] < -0.3 < 0.3 < axes.get_xlim()[1]


@pytest.mark.parametrize("half_s", [None, 0.01, 0.5])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_texts_do_not_overlap(count: int, half_s: float | None) -> None:
    assert overlaps(plot_tornado(ranges(*ROWS[:count]), 2.0, half_s=half_s, title="A tornado")) == []


def test_ranges_share_a_unit() -> None:
    assert range_text(2.4e11, 2.75e11, "B/s", True) == "240 to 275 GB/s"
    assert range_text(5.4e14, 6.2e14, "FLOP/s", True) == "540 to 620 TFLOP/s"
    assert range_text(90.0, 110.0, "1", False) == "90 to 110, ± 10 %"


def test_a_table_without_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="ranges table has no rows"):
        plot_tornado(ranges(*ROWS).iloc[:0], 2.0)
