"""The table of a sweep: a row per point in the order of the points, as Parquet, written and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from offsim.inputs.errors import InputError
from offsim.inputs.files import atomic_write
from offsim.results.result import PHASES
from offsim.study.sweeps.axes import Cell, positions
from offsim.study.sweeps.folder import TABLE, read_manifest
from offsim.study.sweeps.journal import Journal
from offsim.study.sweeps.point import ID_BYTES, cells
from offsim.study.sweeps.sweep_file import Sweep

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ROWS_PER_GROUP = 1_000

_FIGURES = {
    "scheduler": "string",
    "hardware": "string",
    "gpus": "int64",
    "fits": "bool",
    **{f"{phase}_s": "double" for phase in PHASES},
    "iteration_s": "double",
    "tokens_per_s": "double",
    "tflops_per_gpu": "double",
    "gpu_peak_bytes": "double",
    "gpu_capacity_bytes": "double",
    "host_peak_bytes": "double",
    "host_capacity_bytes": "double",
    "limited_by": "string",
    **{f"{phase}_limited_by": "string" for phase in PHASES},
    "limits_s": "string",
    "verdict": "string",
    "error": "string",
}
"""Columns of outcomes and their types, after `point_id` and the axes'."""


def write_table(folder: Path, sweep: Sweep, ids: BinaryIO, journal: Journal) -> None:
    """Write `results.parquet`, in the order of the points, whose ids `ids` holds one after another."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(sweep)
    rows = _rows(sweep, ids, journal)
    with atomic_write(folder / TABLE) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _rows(sweep: Sweep, ids: BinaryIO, journal: Journal) -> Iterator[dict[str, Any]]:
    shown_as = {name: _SHOWN_AS[kind] for name, kind in _axis_types(sweep).items()}
    for position in positions(sweep.axes, sweep.skip):
        key = ids.read(ID_BYTES)
        outcome = orjson.loads(journal[key])["outcome"]
        limits = outcome.get("limits_s")
        shown = cells(sweep, position)
        taken = {_name(figure, shown): outcome.get(figure) for figure in _FIGURES}
        yield {
            **taken,
            "point_id": key.hex(),
            **{name: None if cell is None else shown_as[name](cell) for name, cell in shown.items()},
            **{f"{phase}_limited_by": next(iter(spent), None) for phase, spent in (limits or {}).items()},
            "limits_s": None if limits is None else orjson.dumps(limits).decode(),
        }


def _name(figure: str, columns: Iterable[str]) -> str:
    """The column of a figure: another one where an axis is called the same, as `hardware` may be."""
    return f"{figure}_name" if figure in columns else figure


def _schema(sweep: Sweep) -> pa.Schema:
    import pyarrow as pa

    axes = _axis_types(sweep)
    types = {"point_id": "string", **axes, **{_name(figure, axes): kind for figure, kind in _FIGURES.items()}}
    fields = [pa.field(name, pa.type_for_alias(kind)) for name, kind in types.items()]
    about = {"axes": list(sweep.columns), "sweep": _canonical(sweep.content)}
    return pa.schema(fields, metadata={"offsim": json.dumps(about)})


def _axis_types(sweep: Sweep) -> dict[str, str]:
    """Column -> its type: numbers and flags where all of its cells are, else text."""
    return {
        column: _type([row[place] for row in axis.cells])
        for axis in sweep.axes
        for place, column in enumerate(axis.columns)
    }


def _type(column: Sequence[Cell]) -> str:
    if all(isinstance(cell, bool) for cell in column):
        return "bool"
    if all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in column):
        whole = all(isinstance(cell, int) and abs(cell) < 2**63 for cell in column)
        return "int64" if whole else "double"
    return "string"


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else json.dumps(cell)


# Arrow makes no floating-point number of a whole one beyond 64 bits.
_SHOWN_AS: dict[str, Callable[[Any], Cell]] = {"bool": bool, "int64": int, "double": float, "string": _text}


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, default=str)


def read_results(folder: str | Path) -> pd.DataFrame:
    """Read the table of a finished sweep; `attrs["axes"]` has the names of the axes' columns, `scenario` first.

    Raises InputError where the folder has no table, or one of a sweep that was changed since and is not finished.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(folder)
    manifest = read_manifest(folder)
    path = folder / TABLE
    try:
        table = pq.read_table(path, partitioning=None)
        about = json.loads((table.schema.metadata or {})[b"offsim"])
    except FileNotFoundError:
        raise InputError("the sweep is not finished; --resume continues it", str(folder)) from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"cannot be read: {error}", str(path)) from None
    if about["sweep"] != _canonical(manifest.get("sweep", {})):
        raise InputError("the sweep was changed since and is not finished; --resume continues it", str(folder))
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    frame.attrs["axes"] = about["axes"]
    return frame
