"""Writing to a terminal, a file or a pipe: plain where it must be, ASCII where nothing else can be encoded."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from offsim.inputs.errors import InputError
from offsim.views.tables import can_encode, format_table, percent_bar

WIDTH = 80
_ASCII = str.maketrans(
    {"µ": "u", "\N{MULTIPLICATION SIGN}": "x", "±": "+-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "…": "..."}
)
# What is shown has names from files in it, which must not move the cursor; but for what Style sets.
_CONTROL = re.compile(r"\x1b(?!\[(?:0|1|1;31)m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Style:
    """How text may be set: characters beyond ASCII, bold and colours."""

    unicode: bool = True
    ansi: bool = False

    def heading(self, text: str) -> str:
        """Bold where there are colours."""
        return f"\x1b[1m{text}\x1b[0m" if self.ansi else text

    def alarm(self, text: str) -> str:
        """Bold and red where there are colours."""
        return f"\x1b[1;31m{text}\x1b[0m" if self.ansi else text

    def bar(self, fraction: float, width: int) -> str:
        """A bar that is as long as this fraction of `width`, without what fills it up."""
        return percent_bar(fraction, width, unicode=self.unicode).rstrip(" -")

    def table(self, rows: Sequence[Sequence[object]], headers: Sequence[str], align: str | None = None) -> str:
        """A table of fixed-width columns with a rule under the headers."""
        return format_table(rows, headers, align, unicode=self.unicode)


PLAIN = Style()


def style_of(stream: TextIO) -> Style:
    """What a stream can show: colours on terminals only, and not where NO_COLOR is set."""
    ansi = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(can_encode(stream), ansi)


def labelled(label: str, text: str, width: int = 11) -> str:
    """A label and the text that it labels, in lines of at most 80 characters, the text a column of its own."""
    return wrapped(text, label.ljust(width), " " * width)


def wrapped(text: str, first: str = "", following: str = "") -> str:
    """Text in lines of at most 80 characters, each behind its indentation; words too long stand alone."""
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=following, break_long_words=False, break_on_hyphens=False
    )


def show(text: str) -> None:
    """Write text and a line's end to standard output. Where nobody reads it any more, that is no error."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Write a line to standard error: what was done, beside what was asked for."""
    _write(sys.stderr, text)


def complain(error: InputError) -> None:
    """Write what is wrong with the input to standard error."""
    _write(sys.stderr, f"{style_of(sys.stderr).alarm('Error:')} {error}")


def show_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _silence(sys.stdout)


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "ascii"
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    if not can_encode(stream, text):
        text = text.translate(_ASCII).encode(encoding, errors="backslashreplace").decode(encoding)
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """Let what is still buffered, and all that follows, go nowhere: else Python complains as it ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
