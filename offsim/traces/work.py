"""How much an operator or collective worked on, where a trace of Kineto says it.

Shapes are in traces recorded with `record_shapes=True`, messages of collectives in those of PyTorch 2.2 and later.
Lists of more than 30 tensors are recorded as empty ones: how much these are is not known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

MATRIX, ADAM, ELEMENTWISE, COLLECTIVE = "matrix product", "adam", "elementwise", "collective"
_LARGEST = 1e18
"""More FLOPs, parameters or bytes of one operator are a slip."""
_DIMENSIONS = 8

_FACTORS = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::baddbmm": 1}
"""Operator -> position of its first factor."""
_HALF = ("c10::BFloat16", "c10::Half")
_ADAM = re.compile(r"^aten::_fused_adamw?_$")
_ELEMENTWISE = {"aten::add": 3, "aten::add_": 3, "aten::mul": 3, "aten::mul_": 3, "aten::copy_": 2}
"""Operator -> tensors that it reads or writes when it has two of them."""
_ITEM = {
    "float": 4, "bfloat16": 2, "half": 2, "double": 8, "int": 4, "long": 8, "byte": 1, "char": 1, "bool": 1,
    "unsigned char": 1, "signed char": 1, "long int": 8,
}  # fmt: skip
"""Bytes by data type."""
_ROUNDS = {"allreduce": 2, "allgather": 1, "reducescatter": 1}
"""Collective -> how often its message goes round the ring."""


class Work(NamedTuple):
    """FLOPs, parameters, bytes read and written, or bytes that each rank sends round a ring."""

    quantity: str
    amount: float
    sides: tuple[int, ...] = ()
    """Of matrix products: batch, m, k, n."""
    ranks: tuple[int, int] = (0, 0)
    """Of collectives: the lowest and highest rank that takes part."""
    rounds: int = 1
    """Of collectives: how often the message goes round the ring."""


def work_of(kind: str, name: str, args: Mapping[str, Any]) -> Work | None:
    """The work of an event; None where its arguments do not tell it."""
    work = None
    if kind == "kernel" and "In msg nelems" in args:
        work = _collective(args)
    elif kind == "cpu_op" and "Input Dims" in args:
        dims, types = args["Input Dims"], args.get("Input type")
        if not isinstance(dims, list) or not isinstance(types, list) or len(types) != len(dims):
            return None
        if name in _FACTORS:
            work = _matrix_product(_FACTORS[name], dims, types)
        elif _ADAM.match(name):
            work = _adam(dims)
        elif name in _ELEMENTWISE:
            work = _elementwise(_ELEMENTWISE[name], dims, types, args.get("Input Strides"))
    return work if work and 0 < work.amount <= _LARGEST else None


def _matrix_product(first: int, dims: list[Any], types: list[Any]) -> Work | None:
    if types[first : first + 2] not in [[half, half] for half in _HALF]:
        return None
    a, b = (_shape(factor) for factor in dims[first : first + 2])
    if not len(a) == len(b) in (2, 3) or a[-1] != b[-2] or a[:-2] != b[:-2]:
        return None
    sides = (math.prod(a[:-2]), a[-2], a[-1], b[-1])
    return Work(MATRIX, 2.0 * math.prod(sides), sides)


def _adam(dims: list[Any]) -> Work | None:
    parameters = dims[0] if dims and isinstance(dims[0], list) else []
    shapes = [_shape(tensor) for tensor in parameters]
    return Work(ADAM, float(sum(math.prod(shape) for shape in shapes if shape))) if shapes and all(shapes) else None


def _elementwise(tensors: int, dims: list[Any], types: list[Any], strides: Any) -> Work | None:
    """Operators on two dense tensors of one shape: what is broadcast, is read fewer times than it has elements."""
    if not isinstance(strides, list) or len(strides) < 2 or len(dims) < 2:
        return None
    a, b = _shape(dims[0]), _shape(dims[1])
    items = [_item(kind) for kind in types[:2]]
    if not a or a != b or not all(items) or not all(_dense(a, _shape(stride)) for stride in strides[:2]):
        return None
    if tensors == 3 and types[0] != types[1]:
        return None
    return Work(ELEMENTWISE, float(math.prod(a) * (sum(items) + items[0] * (tensors - 2))))


def _collective(args: Mapping[str, Any]) -> Work | None:
    name = str(args.get("Collective name", "")).replace("_", "").lower()
    rounds = next((count for known, count in _ROUNDS.items() if known in name), 0)
    elements = [_whole(args.get(key)) for key in ("In msg nelems", "Out msg nelems")]
    group, item = _whole(args.get("Group size")), _item(args.get("dtype"))
    ranks = [int(rank) for rank in re.findall(r"\d{1,9}", str(args.get("Process Group Ranks", ""))[:10_000])]
    if not rounds or group < 2 or not item or not ranks:
        return None
    sent = rounds * max(elements) * item * (group - 1) / group
    return Work(COLLECTIVE, sent, ranks=(min(ranks), max(ranks)), rounds=rounds)


def _shape(value: Any) -> list[int]:
    """A tensor's dimensions or strides; empty for what is none."""
    tensor = isinstance(value, list) and len(value) <= _DIMENSIONS
    return value if tensor and all(type(side) is int and 0 <= side <= _LARGEST for side in value) else []


def _dense(shape: list[int], strides: list[int]) -> bool:
    if len(shape) != len(strides):
        return False
    last = sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    return last + 1 == math.prod(shape)


def _item(kind: Any) -> int:
    return _ITEM.get(kind.removeprefix("c10::").lower(), 0) if isinstance(kind, str) else 0


def _whole(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= _LARGEST else 0
