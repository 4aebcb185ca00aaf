"""Writing to a terminal, a file or a pipe: plain where it must be, ASCII where nothing else can be encoded."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import TextIO

from offsim.inputs.errors import InputError
from offsim.views.console import WIDTH, Style, labelled, wrapped

__all__ = ["Style", "complain", "labelled", "note", "show", "show_bytes", "style_of", "wrapped"]

STDOUT = "standard output"
_ASCII = str.maketrans(
    {"µ": "u", "\N{MULTIPLICATION SIGN}": "x", "±": "+-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "…": "..."}
    | {"─": "-", **dict.fromkeys("█▉▊▋▌", "#"), **dict.fromkeys("▍▎▏", " ")}  # of rules and bars
)
# What is shown has names from files in it, which must not move the cursor; but for what Style sets.
_CONTROL = re.compile(r"\x1b(?!\[(?:0|1|1;31)m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")


def style_of(stream: TextIO | None) -> Style:
    """What a stream can show: colours on terminals only, and not where NO_COLOR is set."""
    terminal = stream is not None and stream.isatty()
    ansi = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(ansi, max(WIDTH, get_terminal_size().columns) if terminal else WIDTH)


def show(text: str) -> None:
    """Write text and a line's end to standard output. Where nobody reads it any more, that is no error."""
    with _printing():
        _write(sys.stdout, text)


def note(text: str) -> None:
    """Write a line to standard error: what was done, beside what was asked for."""
    try:
        _write(sys.stderr, text)
    except OSError:
        _silence(sys.stderr)  # there is nowhere left to say so


def complain(error: InputError) -> None:
    """Write what is wrong with the input to standard error."""
    note(f"{style_of(sys.stderr).alarm('Error:')} {error}")


def show_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are."""
    with _printing():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextmanager
def _printing() -> Iterator[None]:
    """Make what goes wrong with standard output one message."""
    if sys.stdout is None:  # where it was closed before the start
        raise InputError("is closed, expected a file, a pipe or a terminal", STDOUT)
    try:
        yield
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise InputError(f"cannot be written: {error.strerror or error}", STDOUT) from error


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    encoding = stream.encoding or "ascii"
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, errors="backslashreplace").decode(encoding)
    print(text, file=stream, flush=True)


def _silence(stream: TextIO) -> None:
    """Let what is still buffered, and all that follows, go nowhere: else Python complains as it ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
