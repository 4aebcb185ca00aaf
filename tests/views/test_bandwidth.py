import pandas as pd
import pytest

from offsim.api import Result
from offsim.results.utilization import capacities
from offsim.views.bandwidth import panels_of, plot_bandwidth
from tests.views.drawn import PHASES, overlaps, texts


def test_directions_share_a_panel_and_host_memory_has_its_own(dos: Result) -> None:
    figure = dos.plot_bandwidth()
    areas = {
        c.get_gid(): c.get_paths()[0].vertices[:, 1] for axes in figure.axes for c in axes.collections if c.get_gid()
    }
    rates = dos.bandwidth.groupby("resource")["bytes_per_s"].max()
    assert areas["H2D"].max() == pytest.approx(rates["H2D"])
    assert areas["D2H"].min() == pytest.approx(-rates["D2H"])
    assert areas["host memory"].min() == 0.0
    capacity = capacities(dos.run)
    lines = [[line.get_ydata()[0] for line in axes.lines if line.get_gid() == "capacity"] for axes in figure.axes]
    assert lines == [[capacity["H2D"], -capacity["D2H"]], [capacity["host memory"]], [capacity["GPU interconnect"]]]


def test_labels_do_not_overlap(dos: Result, baseline: Result) -> None:
    for result in (dos, baseline):
        assert overlaps(result.plot_bandwidth(title="Links")) == []


def test_means_are_over_the_time_of_the_phases() -> None:
    rows = [(0.0, "H2D", 10e9), (1.5, "H2D", 0.0), (2.0, "H2D", 20e9), (2.5, "H2D", 0.0), (2.0, "D2H", 5e9)]
    bandwidth = pd.DataFrame(rows, columns=["time_s", "resource", "bytes_per_s"])
    figure = plot_bandwidth(bandwidth, {"H2D": 20e9}, PHASES)
    # H2D: 10 GB/s for 0.5 s and 20 GB/s for 0.5 s of 2 s; D2H: 5 GB/s from 2 s to the end.
    assert texts(figure, "mean") == [
        "mean 7.50 GB/s = 38% of capacity, in use 50% of the time",
        "mean 2.50 GB/s, in use 50% of the time",
    ]


def test_panels_pair_the_directions_of_each_link() -> None:
    resources = ["host memory", "H2D 0", "D2H 0", "uplink D2H", "uplink H2D", "H2D 1"]
    assert panels_of(resources) == [("H2D 0", "D2H 0"), ("uplink H2D", "uplink D2H"), ("host memory",), ("H2D 1",)]


def test_a_link_that_is_never_used_is_drawn() -> None:
    bandwidth = pd.DataFrame({"time_s": [0.0, 0.0], "resource": ["H2D", "D2H"], "bytes_per_s": [0.0, 0.0]})
    figure = plot_bandwidth(bandwidth, {}, PHASES)
    assert texts(figure, "mean") == ["mean 0 B/s, in use 0% of the time"] * 2
