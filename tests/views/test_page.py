from __future__ import annotations

import pytest

from offsim.api import Result
from tests.views.drawn import overlaps


def test_all_panels_share_the_time_axis(dos: Result) -> None:
    picture = dos.plot_page(title="a title", subtitle="first\nsecond")
    assert len({axes.get_xlim() for axes in picture.axes}) == 1
    labels = [axes.get_ylabel() for axes in picture.axes if axes.get_ylabel()]
    assert labels == [f"{tier} (GiB)" for tier in dict.fromkeys(dos.memory["tier"])]
    texts = [text.get_text() for text in [*picture.texts, *(text for axes in picture.axes for text in axes.texts)]]
    assert {"a title", "first\nsecond"} <= set(texts)
    assert any("capacity" in text for text in texts)
    assert any(text.startswith("peak") for text in texts)


def test_links_that_nothing_used_are_left_out(dos: Result) -> None:
    idle = Result.of(dos)
    vars(idle)["bandwidth"] = dos.bandwidth.assign(bytes_per_s=0.0)
    assert len(idle.plot_page().axes) < len(dos.plot_page().axes)


@pytest.mark.parametrize("name", ["dos", "baseline"])
def test_nothing_overlaps(request: pytest.FixtureRequest, name: str) -> None:
    result: Result = request.getfixturevalue(name)
    picture = result.plot_page(title="a title", subtitle="first\nsecond")
    assert overlaps(picture) == []
    above, below = (legend.get_window_extent() for legend in picture.legends)
    boxes = [axes.get_window_extent() for axes in picture.axes]
    assert boxes[0].y0 > above.y1
    assert above.y0 >= boxes[1].y1
    assert boxes[-1].y0 > below.y1


def test_a_rank_that_is_not_simulated(dos: Result) -> None:
    with pytest.raises(ValueError, match="found no rank 7, expected one of 1 simulated from 0"):
        dos.plot_page(rank=7)
