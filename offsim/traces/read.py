"""Open a trace of any kind: by what is in the file, not by its name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

from offsim.inputs.errors import InputError
from offsim.inputs.reading import reading, unpacked
from offsim.traces.events import Trace
from offsim.traces.kineto import read_kineto
from offsim.traces.nsight import read_nsight

MAX_BYTES = 16 * 10**9
"""Unpacked, of a trace."""
MAX_RATIO = 250
"""Unpacked bytes for a packed one, once there are many: traces have 20 to 60, gzip reaches 1000."""
_MANY = 64 * 10**6

_SQLITE = b"SQLite format 3\0"
_REPORTS = (".nsys-rep", ".qdrep")
NAMES = (".json", ".json.gz", ".sqlite", ".sqlite.gz", *_REPORTS)
"""How names of traces end, where files of several kinds are told apart by name."""
_EXPECTED = "a trace: JSON of Kineto, or an SQLite export of Nsight Systems"


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace of Kineto (JSON) or Nsight Systems (SQLite), also gzipped; InputError where it is none."""
    path = Path(path)
    if path.suffix in _REPORTS:
        problem = "found a report of Nsight Systems, expected its export: nsys export --type sqlite"
        raise InputError(f"{problem} {path.name}", str(path))
    with reading(path, _EXPECTED) as file:
        source = _Source(file, path)
        if not source.head:
            raise InputError(f"found an empty file, expected {_EXPECTED}", str(path))
        if source.head != _SQLITE:
            return read_kineto(source.read, path)
        if not source.packed:
            return read_nsight(path, path)
        with tempfile.TemporaryDirectory(prefix="offsim-") as folder:
            plain = Path(folder, "trace.sqlite")
            with plain.open("wb") as copy:
                while chunk := source.read(1 << 22):
                    copy.write(chunk)
            return read_nsight(path, plain)


class _Source:
    """The unpacked bytes of a file, as many as a trace may have; `head` shows the first ones before they are read."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._plain = unpacked(file)
        self.packed = self._plain is not file
        self._count = 0
        self.head = self._plain.peek(len(_SQLITE))[: len(_SQLITE)]  # type: ignore[attr-defined]

    def read(self, size: int) -> bytes:
        """Return up to so many bytes; InputError for more than a trace may have."""
        data = self._plain.read(size)
        self._count += len(data)
        if self._count > MAX_BYTES:
            raise InputError(f"found more than {MAX_BYTES} bytes, expected {_EXPECTED}", str(self._path))
        if self.packed and self._count > _MANY + MAX_RATIO * self._file.tell():
            problem = f"found a gzip file that unpacks to over {MAX_RATIO} times its size, expected {_EXPECTED}"
            raise InputError(problem, str(self._path))
        return data
