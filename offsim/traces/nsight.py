"""SQLite exports of Nsight Systems, of old and new versions: times are nanoseconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from offsim.inputs.errors import InputError
from offsim.traces.events import NONE, EventTable, Trace

_CUPTI = "CUPTI_ACTIVITY_KIND_"
_ACTIVITIES = ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE", "SYNCHRONIZATION", "RUNTIME")
_NVTX = "NVTX_EVENTS"
_DIRECTIONS = {1: "H2D", 2: "D2H", 3: "H2D", 4: "D2H", 5: "D2D", 6: "D2D", 7: "D2D", 8: "D2D", 9: "H2H", 10: "D2D"}
_DIRECTIONS |= {11: "H2D", 12: "D2H", 13: "D2D"}  # of unified memory
_MEMORIES = {0: "pageable", 1: "pinned"}
_SYNCS = {1: "Event Sync", 2: "Stream Wait Event", 3: "Stream Sync", 4: "Context Sync"}
_LATEST_NS = 2**62
_NO_ID = 2**32 - 1
"""What the tool writes where there is no stream or event."""

Cell = int | float | str | bytes | None


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
        self.on_gpu: set[int] = set()
        """Global numbers of the processes that used a GPU."""
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self.tables = {str(name) for (name,) in found}

    def read(self) -> Trace:
        """Read all tables that are there."""
        wanted = {*(_CUPTI + kind for kind in _ACTIVITIES), _NVTX}
        if not wanted & self.tables:
            raise InputError(
                f"found SQLite without the tables of an Nsight Systems export ({_CUPTI}KERNEL, {_NVTX}, ...), "
                "expected one written by 'nsys export --type sqlite'",
                str(self.path),
            )
        names = {int(key): str(name) for key, name in self._rows("StringIds", ("id", "value")) if isinstance(key, int)}
        gpus = self._rows("TARGET_INFO_GPU", ("id", "name"))
        devices = {key: str(name or "") for key, name in gpus if isinstance(key, int)}
        self._kernels(names)
        self._copies()
        self._fills()
        self._waits()
        self._calls(names)
        self._annotations(names)
        # Which processes are ranks is not recorded: they are numbered, those that used a GPU first.
        in_order = sorted(self.processes, key=lambda key: (key not in self.on_gpu, key))
        ranks = {self.processes[key]: rank for rank, key in enumerate(in_order)}
        return self.table.trace("Nsight Systems", devices, ranks)

    def _rows(self, table: str, columns: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
        """The columns of a table: None for those that this version does not have, no rows without the table."""
        if table not in self.tables:
            return
        there = {str(row[1]) for row in self.database.execute(f'PRAGMA table_info("{table}")')}
        asked = ", ".join(f'"{column}"' if column in there else "NULL" for column in columns)
        yield from self.database.execute(f'SELECT {asked} FROM "{table}"')

    def _activities(
        self, table: str, columns: Sequence[str]
    ) -> Iterator[tuple[int, int, int, int, str, tuple[Cell, ...]]]:
        """Of what ran on a GPU: start, end, process, device, stream, and the further columns."""
        common = ("start", "end", "globalPid", "deviceId", "streamId")
        for start, end, process, device, stream, *rest in self._rows(_CUPTI + table, (*common, *columns)):
            began, ended = self._span(table, start, end)
            number = _id(device)
            self.on_gpu.add(_id(process))
            yield began, ended, self._process(_id(process)), number, f"GPU {number} stream {_id(stream)}", tuple(rest)

    def _kernels(self, names: dict[int, str]) -> None:
        columns = ("correlationId", "demangledName", "shortName")
        for began, ended, process, device, stream, (correlation, long, short) in self._activities("KERNEL", columns):
            name = _named(names, long) or _named(names, short)
            self.table.add(
                "kernel", name, stream, began, ended, process=process, device=device, correlation=_id(correlation)
            )
        for began, ended, process, device, stream, (correlation,) in self._activities(
            "GRAPH_TRACE", ("correlationId",)
        ):
            self.table.add(
                "kernel", "CUDA graph", stream, began, ended, process=process, device=device,
                correlation=_id(correlation),
            )  # fmt: skip

    def _copies(self) -> None:
        columns = ("correlationId", "bytes", "copyKind", "srcKind", "dstKind")
        for began, ended, process, device, stream, rest in self._activities("MEMCPY", columns):
            correlation, nbytes, kind, source, target = rest
            direction = _DIRECTIONS.get(_id(kind), "")
            host = source if direction == "H2D" else target
            self.table.add(
                "memcpy",
                f"Memcpy {direction.replace('2', 'to')}",
                stream,
                began,
                ended,
                process=process,
                device=device,
                nbytes=self._bytes("MEMCPY", nbytes),
                direction=direction,
                memory="device" if direction == "D2D" else _MEMORIES.get(_id(host), ""),
                correlation=_id(correlation),
            )

    def _fills(self) -> None:
        for began, ended, process, device, stream, rest in self._activities("MEMSET", ("correlationId", "bytes")):
            correlation, nbytes = rest
            self.table.add(
                "memset", "Memset", stream, began, ended, process=process, device=device,
                nbytes=self._bytes("MEMSET", nbytes), correlation=_id(correlation),
            )  # fmt: skip

    def _waits(self) -> None:
        records: dict[tuple[int, int], tuple[int, int]] = {}
        columns = ("globalPid", "eventSyncId", "correlationId", "streamId")
        for process, event, correlation, stream in self._rows(_CUPTI + "CUDA_EVENT", columns):
            records[self._process(_id(process)), _id(event)] = _id(correlation), _id(stream)
        columns = ("correlationId", "syncType", "deprecatedSyncType", "eventSyncId")
        for began, ended, process, device, stream, rest in self._activities("SYNCHRONIZATION", columns):
            correlation, kind, old_kind, event = rest
            name = _SYNCS.get(_id(kind) if kind is not None else _id(old_kind), "Sync")
            record, recorded_on = records.get((process, _id(event)), (NONE, NONE))
            self.table.add(
                "sync", name, stream, began, ended, process=process, device=device, correlation=_id(correlation),
                waits_on=recorded_on, waits_record=record,
            )  # fmt: skip

    def _calls(self, names: dict[int, str]) -> None:
        columns = ("start", "end", "globalTid", "correlationId", "nameId")
        for start, end, thread, correlation, name in self._rows(_CUPTI + "RUNTIME", columns):
            began, ended = self._span("RUNTIME", start, end)
            process, stream = self._thread(_id(thread))
            # "cudaLaunchKernel_v7000": the version of the interface is no part of the name.
            short = _named(names, name).split("_v")[0]
            self.table.add("runtime", short, stream, began, ended, process=process, correlation=_id(correlation))

    def _annotations(self, names: dict[int, str]) -> None:
        columns = ("start", "end", "globalTid", "text", "textId")
        for start, end, thread, text, key in self._rows(_NVTX, columns):
            if end is None:  # a mark
                continue
            began, ended = self._span(_NVTX, start, end)
            process, stream = self._thread(_id(thread))
            name = text if isinstance(text, str) else _named(names, key)
            self.table.add("annotation", name, stream, began, ended, process=process)

    def _process(self, key: int) -> int:
        return self.processes.setdefault(key, len(self.processes))

    def _thread(self, key: int) -> tuple[int, str]:
        """Process and stream of a thread: its number has the process in its upper bits."""
        return self._process(key & ~0xFFFFFF if key >= 0 else NONE), f"thread {key & 0xFFFFFF if key >= 0 else '?'}"

    def _span(self, table: str, start: Cell, end: Cell) -> tuple[int, int]:
        for column, value in (("start", start), ("end", end)):
            if not isinstance(value, int) or not -_LATEST_NS < value < _LATEST_NS:
                raise self._bad(table, column, value, "a number of nanoseconds")
        assert isinstance(start, int)
        assert isinstance(end, int)
        if end < start:
            raise self._bad(table, "end", end, f"at least start ({start})")
        return start, end

    def _bytes(self, table: str, value: Cell) -> int:
        if not isinstance(value, int) or not 0 <= value < _LATEST_NS:
            raise self._bad(table, "bytes", value, "a number that is at least 0")
        return value

    def _bad(self, table: str, column: str, value: Cell, expected: str) -> InputError:
        text = "nothing" if value is None else repr(value)
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        return InputError(f"table {table}, column '{column}': found {shown}, expected {expected}", str(self.path))


def _id(value: Cell) -> int:
    return value if isinstance(value, int) and value != _NO_ID else NONE


def _named(names: dict[int, str], value: Cell) -> str:
    """What a reference to the table of strings stands for; some versions write the text itself."""
    return names.get(value, "") if isinstance(value, int) else value if isinstance(value, str) else ""
