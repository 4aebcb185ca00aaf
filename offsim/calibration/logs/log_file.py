"""Training logs as files: parts of them are read one after another, and what is read is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from offsim.calibration.logs.lines import lines_with_facts
from offsim.inputs.errors import InputError
from offsim.inputs.reading import reading, unpacked

MAX_BYTES = 1_000_000_000
MAX_LINES = 500_000
"""Lines with timings, memory or settings: some 30,000 iterations of the log that says most of each."""
MAX_LINE = 200_000
"""Bytes of a line that are looked at: a configuration printed in one line has some thousands."""
PART = 1 << 20


def log_lines(path: Path) -> Iterator[str]:
    """The lines of a file (also gzipped) that may say something, each as far as it is looked at.

    The last one counts only if it is complete. Raises InputError for a file that is longer than the limits.
    """
    count = 0
    with reading(path, "a training log") as file:
        for part in _parts(unpacked(file), str(path)):
            for line in lines_with_facts(part):
                count += 1
                if count > MAX_LINES:
                    expected = "expected a log of fewer: cut it to one run"
                    raise InputError(
                        f"found more than {MAX_LINES:,} lines with timings or settings, {expected}", str(path)
                    )
                yield line[:MAX_LINE].decode("utf-8", errors="replace")


def _parts(file: IO[bytes], where: str) -> Iterator[bytes]:
    """Whole lines, many at a time; of a line that is longer than is looked at only its beginning."""
    total, rest, skips = 0, b"", False
    try:
        # A read at a time: where the end of a gzip file is cut off, what came before it counts.
        while read := file.read1(PART):  # type: ignore[attr-defined]
            total += len(read)
            if total > MAX_BYTES:
                raise InputError(f"found more than {MAX_BYTES:,} bytes, expected a training log", where)
            # Progress bars overwrite themselves with carriage returns, and share lines with what is logged.
            read = read.replace(b"\r", b"\n")
            if skips:
                _, ended, read = read.partition(b"\n")
                skips = not ended
            whole, ended, rest = (rest + read).rpartition(b"\n")
            if ended:
                yield whole
            if len(rest) > MAX_LINE:
                yield rest[:MAX_LINE]
                rest, skips = b"", True
    except EOFError:
        return
