"""Text for terminals, pipes and files: tables and bars by rich."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 80
"""Of prose, and of tables where nothing says how wide they may be."""
BAR = 36
"""At most as many characters has a bar."""
LONG = 40
"""Characters of a cell beyond which its column may wrap."""
UNBOUNDED = 10_000


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
        *,
        wrap: bool = True,
    ) -> str:
        """A table with a rule under its headers.

        `align` has "l" or "r" for each column; without it the first is set left and the others right. None is an empty
        cell, a cell may be one of rich's renderables. Where the table would be wider than the terminal, bars become
        shorter and long texts wrap, unless `wrap` is False.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
        cells = [[*map(_renderable, row)] for row in rows]
        align = align if align is not None else "l" + "r" * (len(headers) - 1)
        bars = any(not isinstance(cell, Text) for row in cells for cell in row)
        for place, (header, side) in enumerate(zip(headers, align, strict=True)):
            texts = [cell for row in cells if isinstance(cell := row[place], Text)]
            # Bars give way before short texts do, and numbers never.
            short = bars and len(texts) == len(cells) and all(len(text) <= LONG for text in texts)
            left = side == "l"
            table.add_column(
                Text(header), justify="left" if left else "right", no_wrap=short or not left, overflow="fold"
            )
        for row in cells:
            table.add_row(*row)
        file = _Utf8()
        width = self.width if wrap else UNBOUNDED
        console = Console(file=file, width=width, color_system=None, highlight=False, emoji=False, markup=False)
        console.print(table, soft_wrap=False)
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


PLAIN = Style()


class _Utf8(io.StringIO):
    encoding = "utf-8"


def _renderable(value: object) -> RenderableType:
    from rich.protocol import is_renderable
    from rich.text import Text

    if isinstance(value, str) or not is_renderable(value):
        return Text("" if value is None else str(value))
    return value  # type: ignore[return-value]  # is_renderable says so


def labelled(label: str, text: str, width: int = 11) -> str:
    """A label and the text that it labels, in lines of at most 80 characters, the text a column of its own."""
    return wrapped(text, label.ljust(width), " " * width)


def wrapped(text: str, first: str = "", following: str = "") -> str:
    """Text in lines of at most 80 characters, each behind its indentation; words too long stand alone."""
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=following, break_long_words=False, break_on_hyphens=False
    )
