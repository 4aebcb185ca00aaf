"""What a calibration found, as a table and as a picture."""

import math

import pytest

from offsim.calibration.calibrate import calibrate
from offsim.calibration.plot_found import plot_found
from offsim.calibration.runs.plausible import value_of
from offsim.platform.profiles import load_profile
from tests.calibration.synthetic_measurements import harness_folder
from tests.calibration.synthetic_runs import BASE


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    harness = harness_folder(tmp_path_factory.mktemp("measured") / "harness")
    return calibrate([str(harness)], BASE, assignments=["host.memory_bytes=2e12"])


def test_the_table_has_what_was_found_beside_the_base(calibration):
    table = calibration.table
    assert list(table.index) == sorted(calibration.found)
    for name, row in table.iterrows():
        found = calibration.found[name]
        known = [None if math.isnan(value) else value for value in (row["found"], row["low"], row["high"])]
        assert (*known, row["source"]) == found[:4]
        base = value_of(load_profile(BASE), name)
        assert row["base"] == base or (base is None and math.isnan(row["base"]))
    assert table.loc["link.h2d_bytes_per_s", "unit"] == "B/s"


def test_the_picture_has_each_value_and_its_interval_as_multiples_of_the_base(calibration):
    table = calibration.table.dropna(subset=["base", "low"])  # values that were set have no interval to draw
    (axes,) = calibration.plot().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(table.index)
    base, *drawn = (line.get_xdata() for line in axes.lines)
    assert list(base) == [1.0, 1.0]
    for (_, row), interval, value in zip(table.iterrows(), drawn[::2], drawn[1::2], strict=True):
        assert list(interval) == pytest.approx([row["low"] / row["base"], row["high"] / row["base"]])
        assert list(value) == pytest.approx([row["found"] / row["base"]])
    low, high = axes.get_xlim()
    assert all(low < x < high for line in drawn for x in line)


def test_values_that_the_base_has_not_are_left_out_of_the_picture(calibration):
    table = calibration.table.dropna(subset=["base", "low"])
    table.loc["link.h2d_bytes_per_s", "base"] = math.nan
    (axes,) = plot_found(table, base=BASE).axes
    assert len(axes.get_yticklabels()) == len(table) - 1
    with pytest.raises(ValueError, match="the base has none of the values found"):
        plot_found(table.assign(base=math.nan), base=BASE)
