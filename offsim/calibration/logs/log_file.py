"""Training logs as files: lines are read one after another, and what is read is bounded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from offsim.calibration.logs.lines import WORDS
from offsim.inputs.errors import InputError
from offsim.inputs.reading import reading, unpacked

MAX_SIZE = 1_000_000_000
"""Characters of a log."""
MAX_LINES = 500_000
"""Lines with timings, memory or settings: some 30,000 iterations of the log that says most of each."""
MAX_LINE = 200_000
"""Characters of a line that are looked at: a configuration printed in one line has some thousands."""


def log_lines(path: Path) -> Iterator[str]:
    """The lines of a file (also gzipped) that may say something, each as far as it is looked at.

    The last one counts only if it is complete. Raises InputError for a file that is longer than the limits.
    """
    size = count = 0
    ended = True
    # Where the end of a gzip file is cut off, what came before it counts.
    with reading(path, "a training log") as file, suppress(EOFError):
        # Progress bars overwrite themselves with carriage returns, which end lines too.
        text = io.TextIOWrapper(unpacked(file), encoding="utf-8", errors="replace")
        while line := text.readline(MAX_LINE):
            size += len(line)
            if size > MAX_SIZE:
                raise InputError(f"found more than {MAX_SIZE:,} characters, expected a training log", str(path))
            begins, ended = ended, line.endswith("\n")
            if begins and (ended or len(line) == MAX_LINE) and any(word in line for word in WORDS):
                count += 1
                if count > MAX_LINES:
                    problem = f"found more than {MAX_LINES:,} lines with timings or settings"
                    raise InputError(f"{problem}, expected a log of fewer: cut it to one run", str(path))
                yield line.rstrip("\n")
