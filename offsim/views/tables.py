"""Plain text tables and bars for terminals and log files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import IO, Any

EIGHTHS = " ▏▎▍▌▋▊▉█"


def can_encode(stream: IO[Any], text: str = EIGHTHS + "─") -> bool:
    """Whether a stream's encoding has the characters that tables and bars are drawn with."""
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def format_table(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str],
    align: str | None = None,
    *,
    indent: int = 0,
    unicode: bool = True,
) -> str:
    """A table of fixed-width columns, a rule under the headers, no end of line at its end.

    `align` has "l", "r" or "c" for each column; without it the first is set left and the others right. None is an
    empty cell.
    """
    align = align if align is not None else "l" + "r" * (len(headers) - 1)
    if len(align) != len(headers) or set(align) - set("lrc"):
        raise ValueError(f"align({align!r}) must have one of l, r, c for each of {len(headers)} columns")
    cells = [list(headers)] + [["" if cell is None else str(cell) for cell in row] for row in rows]
    for row in cells:
        if len(row) != len(headers):
            raise ValueError(f"a row has {len(row)} cells, the table {len(headers)} columns: {row}")
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = ["  ".join(_aligned(*cell) for cell in zip(row, widths, align, strict=True)) for row in cells]
    lines.insert(1, "  ".join(("─" if unicode else "-") * width for width in widths))
    return "\n".join((" " * indent + line).rstrip() for line in lines)


def _aligned(text: str, width: int, side: str) -> str:
    return text.rjust(width) if side == "r" else text.center(width) if side == "c" else text.ljust(width)


def percent_bar(fraction: float, width: int = 20, *, unicode: bool = True) -> str:
    """A bar of `width` characters, filled up to this fraction; full from 1 on, in ASCII "###--"."""
    if not fraction >= 0 or math.isinf(fraction):
        raise ValueError(f"fraction(={fraction}) must be >= 0 and finite")
    filled = min(fraction, 1.0) * width
    if not unicode:
        whole = round(filled)
        return "#" * whole + "-" * (width - whole)
    eighths = round(filled * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (EIGHTHS[rest] if rest else "")).ljust(width)
