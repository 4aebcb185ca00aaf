import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from offsim.api import Result
from offsim.results.units import format_memory, format_time
from offsim.views.memory import plot_memory
from tests.views.drawn import PHASES, overlaps, texts


def top_of(figure: Figure, panel: int, occupant: str) -> np.ndarray:
    """The highest point of an occupant's area at each of its corners."""
    area = next(c for c in figure.axes[panel].collections if c.get_gid() == occupant)
    return area.get_paths()[0].vertices[:, 1]


def small(*rows: tuple[float, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [(time, "GPU 0", occupant, held, used) for time, occupant, held, used in rows],
        columns=["time_s", "tier", "occupant", "bytes", "used_bytes"],
    )


GIB = 2.0**30


def test_a_panel_per_tier_with_capacity_and_peak(dos: Result) -> None:
    figure = dos.plot_memory()
    assert [axes.get_ylabel() for axes in figure.axes] == ["GPU 0 (GiB)", "host (GiB)"]
    gpu, host = dos.peaks
    assert texts(figure, "peak")[0].startswith(f"peak {format_memory(gpu.bytes)} at {format_time(gpu.time_s)}")
    assert texts(figure, "capacity") == [
        f"capacity {format_memory(gpu.capacity_bytes)} (beyond the axis)",
        f"capacity {format_memory(host.capacity_bytes)}",
    ]
    assert texts(figure, "phase")[::2] == ["forward", "backward", "update"]


def test_occupants_are_stacked_to_what_is_used(dos: Result) -> None:
    figure = dos.plot_memory()
    areas = [area.get_gid() for area in figure.axes[0].collections]
    assert max(top_of(figure, 0, name).max() for name in areas) == pytest.approx(dos.gpu_peak_bytes / GIB)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(entries) == sorted(dos.memory["occupant"].unique())


def test_labels_do_not_overlap(dos: Result, baseline: Result) -> None:
    assert overlaps(dos.plot_memory(title="Memory")) == []
    assert overlaps(plot_memory(baseline.memory, {"GPU 0": 22e9, "host": 370e9}, baseline.phases)) == []


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("instant", [1.0, 1.9, 2.1, 2.99])
def test_peak_and_capacity_are_labelled_apart_wherever_the_peak_is(share: float, instant: float) -> None:
    memory = small(
        (0.0, "parameters", GIB, GIB), (instant, "activations", 9 * GIB, 10 * GIB), (instant, "activations", 0, GIB)
    )
    figure = plot_memory(memory, {"GPU 0": 10 * GIB / share}, PHASES)
    assert overlaps(figure) == []
    assert texts(figure, "peak") == [f"peak 10.0 GiB at {instant:.2f} s ({share:.0%})"]


def test_what_was_held_before_counts_and_what_was_freed_before_does_not() -> None:
    memory = small(
        (0.0, "parameters", 2 * GIB, 2 * GIB),
        (0.5, "activations", 9 * GIB, 11 * GIB),
        (0.6, "activations", 0.0, 2 * GIB),
        (2.0, "activations", GIB, 3 * GIB),
    )
    figure = plot_memory(memory, {"GPU 0": 4 * GIB}, PHASES)
    assert texts(figure, "peak") == ["peak 3.00 GiB at 2.00 s (75%)"]
    assert top_of(figure, 0, "activations").max() == pytest.approx(3.0)
    assert figure.axes[0].get_xlim() == (1.0, 3.0)


def test_a_tier_without_capacity_and_a_small_one(dos: Result) -> None:
    figure = plot_memory(small((1.5, "parameters", 2.0**20, 2.0**20)), {}, PHASES)
    assert figure.axes[0].get_ylabel() == "GPU 0 (MiB)"
    assert texts(figure, "peak") == ["peak 1.00 MiB at 1.50 s"]
    assert texts(figure, "capacity") == []


def test_a_table_without_rows_is_an_error(dos: Result) -> None:
    with pytest.raises(ValueError, match="memory table has no rows"):
        plot_memory(dos.memory.iloc[:0], {}, dos.phases)


def test_what_happens_after_the_last_finished_phase_is_shown() -> None:
    memory = small((0.0, "parameters", GIB, GIB), (3.5, "activations", 2 * GIB, 3 * GIB))
    figure = plot_memory(memory, {"GPU 0": 4 * GIB}, PHASES)
    assert figure.axes[0].get_xlim() == (1.0, 3.5)
    assert texts(figure, "peak") == ["peak 3.00 GiB at 3.50 s (75%)"]
