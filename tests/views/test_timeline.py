from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from offsim.api import Comparison, Result
from offsim.results.units import format_time
from offsim.views.figure import save_picture, spread
from offsim.views.intervals import from_their_beginning
from offsim.views.style import KINDS, grouped_streams, lighter, rgb
from offsim.views.timeline import plot_comparison, plot_timeline
from tests.views.drawn import overlaps, texts


def bars(figure: Figure, panel: int = 0) -> dict[str, PolyCollection]:
    """The collections of bars by kind of activity."""
    return {
        str(c.get_gid()): c for c in figure.axes[panel].collections if isinstance(c, PolyCollection) and c.get_gid()
    }


def uncontended(result: Result) -> pd.DataFrame:
    timeline = result.timeline
    return timeline.assign(alone_s=timeline["end_s"] - timeline["start_s"])


def test_a_bar_for_each_activity_and_a_row_for_each_stream(dos: Result) -> None:
    figure = plot_timeline(dos.timeline, dos.phases)
    shown = from_their_beginning(dos.timeline).query("activity != 'wait' or end_s > start_s")
    counts = shown["activity"].value_counts().to_dict()
    drawn = {kind: len(found.get_paths()) for kind, found in bars(figure).items() if kind != "lost"}
    assert drawn == counts
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == list(grouped_streams(dos.timeline["stream"], dos.timeline["activity"]))
    assert labels[:3] == ["host thread", "background thread", "compute"]
    low, high = figure.axes[0].get_xlim()
    assert (low, high) == (dos.timeline["start_s"].min(), dos.timeline["end_s"].max())


def test_bars_lie_where_the_activities_are(dos: Result) -> None:
    figure = plot_timeline(dos.timeline, dos.phases)
    adam = dos.timeline[dos.timeline["activity"] == "cpu_adam"]
    corners = np.array([path.vertices[:4] for path in bars(figure)["cpu_adam"].get_paths()])
    np.testing.assert_allclose(corners[:, 0, 0], adam["start_s"])
    np.testing.assert_allclose(corners[:, 1, 0], adam["end_s"])
    assert set(corners[:, :, 1].mean(axis=1).round(6)) == {0.0}


def test_phases_are_named_with_their_durations(dos: Result) -> None:
    figure = plot_timeline(dos.timeline, dos.phases)
    named = [text for name, seconds in dos.durations.items() for text in (name, format_time(seconds))]
    assert [text for text in texts(figure, "phase") if text not in ("next", "iteration")] == named


def caption(figure: Figure) -> str:
    """The caption, which other texts of the figure are not."""
    return " ".join(text.get_text() for text in figure.texts if text.get_gid() == "caption").replace("\n", " ")


def edges(figure: Figure, gid: str) -> list[float]:
    """Where upright or level lines of a figure's first axes lie."""
    lines = [line for line in figure.axes[0].lines if line.get_gid() == gid]
    return [float((line.get_ydata() if gid == "group" else line.get_xdata())[0]) for line in lines]


def test_work_beyond_the_iteration_is_named(dos: Result) -> None:
    end = dos.phases["end_s"].max()
    figure = plot_timeline(dos.timeline, dos.phases)
    assert dos.timeline["end_s"].max() > end
    assert texts(figure, "phase")[-2:] == ["next", "iteration"]
    assert edges(figure, "iteration") == [end]
    # What the iteration before left begins before this one.
    early = dos.timeline.assign(iteration=[0] + [1] * (len(dos.timeline) - 1))
    early.loc[early.query("activity == 'compute'").index[0], "start_s"] = -0.5
    figure = plot_timeline(early, dos.phases)
    assert texts(figure, "phase")[:2] == ["previous", "iteration"]
    assert edges(figure, "iteration") == [0.0, end]
    assert "left over from the previous iteration" in caption(figure)
    measured = dos.timeline.drop(columns="iteration")
    assert "iteration" not in texts(plot_timeline(measured, dos.phases), "phase")
    inside = dos.timeline[dos.timeline["end_s"] <= end]
    assert "iteration" not in texts(plot_timeline(inside, dos.phases), "phase")
    compared = plot_comparison([("late", dos.timeline, dos.phases)])
    assert caption(compared).endswith("Right of the black line: work that runs into the next iteration.")


def test_what_is_drawn_is_explained(dos: Result, baseline: Result) -> None:
    said = caption(plot_timeline(dos.timeline, dos.phases))
    assert said.startswith("Every second sub-group or layer of a stream is lighter. Numbers on bars are sub-groups.")
    assert "time lost to others" in said
    layers = uncontended(baseline).assign(subgroup=-1)
    assert caption(plot_timeline(layers, baseline.phases)) == "Every second layer of a stream is lighter."
    assert caption(plot_timeline(layers.assign(layer=-1), baseline.phases)) == ""


def test_lines_part_groups_of_streams(dos: Result) -> None:
    figure = plot_timeline(dos.timeline, dos.phases)
    groups = list(grouped_streams(dos.timeline["stream"], dos.timeline["activity"]).values())
    assert edges(figure, "group") == [i + 0.5 for i in range(len(groups) - 1) if groups[i] != groups[i + 1]]


def test_a_stream_that_only_waits_has_no_row(dos: Result) -> None:
    waits = dos.timeline[dos.timeline["activity"] == "wait"].assign(stream="bookkeeping")
    figure = plot_timeline(pd.concat([dos.timeline, waits], ignore_index=True), dos.phases)
    assert "bookkeeping" not in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_subgroups_alternate_in_shade_also_where_a_stream_has_every_second_one(dos: Result) -> None:
    figure = plot_timeline(dos.timeline, dos.phases)
    colours = bars(figure)["cpu_adam"].get_facecolors()[:, :3]
    dark, light = rgb(KINDS["cpu_adam"].colour), lighter(KINDS["cpu_adam"].colour)
    np.testing.assert_allclose(colours[0::2], np.tile(dark, (8, 1)))
    np.testing.assert_allclose(colours[1::2], np.tile(light, (8, 1)))


def test_subgroups_are_numbered_where_the_number_fits(dos: Result) -> None:
    whole = plot_timeline(dos.timeline, dos.phases)
    assert {"0", "2", "4"} <= set(texts(whole, "sub-group"))
    window = tuple(dos.timeline.query("name == 'CPU Adam 4'")[["start_s", "end_s"]].iloc[0])
    part = plot_timeline(dos.timeline, dos.phases, window_s=window)
    # CPU Adam, fetches and flushes.
    assert {"3", "4", "5"} <= set(texts(part, "sub-group"))
    assert part.axes[0].get_xlim() == window
    narrow = plot_timeline(dos.timeline, dos.phases, width_in=2.5)
    assert texts(narrow, "sub-group") == []


def test_what_was_slowed_is_underlined_for_the_time_it_lost(dos: Result) -> None:
    figure = plot_timeline(dos.timeline, dos.phases)
    slowed = dos.timeline.query("activity != 'wait' and end_s - start_s > 1.1 * alone_s > 0")
    lines = np.array([path.vertices[:4, 0] for path in bars(figure)["lost"].get_paths()])
    assert len(lines) == len(slowed) > 30
    np.testing.assert_allclose(lines[:, 1] - lines[:, 0], slowed["end_s"] - slowed["start_s"] - slowed["alone_s"])


def test_nothing_is_underlined_without_contention(baseline: Result) -> None:
    figure = plot_timeline(uncontended(baseline), baseline.phases)
    assert len(bars(figure)["lost"].get_paths()) == 0
    assert "lost to contention" not in [t.get_text() for t in figure.legends[0].get_texts()]


def test_the_legend_has_the_kinds_that_occur_and_lies_below_the_axes(baseline: Result) -> None:
    figure = plot_timeline(uncontended(baseline), baseline.phases)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == [KINDS[kind].label for kind in KINDS if kind in set(baseline.timeline["activity"])]
    figure.canvas.draw()
    below = figure.axes[0].xaxis.label.get_window_extent().y0
    assert figure.legends[0].get_window_extent().y1 <= below


def test_labels_do_not_overlap(dos: Result, baseline: Result) -> None:
    assert overlaps(plot_timeline(dos.timeline, dos.phases, title="Deep Optimizer States")) == []
    assert overlaps(plot_timeline(dos.timeline, dos.phases, window_s=(1.2, 1.6))) == []
    assert overlaps(Comparison([baseline, dos, dos], ["a", "b", "c"]).plot()) == []


def test_an_unknown_kind_and_an_unknown_stream_are_drawn(dos: Result) -> None:
    odd = dos.timeline.assign(activity=dos.timeline["activity"].replace("cpu_adam", "quantum_adam"))
    odd["stream"] = odd["stream"].replace("copy momentum", "tape")
    figure = plot_timeline(odd, dos.phases)
    assert len(bars(figure)["quantum_adam"].get_paths()) == 16
    assert "tape" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "quantum adam" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_only_the_rank_asked_for_is_drawn(dos: Result) -> None:
    second = uncontended(dos).query("activity == 'compute'").assign(rank=1).head(3)
    both = pd.concat([dos.timeline, second], ignore_index=True)
    figure = plot_timeline(both, dos.phases, rank=1)
    assert sum(len(found.get_paths()) for found in bars(figure).values()) == 3
    with pytest.raises(ValueError, match="no rank 7; it has 0, 1"):
        plot_timeline(both, dos.phases, rank=7)


def test_errors_name_what_is_missing(dos: Result) -> None:
    with pytest.raises(ValueError, match="timeline table has no column alone_s"):
        plot_timeline(dos.timeline.drop(columns="alone_s"), dos.phases)
    with pytest.raises(ValueError, match="phases table has no rows"):
        plot_timeline(dos.timeline, dos.phases.iloc[:0])
    with pytest.raises(ValueError, match="does nothing from 50 to 60 s"):
        plot_timeline(dos.timeline, dos.phases, window_s=(50, 60))
    with pytest.raises(ValueError, match="nothing to compare"):
        plot_comparison([])


def test_comparison_has_one_time_axis_and_speedups_over_the_first(dos: Result, baseline: Result) -> None:
    later = dos.timeline.copy()
    for column in ("enqueued_s", "start_s", "end_s"):
        later[column] += 7.0
    phases = dos.phases.assign(start_s=dos.phases["start_s"] + 7.0, end_s=dos.phases["end_s"] + 7.0)
    figure = plot_comparison([("ZeRO-3", baseline.timeline, baseline.phases), ("DOS", later, phases)])
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    slow, fast = baseline.phases["end_s"].max(), dos.phases["end_s"].max()
    assert texts(figure, "iteration time") == [f"{slow:.2f} s", f"{fast:.2f} s\n{slow / fast:.2f}×"]  # noqa: RUF001
    assert {t.get_text() for t in figure.texts if t.get_gid() != "caption"} == {"ZeRO-3", "DOS"}
    # Panels begin with their own iteration, whenever that was.
    begin = dos.timeline.query("activity == 'compute'")["start_s"].iloc[0]
    np.testing.assert_allclose(bars(figure, 1)["compute"].get_paths()[0].vertices[0, 0], begin)
    # Only the last panel has the numbers of the time axis.
    assert second.get_xlabel().startswith("time")
    assert first.get_xlabel() == ""


def test_phases_at_the_same_time_have_lanes_of_their_own(dos: Result) -> None:
    delayed = dos.phases.copy()
    delayed.loc[2, ["start_s", "end_s"]] = [0.0, 2.0]
    figure = plot_timeline(dos.timeline, delayed)
    assert overlaps(figure) == []
    assert figure.get_size_inches()[1] > plot_timeline(dos.timeline, dos.phases).get_size_inches()[1]


def test_spread_moves_labels_apart_and_keeps_them_inside() -> None:
    places = spread([0.1, 0.2, 0.9, 5.0, 9.9], [1.0] * 5, 10.0, 0.1)
    assert places == pytest.approx([0.5, 1.6, 2.7, 5.0, 9.5])
    assert spread([9.8, 9.9], [1.0, 1.0], 10.0, 0.1) == pytest.approx([8.4, 9.5])


def test_of_many_short_phases_only_those_that_fit_are_named(dos: Result) -> None:
    edges = np.linspace(0.0, 2.0, 101)
    phases = pd.DataFrame({"phase": "forward", "start_s": edges[:-1], "end_s": edges[1:], "duration_s": 0.02})
    phases.loc[100] = ["update", 2.0, 3.2, 1.2]
    figure = plot_timeline(dos.timeline, phases)
    assert texts(figure, "phase") == ["update", "1.20 s"]


def test_png_has_the_asked_size_and_no_text_chunks(dos: Result, tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    save_picture(plot_timeline(dos.timeline, dos.phases), path)
    data = path.read_bytes()
    assert int.from_bytes(data[16:20], "big") == 7 * 200
    assert b"tEXt" not in data


def test_pictures_have_three_formats(dos: Result, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as \.png, \.pdf or \.svg"):
        save_picture(plot_timeline(dos.timeline, dos.phases), tmp_path / "out.bmp")
