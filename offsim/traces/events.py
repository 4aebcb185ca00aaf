"""A trace as one table of events, whichever tool wrote it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from offsim.inputs.errors import InputError
from offsim.traces.graph import Graph
from offsim.traces.work import Work

MAX_EVENTS = 30_000_000
"""More are refused: at some 100 bytes each they would take several GB of memory."""

GPU_KINDS = ("kernel", "memcpy", "memset")
"""Kinds of events that occupy a GPU stream."""
NONE = -1
"""Stands for no device, correlation or row."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as a table with a row per activity, in the order in which they began.

    Columns of `events`: rank; device (-1 on the host); stream ("GPU 0 stream 7", "thread 4037"); kind (kernel, memcpy,
    memset, sync, runtime, cpu_op, annotation, gpu_annotation, python, overhead or other); name; start_s and end_s from
    the beginning of the trace; bytes; direction ("H2D", "D2H", "D2D", "H2H" or ""); memory of the copy's host side
    ("pinned", "pageable", "device" or "" where it is not recorded); correlation, the tool's number of the call that
    launched it; launched_by, that call's row; waits_on and waits_record, of waits for an event: the device stream it is
    recorded on and the correlation of the call that recorded it. -1 stands for none.
    """

    path: Path
    tool: str
    devices: Mapping[int, str]
    """The GPUs that did something -> their names, "" where the trace has none."""
    events: pd.DataFrame
    works: Mapping[int, Work] = field(default_factory=dict)
    """Rows of operators and collectives -> how much they worked on, where the trace says it."""
    graph: Graph | None = None
    """What activities wait for and share, in traces of offsim."""

    @property
    def span_s(self) -> float:
        """From the first beginning to the last end of anything."""
        return float(self.events["end_s"].max() - self.events["start_s"].min())

    @property
    def on_gpu(self) -> pd.DataFrame:
        """Kernels, copies and fills."""
        return self.events[self.events["kind"].isin(GPU_KINDS)]


class _Strings:
    """Strings as small numbers: traces repeat few of them many times."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.column = array("i")

    def add(self, text: str) -> None:
        self.column.append(self.numbers.setdefault(text, len(self.numbers)))

    def categories(self) -> pd.Categorical[str]:
        return pd.Categorical.from_codes(np.array(self.column, dtype=np.int32), categories=pd.Index(list(self.numbers)))


class EventTable:
    """Collects events in columns of plain numbers; times are whole nanoseconds of any clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._strings = {name: _Strings() for name in ("stream", "kind", "name", "direction", "memory")}
        self._numbers = {
            name: array("q")
            for name in ("process", "device", "start", "end", "bytes", "correlation", "waits_on", "waits_record")
        }
        self._works: dict[int, Work] = {}

    def __len__(self) -> int:
        return len(self._numbers["start"])

    def add(
        self,
        kind: str,
        name: str,
        stream: str,
        start_ns: int,
        end_ns: int,
        *,
        process: int = 0,
        device: int = NONE,
        nbytes: int = 0,
        direction: str = "",
        memory: str = "",
        correlation: int = NONE,
        waits_on: int = NONE,
        waits_record: int = NONE,
        work: Work | None = None,
    ) -> None:
        """Append an event."""
        if len(self) >= MAX_EVENTS:
            raise InputError(f"found more than {MAX_EVENTS} events, expected a shorter trace", str(self.path))
        if work:
            self._works[len(self)] = work
        texts = (stream, kind, name, direction, memory)
        numbers = (process, device, start_ns, end_ns, nbytes, correlation, waits_on, waits_record)
        for column, text in zip(self._strings.values(), texts, strict=True):
            column.add(text)
        for numbered, number in zip(self._numbers.values(), numbers, strict=True):
            numbered.append(number)

    def trace(self, tool: str, names: Mapping[int, str], rank_of: Mapping[int, int]) -> Trace:
        """All that was added, as a trace; `rank_of` has the rank of each process."""
        if not len(self):
            raise InputError("found no events that have a duration, expected some", str(self.path))
        numbers = {name: np.array(column, dtype=np.int64) for name, column in self._numbers.items()}
        order = np.lexsort((-numbers["end"], numbers["start"]))  # what encloses another comes first
        origin = int(numbers["start"].min())
        strings = {name: column.categories()[order] for name, column in self._strings.items()}
        numbers = {name: column[order] for name, column in numbers.items()}
        ranks = np.array([rank_of.get(process, 0) for process in range(int(numbers["process"].max()) + 1)])
        events = pd.DataFrame(
            {
                "rank": ranks[numbers["process"]],
                "device": numbers["device"],
                "stream": strings["stream"],
                "kind": strings["kind"],
                "name": strings["name"],
                "start_s": (numbers["start"] - origin) / 1e9,
                "end_s": (numbers["end"] - origin) / 1e9,
                "bytes": numbers["bytes"],
                "direction": strings["direction"],
                "memory": strings["memory"],
                "correlation": numbers["correlation"],
                "launched_by": _launches(numbers["process"], numbers["correlation"], strings["kind"]),
                "waits_on": numbers["waits_on"],
                "waits_record": numbers["waits_record"],
            }
        )
        _bytes_of_calls(events)
        used = sorted(set(events.loc[events["kind"].isin(GPU_KINDS), "device"].tolist()))
        # Programs may see GPUs under other numbers than the list has: where all there are alike, the name is known.
        usual = next(iter(names.values())) if len(set(names.values())) == 1 else ""
        rows = np.argsort(order)
        works = {int(rows[number]): work for number, work in self._works.items()}
        return Trace(self.path, tool, {device: names.get(device, usual) for device in used}, events, works)


def quoted(value: object) -> str:
    """A value of a trace as messages quote it."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _launches(process: np.ndarray, correlation: np.ndarray, kind: pd.Categorical[str]) -> np.ndarray:
    """The row of the call that launched each GPU activity or made each wait: of nested ones the outermost."""
    keys = pd.DataFrame({"process": process, "correlation": correlation, "row": np.arange(len(process))})
    calls = keys[np.asarray(kind == "runtime") & (correlation != NONE)].drop_duplicates(["process", "correlation"])
    mine = keys[np.asarray(kind.isin((*GPU_KINDS, "sync"))) & (correlation != NONE)]
    found = mine.merge(calls, how="left", on=["process", "correlation"], suffixes=("", "_of_call"))
    launches = np.full(len(process), NONE, dtype=np.int64)
    launches[found["row"].to_numpy()] = found["row_of_call"].fillna(NONE).to_numpy(dtype=np.int64)
    return launches


def _bytes_of_calls(events: pd.DataFrame) -> None:
    """AMD's copies may not say how many bytes they moved, while the calls do."""
    unknown = ((events["kind"] == "memcpy") & (events["bytes"] == 0) & (events["launched_by"] != NONE)).to_numpy()
    calls = events.loc[unknown, "launched_by"].to_numpy()
    events.loc[unknown, "bytes"] = events["bytes"].to_numpy()[calls]
