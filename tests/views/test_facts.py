"""Facts are enumerated from what a result has; nothing assumes two tiers or three phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from offsim.api import Comparison, Result
from offsim.results.records import Peak
from offsim.views.facts import comparison_facts, facts_of, joined
from offsim.views.html.page import page
from offsim.views.html.summary import comparison_html, result_html
from offsim.views.text import comparison_text, result_lines, result_text
from offsim.views.wording import peaks_by_tier, tiers_of_rank

GIB = 2.0**30
NVME = Peak("nvme", "storage", 600 * GIB, 1000 * GIB, 0.3, {"optimizer state": 600 * GIB})
PFS = Peak("pfs", "storage", 10 * GIB, 1000 * GIB, 0.0, {})


def changed(result: Result, **values: Any) -> Result:
    """The result with other values in place of those that it would work out."""
    copy = Result.of(result)
    vars(copy).update(values)
    return copy


@pytest.fixture(scope="module")
def strange(baseline: Result) -> Result:
    """With two tiers and a resource more, and with phases of its own."""
    columns = {name: [*cells, cells[0]] for name, cells in baseline.utilization_columns.items()}
    columns["resource"][-1] = "nvme"
    return changed(
        baseline,
        peaks=[*baseline.peaks, NVME, PFS],
        durations={"generate": 1.0, "flush": baseline.iteration_s - 1.0},
        limits_s={"generate": {"nvme reads": 1.0}, "flush": {"nvme": baseline.iteration_s - 1.0}},
        utilization_columns=columns,
    )


def texts(*results: Result) -> Sequence[str]:
    comparison = Comparison(results, [f"result {n}" for n in range(len(results))])
    one, all_of = facts_of(results[-1]), comparison_facts(comparison)
    return [
        result_text(one),
        "\n".join(result_lines(one)),
        result_html(one),
        comparison_text(all_of),
        comparison_html(all_of),
        page(comparison).split("<script")[0],
    ]


def test_tiers_phases_and_resources_appear_by_their_names(baseline: Result, strange: Result) -> None:
    run, lines, _, compared, compared_html, whole = texts(baseline, strange)
    for name in ("each GPU", "host memory", "nvme", "pfs"):
        assert name in run
        assert name in lines
    for text in (compared, compared_html, whole):
        assert all(word in text for word in ("generate", "flush", "forward", "nvme peak", "pfs peak"))
    assert "peak of nvme: 600 GiB of 1000 GiB (60.0 %), at 300 ms, in backward" in run
    assert "\nnvme " in run.split("how busy each resource is")[1]
    assert "nvme reads" in run
    assert max(map(len, f"{run}\n{compared}".splitlines())) <= 80


def test_a_fact_has_one_wording(baseline: Result) -> None:
    """The same words in text and notebook."""
    facts = facts_of(baseline)
    for words in [*(text for texts in facts.headline.values() for text in texts), facts.set_up["batch"]]:
        assert words in " ".join("\n".join(result_lines(facts)).split())
        assert words in " ".join(result_text(facts).split())


def test_equal_tiers_are_told_together_and_the_fullest_stands_for_unequal_ones(baseline: Result) -> None:
    gpu, host = baseline.peaks
    fuller = Peak("GPU 1", "gpu", gpu.bytes + GIB, gpu.capacity_bytes, gpu.time_s, gpu.occupants)
    unequal = changed(baseline, peaks=[gpu, fuller, host, NVME])
    names = {tier: peak.name for tier, peak in peaks_by_tier(unequal).items()}
    assert names == {"GPU": "GPU 1, the fullest", "host memory": "host memory", "nvme": "nvme"}
    assert [peak.name for peak in peaks_by_tier(baseline).values()] == ["each GPU", "host memory"]
    assert [peak.tier for peak in tiers_of_rank(unequal.peaks, 1)] == ["GPU 1", "host", "nvme"]
    assert unequal.gpu_peak_bytes == fuller.bytes
    assert unequal.host_peak_bytes == host.bytes


def test_what_does_not_fit_is_said_in_every_place(too_large: Result) -> None:
    facts = facts_of(too_large)
    assert facts.no_room is not None
    for text in texts(too_large):
        assert facts.no_room.line.removeprefix("does not fit") in " ".join(text.split())
        assert facts.no_room.asked in " ".join(text.split())


def test_joined_tables_keep_their_rows(baseline: Result) -> None:
    facts = comparison_facts(Comparison([baseline], ["one"]))
    table = joined(facts.times, facts.phases)
    assert table.headers == ("", *facts.times.headers[1:], *facts.phases.headers[1:])
    assert [cell.text for cell in table.rows[0]][:2] == ["one", facts.times.rows[0][1].text]
