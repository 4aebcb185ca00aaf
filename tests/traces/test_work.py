"""How much operators and collectives worked on is taken from what the trace says, and not guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.traces import read_trace
from offsim.traces.work import ADAM, COLLECTIVE, ELEMENTWISE, MATRIX, Work, work_of
from tests.calibration.trace_files import REAL, needs_real_traces, write_kineto

HALF = ["c10::BFloat16", "c10::BFloat16"]
GATHER = {
    "Collective name": "_allgather_base", "In msg nelems": 250, "Out msg nelems": 1000, "Group size": 4,
    "dtype": "BFloat16", "Process Group Ranks": "[4, 5, 6, 7]",
}  # fmt: skip


def operator(name: str, dims: Any, types: Any, **args: Any) -> Work | None:
    return work_of("cpu_op", name, {"Input Dims": dims, "Input type": types, **args})


@pytest.mark.parametrize(
    ("name", "dims", "sides"),
    [
        ("aten::mm", [[2, 3], [3, 4]], (1, 2, 3, 4)),
        ("aten::bmm", [[5, 2, 3], [5, 3, 4]], (5, 2, 3, 4)),
        ("aten::addmm", [[4], [2, 3], [3, 4], [], []], (1, 2, 3, 4)),
        ("aten::baddbmm", [[5, 2, 4], [5, 2, 3], [5, 3, 4], [], []], (5, 2, 3, 4)),
    ],
)
def test_products_of_half_precision(name: str, dims: list[Any], sides: tuple[int, ...]) -> None:
    flops = 2.0 * sides[0] * sides[1] * sides[2] * sides[3]
    for kind in ("c10::BFloat16", "c10::Half"):
        assert operator(name, dims, [kind] * len(dims)) == Work(MATRIX, flops, sides)
    assert operator(name, dims, ["float"] * len(dims)) is None
    assert operator(name, [], []) is None


def test_adam_of_known_tensors() -> None:
    assert operator("aten::_fused_adamw_", [[[10, 2], [5]], []], ["TensorList"] * 2) == Work(ADAM, 25.0)
    assert operator("aten::_fused_adam_", [[[7]]], ["TensorList"]) == Work(ADAM, 7.0)
    for dims in ([[]], [[[10], []]], [[[10], None]]):  # too many tensors to be recorded, or a scalar among them
        assert operator("aten::_fused_adamw_", dims, ["TensorList"]) is None


def test_elementwise_work_on_dense_tensors() -> None:
    dense, transposed, expanded = [20, 1], [1, 10], [0, 1]

    def bytes_of(name: str, types: list[str], *strides: list[int]) -> float:
        work = operator(name, [[10, 20]] * 2, types, **{"Input Strides": list(strides)} if strides else {})
        return work.amount if work and work.quantity == ELEMENTWISE else 0.0

    assert bytes_of("aten::add", ["float"] * 2, dense, dense) == 200 * 12
    assert bytes_of("aten::mul_", HALF, dense, transposed) == 200 * 6
    assert bytes_of("aten::copy_", ["c10::BFloat16", "float"], dense, dense) == 200 * 6
    assert bytes_of("aten::copy_", ["float"] * 2, dense, expanded) == 0
    assert bytes_of("aten::add", ["c10::BFloat16", "float"], dense, dense) == 0
    assert bytes_of("aten::add", ["float"] * 2) == 0


def test_messages_of_ring_collectives() -> None:
    def work(**changes: Any) -> Work | None:
        return work_of("kernel", "nccl", GATHER | changes)

    assert work() == Work(COLLECTIVE, 1000 * 2 * 3 / 4, ranks=(4, 7), rounds=1)
    scattered = {"Collective name": "reduce_scatter_tensor", "In msg nelems": 1000, "Out msg nelems": 250}
    assert work(**scattered) == work()
    reduced = {"Collective name": "allreduce", "In msg nelems": 1000}
    assert work(**reduced) == Work(COLLECTIVE, 2 * 1000 * 2 * 3 / 4, ranks=(4, 7), rounds=2)
    unknown = [{"Collective name": "broadcast"}, {"Group size": 1}, {"dtype": "Float8"}, {"Process Group Ranks": ""}]
    assert [work(**change) for change in unknown] == [None] * 4


NAMES = ["aten::mm", "aten::addmm", "aten::bmm", "aten::_fused_adam_", "aten::add", "aten::copy_"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([*HALF, "float"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@given(st.sampled_from(NAMES), JSON, JSON, JSON)
def test_no_arguments_are_an_error(name: str, dims: Any, types: Any, strides: Any) -> None:
    assert operator(name, dims, types, **{"Input Strides": strides}) is None or isinstance(dims, list)
    changed = {key: dims for key in GATHER if key != "Collective name"}
    assert work_of("kernel", "nccl", GATHER | changed) is None or isinstance(dims, int)


@given(st.lists(st.integers(0, 10**30), max_size=40))
def test_no_shape_is_too_large(sides: list[int]) -> None:
    for name in NAMES:
        work = operator(name, [sides, sides, sides], HALF * 2, **{"Input Strides": [sides, sides]})
        assert work is None or 0 < work.amount <= 1e18
    work = operator("aten::_fused_adam_", [[sides]], ["TensorList"])
    assert work is None or 0 < work.amount <= 1e18


def test_work_stays_with_its_row(tmp_path: Path) -> None:
    events = [
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 9, "tid": 1, "ts": 100 - at, "dur": 1,
         "args": {"Input Dims": [[2, 3], [3, at]], "Input type": HALF}}
        for at in range(1, 50)
    ]  # fmt: skip
    trace = read_trace(write_kineto(tmp_path / "trace.json", events))
    assert [trace.works[row].sides[3] for row in range(49)] == list(range(49, 0, -1))


@needs_real_traces
def test_what_real_traces_say() -> None:
    products = read_trace(REAL / "tracelens_h100_qwen0.5b_prefill.json.gz").works.values()
    known = {work.sides: work.amount for work in products if work.quantity == MATRIX}
    assert known[1, 8944, 1024, 2816] == 2.0 * 8944 * 1024 * 2816
    messages = read_trace(REAL / "hta_a100_nccl_args.json.gz").works.values()
    assert [work.ranks for work in messages] == [(0, 1)] * 15
    assert max(work.amount for work in messages) == 7875584 * 4
