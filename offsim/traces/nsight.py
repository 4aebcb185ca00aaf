"""SQLite exports of Nsight Systems, of old and new versions: times are nanoseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from offsim.inputs.errors import InputError
from offsim.traces.events import NONE, EventTable, Trace, quoted

_CUPTI = "CUPTI_ACTIVITY_KIND_"
_ACTIVITIES = ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE", "SYNCHRONIZATION", "RUNTIME")
_NVTX = "NVTX_EVENTS"
_DIRECTIONS = {1: "H2D", 2: "D2H", 3: "H2D", 4: "D2H", 5: "D2D", 6: "D2D", 7: "D2D", 8: "D2D", 9: "H2H", 10: "D2D"}
_DIRECTIONS |= {11: "H2D", 12: "D2H", 13: "D2D"}  # of unified memory
_MEMORIES = {0: "pageable", 1: "pinned"}
_SYNCS = {1: "Event Sync", 2: "Stream Wait Event", 3: "Stream Sync", 4: "Context Sync"}
_LATEST_NS = 2**62
_NO_ID = 2**32 - 1
"""Nsight writes it where there is no stream or event."""

Cell = int | float | str | bytes | None
Row = dict[str, Cell]


def read_nsight(path: Path, file: Path) -> Trace:
    """Read an export that lies in `file`; errors name `path`, which may be what it was unpacked from."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.text_factory = lambda data: data.decode("utf-8", errors="replace")
            database.execute("PRAGMA trusted_schema = OFF")
            return _Export(database, path).read()
    except (sqlite3.Error, OverflowError) as error:
        raise InputError(
            f"found a damaged SQLite file ({error}), expected an Nsight Systems export", str(path)
        ) from None


class _Export:
    """An open export."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self.database = database
        self.path = path
        self.table = EventTable(path)
        self.processes: dict[int, int] = {}
        """Global process number -> 0, 1, ..."""
        self.gpu_processes: set[int] = set()
        """Global numbers of the processes that used a GPU."""
        self.strings: dict[int, str] = {}
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self.tables = {str(name) for (name,) in found}

    def read(self) -> Trace:
        """Read all tables that are there."""
        if not self.tables & {*(_CUPTI + kind for kind in _ACTIVITIES), _NVTX}:
            raise InputError(
                f"found SQLite without the tables of an Nsight Systems export ({_CUPTI}KERNEL, {_NVTX}, ...), "
                "expected one written by 'nsys export --type sqlite'",
                str(self.path),
            )
        strings = self._rows("StringIds", "id", "value")
        self.strings = {row["id"]: str(row["value"]) for row in strings if isinstance(row["id"], int)}
        gpus = self._rows("TARGET_INFO_GPU", "id", "name")
        devices = {row["id"]: str(row["name"] or "") for row in gpus if isinstance(row["id"], int)}
        self._kernels()
        self._copies_and_fills()
        self._waits()
        self._calls()
        self._annotations()
        # Which processes are ranks is not recorded: they are numbered, those that used a GPU first.
        in_order = sorted(self.processes, key=lambda key: (key not in self.gpu_processes, key))
        ranks = {self.processes[key]: rank for rank, key in enumerate(in_order)}
        return self.table.trace("Nsight Systems", devices, ranks)

    def _rows(self, table: str, *columns: str) -> Iterator[Row]:
        """The columns of a table: None for those that this version does not have, no rows without the table."""
        if table not in self.tables:
            return
        there = {str(row[1]) for row in self.database.execute(f'PRAGMA table_info("{table}")')}
        asked = ", ".join(f'"{column}"' if column in there else "NULL" for column in columns)
        for cells in self.database.execute(f'SELECT {asked} FROM "{table}"'):
            yield dict(zip(columns, cells, strict=True))

    def _gpu_rows(self, table: str, *columns: str) -> Iterator[Row]:
        common = ("start", "end", "globalPid", "deviceId", "streamId", "correlationId")
        return self._rows(_CUPTI + table, *common, *columns)

    def _add_on_gpu(self, table: str, kind: str, name: str, row: Row, **more: Any) -> None:
        """Add what ran on a GPU stream; `more` are further columns of the event."""
        start, end = self._span(table, row)
        device, key, correlation = _id(row["deviceId"]), _id(row["globalPid"]), _id(row["correlationId"])
        self.gpu_processes.add(key)
        process, stream = self._process(key), f"GPU {device} stream {_id(row['streamId'])}"
        self.table.add(kind, name, stream, start, end, process=process, device=device, correlation=correlation, **more)

    def _kernels(self) -> None:
        for row in self._gpu_rows("KERNEL", "demangledName", "shortName"):
            name = self._string(row["demangledName"]) or self._string(row["shortName"])
            self._add_on_gpu("KERNEL", "kernel", name, row)
        for row in self._gpu_rows("GRAPH_TRACE"):
            self._add_on_gpu("GRAPH_TRACE", "kernel", "CUDA graph", row)

    def _copies_and_fills(self) -> None:
        for row in self._gpu_rows("MEMCPY", "bytes", "copyKind", "srcKind", "dstKind"):
            direction = _DIRECTIONS.get(_id(row["copyKind"]), "")
            host = _id(row["srcKind" if direction == "H2D" else "dstKind"])
            memory = "device" if direction == "D2D" else _MEMORIES.get(host, "")
            name, nbytes = f"Memcpy {direction.replace('2', 'to')}", self._number("MEMCPY", row, "bytes")
            self._add_on_gpu("MEMCPY", "memcpy", name, row, nbytes=nbytes, direction=direction, memory=memory)
        for row in self._gpu_rows("MEMSET", "bytes"):
            self._add_on_gpu("MEMSET", "memset", "Memset", row, nbytes=self._number("MEMSET", row, "bytes"))

    def _waits(self) -> None:
        records = {
            (_id(row["globalPid"]), _id(row["eventSyncId"])): (_id(row["correlationId"]), _id(row["streamId"]))
            for row in self._rows(_CUPTI + "CUDA_EVENT", "globalPid", "eventSyncId", "correlationId", "streamId")
        }
        for row in self._gpu_rows("SYNCHRONIZATION", "syncType", "deprecatedSyncType", "eventSyncId"):
            kind = row["deprecatedSyncType"] if row["syncType"] is None else row["syncType"]
            recorded = records.get((_id(row["globalPid"]), _id(row["eventSyncId"])), (NONE, NONE))
            name, (record, stream) = _SYNCS.get(_id(kind), "Sync"), recorded
            self._add_on_gpu("SYNCHRONIZATION", "sync", name, row, waits_on=stream, waits_record=record)

    def _calls(self) -> None:
        for row in self._rows(_CUPTI + "RUNTIME", "start", "end", "globalTid", "correlationId", "nameId"):
            # "cudaLaunchKernel_v7000": the version of the interface is no part of the name.
            name = self._string(row["nameId"]).split("_v")[0]
            self._add_on_thread("RUNTIME", "runtime", name, row, correlation=_id(row["correlationId"]))

    def _annotations(self) -> None:
        for row in self._rows(_NVTX, "start", "end", "globalTid", "text", "textId"):
            if row["end"] is not None:  # else it is an instant
                name = row["text"] if isinstance(row["text"], str) else self._string(row["textId"])
                self._add_on_thread(_NVTX, "annotation", name, row)

    def _add_on_thread(self, table: str, kind: str, name: str, row: Row, correlation: int = NONE) -> None:
        start, end = self._span(table, row)
        key = _id(row["globalTid"])  # with the process in its upper bits
        process = self._process(key & ~0xFFFFFF if key >= 0 else NONE)
        stream = f"thread {key & 0xFFFFFF if key >= 0 else '?'}"
        self.table.add(kind, name, stream, start, end, process=process, correlation=correlation)

    def _process(self, key: int) -> int:
        return self.processes.setdefault(key, len(self.processes))

    def _string(self, value: Cell) -> str:
        """The string that a cell refers to; some versions write the text itself."""
        return self.strings.get(value, "") if isinstance(value, int) else value if isinstance(value, str) else ""

    def _span(self, table: str, row: Row) -> tuple[int, int]:
        start, _ = (
            self._number(table, row, column, 1 - _LATEST_NS, "a number of nanoseconds") for column in ("start", "end")
        )
        return start, self._number(table, row, "end", start, f"at least start ({start})")

    def _number(
        self, table: str, row: Row, column: str, low: int = 0, expected: str = "a number that is at least 0"
    ) -> int:
        """The number in a column, at least `low`."""
        value = row[column]
        if not isinstance(value, int) or not low <= value < _LATEST_NS:
            problem = f"table {table}, column '{column}': found {quoted(value)}, expected {expected}"
            raise InputError(problem, str(self.path))
        return value


def _id(value: Cell) -> int:
    return value if isinstance(value, int) and value != _NO_ID else NONE
