import io

import pytest

from offsim.views.tables import can_encode, format_table, percent_bar


def test_a_table_is_aligned_and_has_a_rule() -> None:
    text = format_table(
        [["forward", 0.21, None], ["backward", 0.85, "PCIe"]], ["phase", "s", "limited by"], "lrl", indent=2
    )
    assert text.split("\n") == [
        "  phase        s  limited by",
        "  ────────  ────  ──────────",
        "  forward   0.21",
        "  backward  0.85  PCIe",
    ]


def test_without_unicode_a_table_is_ascii() -> None:
    assert format_table([[1, 2]], ["a", "b"], unicode=False).isascii()


def test_the_first_column_is_left_and_others_right_if_not_said() -> None:
    assert format_table([["aaa", 1]], ["x", "yyy"]).split("\n")[-1] == "aaa    1"
    assert format_table([["a"]], ["xxx"], "c").split("\n")[-1] == " a"


def test_no_rows_is_a_header() -> None:
    assert format_table([], ["a", "bc"]).split("\n") == ["a  bc", "─  ──"]


def test_errors_name_the_value() -> None:
    with pytest.raises(ValueError, match=r"align\('lx'\) must have one of l, r, c for each of 2 columns"):
        format_table([], ["a", "b"], "lx")
    with pytest.raises(ValueError, match="a row has 1 cells, the table 2 columns"):
        format_table([["a"]], ["a", "b"])
    with pytest.raises(ValueError, match=r"fraction\(=-0.1\) must be >= 0"):
        percent_bar(-0.1)
    with pytest.raises(ValueError, match=r"fraction\(=nan\)"):
        percent_bar(float("nan"))


@pytest.mark.parametrize(
    ("fraction", "bar"), [(0, "    "), (0.25, "█   "), (0.5 + 1 / 32, "██▏ "), (0.99, "████"), (1, "████"), (7, "████")]
)
def test_bars_have_eighths_of_a_character(fraction: float, bar: str) -> None:
    assert percent_bar(fraction, 4) == bar


def test_bars_in_ascii() -> None:
    assert percent_bar(0.5, 4, unicode=False) == "##--"
    assert percent_bar(2.0, 4, unicode=False) == "####"


def test_an_encoding_decides_on_unicode() -> None:
    assert can_encode(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert not can_encode(io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert not can_encode(io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert not can_encode(io.StringIO())
