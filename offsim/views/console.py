"""Text for terminals, pipes and files: tables, by rich where texts wrap, and bars."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

WIDTH = 80
"""Of prose, and of tables where nothing says how wide they may be."""
BAR = 36
"""At most as many characters has a bar."""
LONG = 40
"""Characters of a cell beyond which its column may wrap."""
BAR_AT_LEAST = 4
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Bar(NamedTuple):
    """A cell that is drawn as long as this share (0 to 1) of its width, or of the room that a table has for it."""

    share: float
    width: int

    def drawn(self, room: int) -> str:
        """As text."""
        width = min(self.width, room)
        full, rest = divmod(int(8 * width * self.share), 8)
        return f"{'█' * full}{_EIGHTHS[rest] if rest else ''}".ljust(width)


Cell = str | Bar


@dataclass(frozen=True)
class Style:
    """How text may be set: bold and colours, how wide tables may be."""

    ansi: bool = False
    width: int = WIDTH

    def heading(self, text: str) -> str:
        """Bold where there are colours."""
        return f"\x1b[1m{text}\x1b[0m" if self.ansi else text

    def alarm(self, text: str) -> str:
        """Bold and red where there are colours."""
        return f"\x1b[1;31m{text}\x1b[0m" if self.ansi else text

    def bar(self, share: float, width: int = BAR) -> Bar:
        """A bar that is as long as this share (0 to 1) of `width`, or of the room that a table has for it."""
        return Bar(min(max(share, 0.0), 1.0), width)

    def table(
        self,
        rows: Iterable[Sequence[object]],
        headers: Sequence[str],
        align: str | None = None,
    ) -> str:
        """A table with a rule under its headers.

        `align` has "l" or "r" for each column; without it the first is set left and the others right. None is an empty
        cell, a cell may be a bar. Where the table would be wider than the terminal, bars become shorter, columns move
        together, long texts wrap; columns that still have no room follow as a table of their own, with the rows
        numbered.
        """
        cells: list[list[Cell]] = [
            [cell if isinstance(cell, Bar) else "" if cell is None else str(cell) for cell in row] for row in rows
        ]
        sides = align or "l" + "r" * (len(headers) - 1)
        bars = any(not isinstance(cell, str) for row in cells for cell in row)
        columns = [
            _Column(header, side == "l", [row[place] for row in cells], bars)
            for place, (header, side) in enumerate(zip(headers, sides, strict=True))
        ]
        for most, gap in product((True, False), (2, 1)):
            if _width(columns, gap, most) <= self.width:
                return self._printed(columns, gap)
        numbers = _Column("", False, [*map(str, range(1, len(cells) + 1))], bars)
        parts = [[numbers]]
        for column in columns:
            if len(parts[-1]) > 1 and _width([*parts[-1], column], 2, False) > self.width:
                parts.append([numbers])
            parts[-1].append(column)
        return "\n\n".join(self._printed(part, 2) for part in parts)

    def _printed(self, columns: Sequence[_Column], gap: int) -> str:
        room = self.width - _width(columns, gap, True)
        if room < 0 or not all(text.isprintable() for column in columns for text in (column.header, *column.texts)):
            return self._wrapped(columns, gap)
        # Not by rich: loading it takes longer than a simulation.
        room_of_bar = BAR_AT_LEAST + room // max(1, sum(column.has_bars for column in columns))
        lines = zip(*(column.lines(room_of_bar) for column in columns), strict=True)
        head, *rows = map((" " * gap).join, lines)
        return "\n".join(line.rstrip() for line in (head, "─" * _length(head), *rows))

    def _wrapped(self, columns: Sequence[_Column], gap: int) -> str:
        from rich import box
        from rich.bar import Bar as RichBar
        from rich.console import Console, JustifyMethod
        from rich.table import Table as RichTable
        from rich.text import Text

        # The box has a blank of its own between columns.
        padding = (0, gap - 1, 0, 0)
        table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding, header_style="")
        for column in columns:
            justify: JustifyMethod = "left" if column.left else "right"
            table.add_column(Text(column.header), justify=justify, no_wrap=column.whole, overflow="fold")
        for row in zip(*(column.cells for column in columns), strict=True):
            shown = (
                Text(cell) if isinstance(cell, str) else RichBar(1.0, 0.0, cell.share, width=cell.width) for cell in row
            )
            table.add_row(*shown)
        file = _Utf8()
        console = Console(file=file, width=self.width, color_system=None, highlight=False, emoji=False, markup=False)
        console.print(table, soft_wrap=False)
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


@dataclass(frozen=True)
class _Column:
    header: str
    left: bool
    cells: Sequence[Cell]
    bars: bool
    """Whether the table has bars."""

    @property
    def texts(self) -> list[str]:
        return [cell for cell in self.cells if isinstance(cell, str)]

    @property
    def has_bars(self) -> bool:
        return len(self.texts) < len(self.cells)

    @property
    def whole(self) -> bool:
        """Whether its cells never wrap: bars give way before short texts do, and numbers never."""
        short = not self.has_bars and all(len(text) <= LONG for text in self.texts)
        return not self.left or (self.bars and short)

    def width(self, most: bool) -> int:
        """The most or the least that it needs; bars, of which it may be, the least."""
        texts = [self.header, *self.texts]
        if not (most or self.whole):
            texts = [word for text in texts for word in text.split()]
        return max([BAR_AT_LEAST * self.has_bars, *map(_length, texts)])

    def lines(self, room: int) -> list[str]:
        """Its header and cells, as wide as the widest, with so much room for a bar."""
        texts = [self.header, *(cell if isinstance(cell, str) else cell.drawn(room) for cell in self.cells)]
        lengths = [*map(_length, texts)]
        widest = max(lengths)
        blanks = [" " * (widest - length) for length in lengths]
        return [text + blank if self.left else blank + text for text, blank in zip(texts, blanks, strict=True)]


def _width(columns: Sequence[_Column], gap: int, most: bool) -> int:
    return sum(column.width(most) for column in columns) + gap * (len(columns) - 1)


PLAIN = Style()


class _Utf8(io.StringIO):
    encoding = "utf-8"


def _length(text: str) -> int:
    """The characters of a terminal that a text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def labelled(label: str, text: str, width: int = 11) -> str:
    """A label and the text that it labels, in lines of at most 80 characters, the text a column of its own."""
    return wrapped(text, label.ljust(width), " " * width)


def wrapped(text: str, first: str = "", following: str = "") -> str:
    """Text in lines of at most 80 characters, each behind its indentation; words too long stand alone."""
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=following, break_long_words=False, break_on_hyphens=False
    )
