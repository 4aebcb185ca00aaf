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


def test_bars_become_shorter_before_texts_wrap() -> None:
    for share, drawn in {1.0: "█" * 27, 0.5: "█" * 13 + "▌", 0.0: ""}.items():
        last = PLAIN.table([["long word " * 5 + ".", PLAIN.bar(share)]], ["", ""], "ll").splitlines()[-1]
        assert last == f"{'long word ' * 5}.  {drawn}".rstrip()


def test_wide_characters_and_line_breaks_stay_in_their_columns() -> None:
    text = PLAIN.table([["漢字", 1], ["a\nb", 2]], ["name", "n"])
    assert text.splitlines()[2:] == ["漢字  1", "a     2", "b"]


@pytest.mark.parametrize("columns", [3, 12, 40])
def test_a_table_that_cannot_fit_continues_below_with_its_rows_numbered(columns: int) -> None:
    rows = [[f"row{n}", *(f"{n}.{place:06}" for place in range(columns))] for n in range(3)]
    text = PLAIN.table(rows, ["name", *(f"column{place}" for place in range(columns))])
    assert max(map(len, text.splitlines())) <= 80
    for row in rows:
        assert all(text.count(cell) == 1 for cell in row)
    parts = text.split("\n\n")
    assert (len(parts) > 1) == (columns > 8)
    for part in parts if len(parts) > 1 else []:
        assert [line.split()[0] for line in part.splitlines()[2:]] == ["1", "2", "3"]


def test_columns_move_together_before_texts_wrap() -> None:
    row = ["two words", *["1234567"] * 8]
    for columns, gap in {8: 2, 9: 1}.items():
        assert PLAIN.table([row[:columns]], [""] * columns).splitlines()[-1] == (" " * gap).join(row[:columns])
