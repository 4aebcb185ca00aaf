"""The journal of a sweep: a file that outcomes are appended to, valid whenever the process is killed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import orjson

from offsim.inputs.errors import InputError


class Journal:
    """Outcomes by id, one JSON line each. Opened for appending by one process; a torn last line is cut off.

    In memory are ids and offsets only. Raises InputError where a line before the last is damaged, OSError where nothing
    can be written; what was there before stays valid then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[bytes, int] = {}
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed with the journal)
        self._reader = open(path, "rb")  # noqa: SIM115
        try:
            self._begin = self._end = self._read()
            self._file.truncate(self._end)
        except BaseException:
            self._close()
            raise

    def _read(self) -> int:
        """Note all lines' offsets; return where the last whole one ends."""
        end = 0
        for number, line in enumerate(self._reader, start=1):
            try:
                key = bytes.fromhex(orjson.loads(line)["id"]) if line.endswith(b"\n") else b""
            except (ValueError, TypeError, KeyError):
                key = b""
            if not key:
                if self._reader.read(1):
                    problem = "found a damaged line, expected a point's outcome; removing the line repairs the file"
                    raise InputError(problem, f"{self._path}:{number}")
                break
            self._offsets[key] = end
            end += len(line)
        return end

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, key: bytes) -> bool:
        return key in self._offsets

    def had(self, key: bytes) -> bool:
        """Whether this id was there already when the file was opened."""
        return self._offsets.get(key, self._begin) < self._begin

    def __getitem__(self, key: bytes) -> bytes:
        """The line of this id."""
        self._reader.seek(self._offsets[key])
        return self._reader.readline()

    def append(self, key: bytes, outcome: bytes) -> None:
        """Add an outcome (JSON) at the end, so that it outlives this process."""
        line = b'{"id":"%s","outcome":%s}\n' % (key.hex().encode(), outcome)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except BaseException:
            self._file.truncate(self._end)
            raise
        self._offsets[key] = self._end
        self._end += len(line)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        self._reader.close()
        self._file.close()
