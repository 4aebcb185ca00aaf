"""Text for terminals, pipes and files: tables and bars by rich."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import JustifyMethod, RenderableType

WIDTH = 80
"""Of prose, and of tables where nothing says how wide they may be."""
BAR = 36
"""At most as many characters has a bar."""
LONG = 40
"""Characters of a cell beyond which its column may wrap."""
BAR_AT_LEAST = 4


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

    def bar(self, share: float, width: int = BAR) -> RenderableType:
        """A bar that is as long as this share (0 to 1) of `width`, or of the room that a table has for it."""
        from rich.bar import Bar

        return Bar(1.0, 0.0, min(max(share, 0.0), 1.0), width=width)

    def table(
        self,
        rows: Iterable[Sequence[object]],
        headers: Sequence[str],
        align: str | None = None,
    ) -> str:
        """A table with a rule under its headers.

        `align` has "l" or "r" for each column; without it the first is set left and the others right. None is an empty
        cell, a cell may be one of rich's renderables. Where the table would be wider than the terminal, bars become
        shorter, columns move together, long texts wrap; columns that still have no room follow as a table of their own,
        with the rows numbered.
        """
        cells = [[*map(_renderable, row)] for row in rows]
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
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        # The box has a blank of its own between columns.
        padding = (0, gap - 1, 0, 0)
        table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding, header_style="")
        for column in columns:
            justify: JustifyMethod = "left" if column.left else "right"
            table.add_column(Text(column.header), justify=justify, no_wrap=column.whole, overflow="fold")
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        file = _Utf8()
        console = Console(file=file, width=self.width, color_system=None, highlight=False, emoji=False, markup=False)
        console.print(table, soft_wrap=False)
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


@dataclass(frozen=True)
class _Column:
    header: str
    left: bool
    cells: Sequence[RenderableType]
    bars: bool
    """Whether the table has bars."""

    @property
    def texts(self) -> list[str]:
        return [cell for cell in self.cells if isinstance(cell, str)]

    @property
    def whole(self) -> bool:
        """Whether its cells never wrap: bars give way before short texts do, and numbers never."""
        short = len(self.texts) == len(self.cells) and all(len(text) <= LONG for text in self.texts)
        return not self.left or (self.bars and short)

    def width(self, most: bool) -> int:
        """The most or the least that it needs; bars, of which it may be, the least."""
        from rich.cells import cell_len

        texts = [self.header, *self.texts]
        if not (most or self.whole):
            texts = [word for text in texts for word in text.split()]
        return max([BAR_AT_LEAST * (len(self.texts) < len(self.cells)), *map(cell_len, texts)])


def _width(columns: Sequence[_Column], gap: int, most: bool) -> int:
    return sum(column.width(most) for column in columns) + gap * (len(columns) - 1)


PLAIN = Style()


class _Utf8(io.StringIO):
    encoding = "utf-8"


def _renderable(value: object) -> RenderableType:
    from rich.protocol import is_renderable

    if isinstance(value, str) or not is_renderable(value):
        return "" if value is None else str(value)
    return value  # type: ignore[return-value]  # is_renderable says so


def labelled(label: str, text: str) -> str:
    """A label and the text that it labels, in lines of at most 80 characters, the text a column of its own."""
    return wrapped(text, f"{label:<11}", " " * 11)


def wrapped(text: str, first: str = "", following: str = "") -> str:
    """Text in lines of at most 80 characters, each behind its indentation; words too long stand alone."""
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=following, break_long_words=False, break_on_hyphens=False
    )
