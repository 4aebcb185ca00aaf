"""A page says first which schedule, how long, what limits it, how sure."""

from __future__ import annotations

import pytest

from offsim.api import Comparison, Result, simulate
from offsim.results.units import format_time
from offsim.views.html.headline import headline


@pytest.fixture(scope="module")
def results(dos: Result, baseline: Result, too_large: Result) -> dict[str, Result]:
    return {
        "slow": baseline,
        "fast": dos,
        "fastest": simulate("dos_20b_4xh100", ["training.micro_batch=1", "model.layers=20"]),
        "large": too_large,
    }


def said(results: dict[str, Result], *labels: str) -> str:
    return headline(Comparison([results[label] for label in labels], list(labels))).sentence


def how_sure(result: Result) -> str:
    return headline(Comparison([result], ["one"])).lines["how sure"]


def test_one_result_is_its_schedulers(results: dict[str, Result]) -> None:
    fast = results["fast"]
    alone = headline(Comparison([fast], ["fast"]))
    assert alone.sentence == f"deep_optimizer_states takes {format_time(fast.iteration_s)} an iteration"
    first, share = next(iter(fast.limited_by.items()))
    assert alone.lines["limited by"].startswith(f"{first} {100 * share:.1f} %")


def test_of_several_the_fastest_is_named_and_how_much_faster_than_the_first(results: dict[str, Result]) -> None:
    times = {label: format_time(result.iteration_s) for label, result in results.items() if result.fits}
    ratio = results["slow"].iteration_s / results["fast"].iteration_s
    two = f"fast takes {times['fast']} an iteration, {ratio:.2f} times as fast as slow ({times['slow']})"
    assert said(results, "slow", "fast") == said(results, "large", "slow", "fast") == two
    assert said(results, "fast", "slow") == f"fast takes {times['fast']} an iteration"
    assert said(results, "slow", "fast", "fastest").startswith("fastest, the fastest of 3, takes ")
    assert said(results, "large", "slow") == f"Only slow fits: {times['slow']} an iteration"
    equal = headline(Comparison([results["fast"], results["fast"]], ["a", "b"]))
    assert equal.sentence == f"a takes {times['fast']} an iteration"


def test_what_does_not_fit_says_so(results: dict[str, Result]) -> None:
    assert said(results, "large").startswith("zero3_offload does not fit: GPU 0 memory runs out")
    both = headline(Comparison([results["large"]] * 2, ["a", "b"]))
    assert both.sentence == "None of 2 scenarios fits"


def test_how_sure_a_time_is_comes_from_held_out_runs(results: dict[str, Result]) -> None:
    interval = results["fast"].interval
    assert interval is not None
    low, high = map(format_time, interval.bounds_s())
    assert how_sure(results["fast"]).startswith(f"{low} to {high} (92 %): 12 of 12 held-out runs")
    other = simulate("zero3_13b_gh200")
    assert how_sure(other) == f"no interval is known: {other.no_interval}"
