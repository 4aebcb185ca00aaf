"""The table of a sweep: a row per point in the order of the points, as Parquet, written and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from offsim.inputs.errors import InputError
from offsim.inputs.files import atomic_write
from offsim.results.result import PHASES, SPEEDS
from offsim.study.sweeps.axes import Cell, Sweep
from offsim.study.sweeps.store import STORE, TABLE, Store, damaged

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
    **dict.fromkeys(SPEEDS, "double"),
    "gpu_peak_bytes": "double",
    "gpu_capacity_bytes": "double",
    "host_peak_bytes": "double",
    "host_capacity_bytes": "double",
    "limited_by": "string",
    **{f"{phase}_limited_by": "string" for phase in PHASES},
    "limits_s": "string",
    "notes": "string",
    "verdict": "string",
    "error": "string",
}
"""Columns of outcomes and their types, after `point_id` and the axes'."""


def write_table(folder: Path, sweep: Sweep, ids: Iterable[bytes], store: Store) -> None:
    """Write `results.parquet`, in the order of the points; `ids` are theirs."""
    import pyarrow as pa
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    axes = {
        column: _axis_type([row[place] for row in axis.cells])
        for axis in sweep.axes
        for place, column in enumerate(axis.columns)
    }
    # A figure has another name where an axis is called the same, as `hardware` may be.
    names = {figure: f"{figure}_name" if figure in axes else figure for figure in _FIGURES}
    types = {"point_id": "string", **axes, **{names[figure]: kind for figure, kind in _FIGURES.items()}}
    about = {"axes": sweep.columns, "sweep": sweep.content}
    schema = pa.schema(
        [pa.field(name, pa.type_for_alias(kind)) for name, kind in types.items()],
        metadata={"offsim": json.dumps(about, default=str)},
    )

    def rows() -> Iterator[bytes]:
        for key, position in zip(ids, sweep.positions(), strict=True):
            cells = {
                name: None if cell is None else _SHOWN_AS[axes[name]](cell)
                for name, cell in sweep.cells(position).items()
            }
            figures = _figures(orjson.loads(store[key]))
            row = {"point_id": key.hex(), **cells, **{names[figure]: value for figure, value in figures.items()}}
            yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

    remaining = rows()
    # From JSON, as tables of Python's values need pandas, which takes half a second to import.
    parse = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        with atomic_write(folder / TABLE) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            while group := b"".join(islice(remaining, ROWS_PER_GROUP)):
                read = pj.ReadOptions(use_threads=False, block_size=len(group))
                writer.write_table(pj.read_json(BytesIO(group), read, parse))
    except (AttributeError, TypeError, ValueError) as error:  # ValueError: of JSON, and of Arrow
        raise damaged(folder, f"an outcome is none of a simulation: {error}") from None


def _figures(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The figures' columns of an outcome."""
    if not {"fits", "error"} & outcome.keys():
        raise ValueError(f"found {', '.join(outcome) or 'nothing'}, expected figures or an error")
    limits = outcome.get("limits_s")
    return {
        **{figure: outcome.get(figure) for figure in _FIGURES},
        **{f"{phase}_limited_by": next(iter(spent), None) for phase, spent in (limits or {}).items()},
        "limits_s": None if limits is None else orjson.dumps(limits).decode(),
    }


def _axis_type(column: Sequence[Cell]) -> str:
    """Numbers and flags where all cells are, else text."""
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


def read_results(folder: str | Path) -> pd.DataFrame:
    """Read the table of a finished sweep; `attrs["axes"]` has the names of the axes' columns, `scenario` first.

    Raises InputError where the folder has none.
    """
    table, axes = read_table(folder)
    frame: pd.DataFrame = table.to_pandas()
    frame.attrs["axes"] = axes
    return frame


def read_table(folder: str | Path) -> tuple[pa.Table, list[str]]:
    """Return what `read_results` does as Arrow's table, without pandas, and the axes' columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(folder) / TABLE
    try:
        with pq.ParquetFile(path) as file:  # `pq.read_table` imports pandas
            table = file.read()
        axes = list(json.loads((table.schema.metadata or {})[b"offsim"])["axes"])
        table.select([*axes, "point_id", "fits", "error", "tokens_per_s"])
    except FileNotFoundError:
        if path.with_name(STORE).exists():
            raise InputError("the sweep is not finished; --resume continues it", str(folder)) from None
        raise InputError(f"found no {TABLE}, expected the results folder of a sweep", str(folder)) from None
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise InputError(f"cannot be read: {error}", str(path)) from None
    return table.replace_schema_metadata(None), axes
