from offsim.platform.profiles import available_profiles, load_profile
from offsim.validation.accuracy import accuracy_of


def test_validated_profiles_have_errors_as_long_as_they_are_the_shipped_ones():
    for name in available_profiles():
        profile = load_profile(name)
        found = accuracy_of(profile)
        assert (found is not None) == profile.validated
        if found is not None:
            assert 0 < found.median <= found.p90 < 0.5
            link = profile.link.model_copy(update={"h2d_bytes_per_s": 1e9})
            assert accuracy_of(profile.model_copy(update={"link": link})) is None
