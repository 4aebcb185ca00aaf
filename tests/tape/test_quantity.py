"""Formulas against the same program run with plain floats."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.tape.quantity import Formulas, Quantity

OPERATORS: list[Callable[[Any, Any], Any]] = [operator.add, operator.sub, operator.mul, operator.truediv]
DECISIONS: list[Callable[[Any, Any], Any]] = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq]
VALUES = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(-1e6, 1e6))
CONSTANTS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 2.0, 1e9]))

Line = tuple[str, int, Any]
"""How a program goes on: by which function, of which earlier number, and another one or a constant."""


@st.composite
def programs(draw: st.DrawFn) -> list[Line]:
    kinds = [each.__name__ for each in OPERATORS + DECISIONS] + ["neg", "abs", "max", "floor", "round", "bool", "rsub"]
    return draw(st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 20), CONSTANTS | st.none()), max_size=15))


def ran(program: Sequence[Line], inputs: Sequence[Any]) -> list[Any]:
    """What a program computes; where it decides, all that follows depends on the outcome."""
    known = {each.__name__: each for each in OPERATORS + DECISIONS}
    numbers = list(inputs)
    for what, at, constant in program:
        one = numbers[at % len(numbers)]
        other = numbers[(at + 1) % len(numbers)] if constant is None else constant
        if what in known:
            found = known[what](one, other)
            numbers.append((one if found else other) if isinstance(found, bool) else found)
        elif what == "rsub":
            numbers.append(1.0 - one)
        elif what == "max":
            numbers.append(max(one, other))
        elif what == "bool":
            numbers.append(one if one else other)
        elif what in ("floor", "round"):
            numbers.append(numbers[(math.floor(one) if what == "floor" else round(one)) % len(numbers)])
        else:
            numbers.append(getattr(operator, what)(one))
    return numbers


def floats(inputs: Sequence[float], program: Sequence[Line]) -> list[float] | None:
    """As plain floats; None where that is an error."""
    try:
        return [float(number) for number in ran(program, inputs)]
    except (ArithmeticError, ValueError):
        return None


@given(st.lists(VALUES, min_size=3, max_size=3), st.lists(VALUES, min_size=3, max_size=3), programs())
def test_formulas_give_what_the_program_does(first: list[float], second: list[float], program: list[Line]) -> None:
    formulas = Formulas(first)
    try:
        results = [formulas.number(each) for each in ran(program, formulas.inputs)]
    except (ArithmeticError, ValueError):
        assert floats(first, program) is None
        return
    for inputs in (first, second):
        values, plain = formulas.of(inputs), floats(inputs, program)
        if values is None:
            assert inputs is second  # what held once, holds again
        else:
            assert plain is not None
            assert [values[number] for number in results] == pytest.approx(plain, rel=0, abs=0, nan_ok=True)


def test_equal_formulas_are_computed_once() -> None:
    formulas = Formulas([2.0, 3.0])
    one, other = formulas.inputs
    assert (one * other).number == (one * other).number
    assert len(formulas.steps) == 1
    assert (one + 1).number != (one + 1.0).number  # a count stays a count


@pytest.mark.parametrize(
    ("decide", "same", "another"),
    [
        (lambda q: q < 5.0, [1.0, 4.9], [5.0, 7.0]),
        (lambda q: q >= 5.0, [1.0, 4.9], [5.0]),
        (lambda q: q == 3.0, [3.0], [3.1]),
        (lambda q: q != 3.0, [3.0], [3.1]),
        (bool, [1.0, -2.0], [0.0]),
        (int, [3.0, 3.9], [4.0, 2.9]),
        (math.floor, [3.0, 3.9], [4.0, 2.9]),
        (math.ceil, [3.0, 2.1], [3.1, 2.0]),
        (math.trunc, [3.9], [4.0]),
        (round, [2.6, 3.4], [3.6, 2.4]),
        (lambda q: round(q, 1), [3.0], [3.01]),
        (lambda q: q // 2, [3.9, 2.0], [4.0, 1.9]),
        (float, [3.0], [3.0000001]),
        (math.sqrt, [3.0], [3.0000001]),
        (lambda q: min(q, 5.0), [4.0], [5.5]),
        (lambda q: max(0, q), [4.0], [-1.0]),
        (lambda q: list(range(int(q))), [3.5], [4.5]),
    ],
)
def test_a_decision_is_a_condition(decide: Callable[[Any], Any], same: list[float], another: list[float]) -> None:
    formulas = Formulas([3.0])
    (quantity,) = formulas.inputs
    answer, plain = decide(quantity), decide(3.0)
    assert (answer.value if isinstance(answer, Quantity) else answer) == plain
    assert all(formulas.of([value]) is not None for value in same)
    assert all(formulas.of([value]) is None for value in another)


def test_what_is_no_number_for_some_inputs_is_another_course() -> None:
    formulas = Formulas([2.0, 3.0])
    one, other = formulas.inputs
    quotient = one / other
    assert formulas.of([1.0, 0.0]) is None  # division by zero
    assert formulas.of([0.0, 3.0]) is not None
    assert math.floor(quotient - one * other) == -6
    assert formulas.of([1e308 * 10, 1.0]) is None  # the floor of infinity less infinity


def test_division_by_zero_is_an_error_as_of_floats() -> None:
    (quantity,) = Formulas([0.0]).inputs
    with pytest.raises(ZeroDivisionError):
        1.0 / quantity


def test_what_has_no_formula_is_an_error() -> None:
    (quantity,) = Formulas([2.0]).inputs
    with pytest.raises(TypeError):
        quantity**2
    assert (quantity == "2.0") is False


def test_text_is_that_of_the_number() -> None:
    (quantity,) = Formulas([2.5]).inputs
    assert (f"{quantity:.2f}", repr(quantity), {quantity: 1}[quantity]) == ("2.50", "2.5", 1)
