import pytest

from offsim.results import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1.3, "1.30 s"),
        (12.34, "12.3 s"),
        (123.4, "123 s"),
        (0.99951, "1.00 s"),
        (0.9994, "999 ms"),
        (0.0852, "85.2 ms"),
        (3.1e-6, "3.10 µs"),
        (5e-10, "0.50 ns"),
        (float("inf"), "inf s"),
        (float("nan"), "nan s"),
    ],
)
def test_format_time(seconds: float, text: str) -> None:
    assert units.format_time(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "half_s", "text"),
    [
        (2.2917, 0.0672, "2.29 ± 0.07 s"),
        (2.2917, 0.31, "2.3 ± 0.3 s"),
        (2.2917, 0.0021, "2.292 ± 0.002 s"),
        (0.2171, 0.0123, "217 ± 12 ms"),
        (3.1e-6, 4e-8, "3.10 ± 0.04 µs"),
        (2.2917, 0.0, "2.29 ± 0.00 s"),
    ],
)
def test_a_time_has_no_more_digits_than_are_known(seconds: float, half_s: float, text: str) -> None:
    assert units.format_time_interval(seconds, half_s) == text


def test_format_bytes_counts_in_tens_and_memory_in_twos() -> None:
    assert units.format_bytes(1.25e9) == "1.25 GB"
    assert units.format_bytes(999.6e6) == "1.00 GB"
    assert units.format_bytes(12) == "12 B"
    assert units.format_bytes(-2.5e9) == "-2.50 GB"
    assert units.format_rate(55.2e9) == "55.2 GB/s"
    assert units.format_memory(80 * 2**30) == "80.0 GiB"
    assert units.format_memory(1023.7 * 2**20) == "1.00 GiB"
    assert units.format_memory(0) == "0 B"
    assert units.memory_unit(2**30) == ("GiB", 2**30)
    assert units.memory_unit(2**30 - 1) == ("MiB", 2**20)


def test_percents_have_one_digit_below_100() -> None:
    assert [units.format_percent(x) for x in (0, 0.4129, 0.9994, 0.9996, 1.2)] == [
        "0.0 %",
        "41.3 %",
        "99.9 %",
        "100 %",
        "120 %",
    ]
