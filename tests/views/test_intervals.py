import pandas as pd

from offsim.views.intervals import from_their_beginning, lanes_of


def test_a_wait_is_shown_from_where_it_began_but_not_over_what_ran_before() -> None:
    rows = [
        (0, "host thread", "launch", 0.0, 0.0, 1.0),
        (0, "copy", "h2d", 0.5, 1.0, 3.0),
        (0, "host thread", "wait", 1.5, 3.0, 3.0),  # asked for at 1.5
        (1, "host thread", "launch", 0.0, 0.0, 4.0),
        (0, "host thread", "launch", 3.0, 3.0, 4.0),
        (0, "host thread", "wait", 3.5, 5.0, 5.0),  # asked for while the launch ran
        (0, "host thread", "wait", 5.0, 5.0, 5.0),  # over at once
        (2, "host thread", "wait", 1.0, 2.0, 2.5),  # nothing before it
    ]
    timeline = pd.DataFrame(rows, columns=["rank", "stream", "activity", "enqueued_s", "start_s", "end_s"])
    timeline.index = pd.Index([10, 11, 12, 13, 14, 15, 16, 17])
    shown = from_their_beginning(timeline)
    assert shown["start_s"].tolist() == [0.0, 1.0, 1.5, 0.0, 3.0, 4.0, 5.0, 1.0]
    pd.testing.assert_frame_equal(shown.drop(columns="start_s"), timeline.drop(columns="start_s"))
    assert timeline["start_s"][12] == 3.0


def test_intervals_that_overlap_have_different_lanes() -> None:
    assert lanes_of([0.0, 1.0, 2.0], [1.0, 2.0 + 1e-12, 3.0]) == [0, 0, 0]
    assert lanes_of([0.0, 0.5, 2.0], [2.0, 1.0, 3.0]) == [0, 1, 0]
    assert lanes_of([2.0, 0.0, 0.5], [3.0, 2.0, 1.0]) == [0, 0, 1]
    assert lanes_of([], []) == []
