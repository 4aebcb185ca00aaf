"""Records of the tables by their numbers, in compiled code."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import from_dtype, types
from numba.core.cgutils import get_record_member
from numba.extending import intrinsic

from offsim.tape.records import STATE, TABLES


def _rows_of(name: str) -> Any:
    """The function that gives a table's record by its number: of the state, so that calls pass nothing else."""
    where, size = STATE.fields[f"{name}_at"][1], TABLES[name].itemsize  # type: ignore[index]
    row = from_dtype(TABLES[name])

    @intrinsic
    def record(typing_context: Any, state: Any, number: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)
            table = builder.load(get_record_member(builder, arguments[0], where, word))  # type: ignore[no-untyped-call]
            at = builder.add(table, builder.mul(arguments[1], ir.Constant(word, size)))
            return builder.inttoptr(at, context.get_value_type(row))

        return row(state, types.int64), code

    return record


operations, after, uses, needs, changes = map(_rows_of, ("operations", "after", "uses", "needs", "changes"))
resources, gates, tiers, occupants = map(_rows_of, ("resources", "gates", "tiers", "occupants"))
meetings, tasks, commands, streams = map(_rows_of, ("meetings", "tasks", "commands", "streams"))
ranks, begins, marks, edges, ends = map(_rows_of, ("ranks", "begins", "marks", "edges", "ends"))
rows, changed, slowdowns = map(_rows_of, ("rows", "changed", "slowdowns"))
boundaries, left, held, since = map(_rows_of, ("boundaries", "left", "held", "since"))
about, phases, lost_to, parts, spent = map(_rows_of, ("about", "phases", "lost_to", "parts", "spent"))
