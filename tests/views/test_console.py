import pytest

from offsim.views.console import LONG, PLAIN, Style


def test_a_table_is_aligned_and_has_a_rule() -> None:
    rows = [["forward", 0.21, None], ["backward", 0.85, "PCIe"]]
    assert PLAIN.table(rows, ["phase", "s", "limited by"], "lrl").split("\n") == [
        "phase        s  limited by",
        "──────────────────────────",
        "forward   0.21",
        "backward  0.85  PCIe",
    ]


def test_the_first_column_is_left_and_others_right_if_not_said() -> None:
    assert PLAIN.table([["aaa", 1]], ["x", "yyy"]).split("\n")[-1] == "aaa    1"


def test_no_rows_is_a_header() -> None:
    assert PLAIN.table([], ["a", "bc"]).split("\n") == ["a  bc", "─────"]


def test_markup_is_text() -> None:
    assert PLAIN.table([["[bold]x[/bold] :smile:"]], ["[a]"]).split("\n")[::2] == ["[a]", "[bold]x[/bold] :smile:"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_fits_the_terminal(width: int) -> None:
    style = Style(width=width)
    words = " ".join(["word"] * 40)
    text = style.table([["x" * LONG, words, style.bar(1.0)]], ["name", "words", ""], "lll")
    assert max(map(len, text.splitlines())) == width
    assert "x" * LONG in text
    assert text.count("word") == 41
    assert "█" * 4 in text
    assert len(style.table([[words]], ["words"], wrap=False).splitlines()) == 3


@pytest.mark.parametrize(("share", "bar"), [(0.0, ""), (0.25, "█"), (0.53, "██"), (1.0, "████"), (7.0, "████")])
def test_bars_are_as_long_as_their_share(share: float, bar: str) -> None:
    assert PLAIN.table([["a", PLAIN.bar(share, 4)]], ["", ""], "ll").split("\n")[-1] == f"a  {bar}".rstrip()
