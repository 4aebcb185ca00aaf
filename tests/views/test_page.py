from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from made_up_iteration import Tables
from matplotlib.figure import Figure

from offsim.views.figure import Picture
from offsim.views.page import plot_page

Overlaps = Callable[[Figure], list[tuple[str, str]]]


def draw(tables: Tables, **options: Any) -> Picture:
    bandwidth = options.pop("bandwidth", tables.bandwidth)
    return plot_page(
        tables.timeline,
        tables.phases,
        bandwidth,
        tables.link_capacity,
        tables.memory,
        tables.capacities,
        **options,
    )


def page(tables: Tables, **options: Any) -> tuple[list[str], list[tuple[float, float]], list[str]]:
    """Labels, time limits and texts of the page."""
    picture = draw(tables, **options)
    texts = [text.get_text() for text in [*picture.texts, *(text for axes in picture.axes for text in axes.texts)]]
    return [axes.get_ylabel() for axes in picture.axes], [axes.get_xlim() for axes in picture.axes], texts


def test_all_panels_share_the_time_axis(dos: Tables) -> None:
    labels, limits, texts = page(dos, title="a title", subtitle="first\nsecond")
    assert len(set(limits)) == 1
    assert limits[0][0] == dos.phases["start_s"].min()
    assert [label for label in labels if label] == [f"{tier} (GiB)" for tier in dict.fromkeys(dos.memory["tier"])]
    assert "a title" in texts
    assert "first\nsecond" in texts
    assert any("capacity" in text for text in texts)
    assert any(text.startswith("peak") for text in texts)


def test_links_that_nothing_used_are_left_out(dos: Tables) -> None:
    idle = dos.bandwidth.assign(bytes_per_s=0.0)
    assert len(page(dos, bandwidth=idle)[0]) < len(page(dos)[0])


@pytest.mark.parametrize("name", ["dos", "baseline", "async_grads"])
def test_nothing_overlaps(request: pytest.FixtureRequest, overlaps: Overlaps, name: str) -> None:
    tables: Tables = request.getfixturevalue(name)
    picture = draw(tables, title="a title", subtitle="first\nsecond")
    assert overlaps(picture) == []
    above, below = (legend.get_window_extent() for legend in picture.legends)
    boxes = [axes.get_window_extent() for axes in picture.axes]
    assert boxes[0].y0 > above.y1
    assert above.y0 >= boxes[1].y1
    assert boxes[-1].y0 > below.y1


def test_an_unknown_rank(dos: Tables) -> None:
    with pytest.raises(ValueError, match="no rank 7"):
        draw(dos, rank=7)
