"""Accuracy that is held: errors on the shipped table, in percent, stay below these."""

import pytest

from offsim.platform.profiles import available_profiles, load_profile
from offsim.validation.accuracy import accuracy_of
from offsim.validation.ranking import rankings
from offsim.validation.score import comparisons, scores

PEAK = {"peak after backward": (5, 100)}
GOOD = {"forward": (3, 12), "backward": (2.5, 6), "step": (2, 4), "sum": (1.5, 4), **PEAK}
UNBOUND = {"forward": (4, 12), "backward": (5, 12), "step": (4, 9), "sum": (3, 9), **PEAK}
HIGHEST = {"jlse-4xh100": GOOD, "polaris-4xa100-numa-bound": GOOD, "polaris-4xa100": UNBOUND}
"""Hardware -> phase -> (median, 90th percentile)."""


@pytest.fixture(scope="module")
def found(validation):
    return scores(comparisons(validation))


def test_every_measured_run_is_predicted_to_fit(validation):
    assert [p.run.line for p in validation.predictions if not p.fits] == []


@pytest.mark.parametrize("hardware", HIGHEST)
@pytest.mark.parametrize("phase", GOOD)
def test_times_and_memory(found, hardware, phase):
    median, p90 = HIGHEST[hardware][phase]
    score = found[hardware][phase]
    assert (100 * score.median <= median, 100 * score.p90 <= p90) == (True, True), score


def test_following_predictions_costs_little(validation):
    ranked = rankings(validation.predictions)
    assert list(ranked) == ["scheduler", "stride"]
    for found in ranked.values():
        assert found
        assert sum(ranking.agrees for ranking in found) >= 0.9 * len(found)
        assert max(ranking.loss for ranking in found) < 0.03


def test_validated_profiles_have_errors_as_long_as_they_are_the_shipped_ones():
    for name in available_profiles():
        profile = load_profile(name)
        found = accuracy_of(profile)
        assert (found is not None) == profile.validated
        if found is not None:
            assert 0 < found.median <= found.p90 < 0.5
            link = profile.link.model_copy(update={"h2d_bytes_per_s": 1e9})
            assert accuracy_of(profile.model_copy(update={"link": link})) is None
