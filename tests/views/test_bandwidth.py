from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from offsim.views.bandwidth import panels_of, plot_bandwidth

Texts = Callable[[Figure, str], list[str]]
Overlaps = Callable[[Figure], list[tuple[str, str]]]

PHASES = pd.DataFrame({"phase": ["update"], "start_s": [1.0], "end_s": [3.0], "duration_s": [2.0]})


def test_directions_share_a_panel_and_host_memory_has_its_own(dos: Any) -> None:
    figure = plot_bandwidth(dos.bandwidth, dos.link_capacity, dos.phases)
    assert len(figure.axes) == 2
    areas = {
        c.get_gid(): c.get_paths()[0].vertices[:, 1] for axes in figure.axes for c in axes.collections if c.get_gid()
    }
    assert areas["H2D 0"].max() == pytest.approx(55.2e9)
    assert areas["D2H 0"].min() == pytest.approx(-55.2e9)
    assert areas["host memory bandwidth 0"].min() == 0.0
    lines = [[line.get_ydata()[0] for line in axes.lines if line.get_gid() == "capacity"] for axes in figure.axes]
    assert lines == [[55.2e9, -55.2e9], [113e9]]


def test_labels_do_not_overlap(dos: Any, baseline: Any, overlaps: Overlaps) -> None:
    for tables in (dos, baseline):
        assert overlaps(plot_bandwidth(tables.bandwidth, tables.link_capacity, tables.phases, title="Links")) == []


def test_means_are_over_the_time_of_the_phases(texts: Texts) -> None:
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


def test_a_link_that_is_never_used_is_drawn(texts: Texts) -> None:
    bandwidth = pd.DataFrame({"time_s": [0.0, 0.0], "resource": ["H2D", "D2H"], "bytes_per_s": [0.0, 0.0]})
    figure = plot_bandwidth(bandwidth, {}, PHASES)
    assert texts(figure, "mean") == ["mean 0 B/s, in use 0% of the time"] * 2
