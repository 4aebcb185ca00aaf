"""Numbers that remember how they were computed, so that the same formulas can be computed from other values.

A program that is run with `Quantity` in place of floats leaves the formulas of all its results. Where it compares
quantities, or makes plain numbers of them, what it did depends on the outcome: that is noted as a condition.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, final

Number = float | int


class Formulas:
    """All quantities that were computed from the same inputs, each formula once."""

    def __init__(self, inputs: Sequence[float]) -> None:
        self.values: list[float] = list(inputs)
        """Of each quantity, inputs first, then as computed; constants in between."""
        self.steps: list[tuple[int, Callable[..., float], int, int]] = []
        """Number of a quantity, and what it is computed by, of which two."""
        self.conditions: dict[tuple[Callable[..., Any], int, int], Any] = {}
        """What was asked of which quantities, and the answer."""
        self._known: dict[tuple[Callable[..., float], int, int], Quantity] = {}
        self._constants: dict[tuple[type, Number], int] = {}
        self.inputs = [Quantity(self, number) for number in range(len(inputs))]

    def number(self, value: Quantity | Number) -> int:
        """The number of a quantity or constant."""
        if type(value) is Quantity:
            return value.number
        number = self._constants.get(key := (type(value), value))
        if number is None:
            number = self._constants[key] = self._add(value)
        return number

    def computed(self, function: Callable[..., float], one: Quantity | Number, other: Quantity | Number) -> Quantity:
        """The quantity that is `function(one, other)`."""
        key = function, self.number(one), self.number(other)
        quantity = self._known.get(key)
        if quantity is None:
            number = self._add(function(self.values[key[1]], self.values[key[2]]))
            self.steps.append((number, *key))
            quantity = self._known[key] = Quantity(self, number)
        return quantity

    def asked(self, function: Callable[..., Any], one: Quantity, other: Quantity | Number = 0) -> Any:
        """The answer that `function(one, other)` gives, which is a condition from now on."""
        key = function, one.number, self.number(other)
        answer = self.conditions.get(key)
        if answer is None:
            answer = self.conditions[key] = function(self.values[key[1]], self.values[key[2]])
        return answer

    def _add(self, value: float) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def of(self, inputs: Sequence[float]) -> list[float] | None:
        """All quantities from other inputs; None where a condition does not hold."""
        values = self.values.copy()
        values[: len(inputs)] = inputs
        try:
            for number, function, one, other in self.steps:
                values[number] = function(values[one], values[other])
            for (asked, one, other), answer in self.conditions.items():
                if asked(values[one], values[other]) != answer:
                    return None
        except (ArithmeticError, ValueError):  # ValueError: no whole number is near NaN
            return None
        return values


def _first(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the first of two arguments."""
    return lambda value, _: function(value)


_bool, _float, _floor, _ceil, _round, _trunc = (
    _first(each) for each in (bool, float, math.floor, math.ceil, round, math.trunc)
)
_negative, _absolute = _first(operator.neg), _first(abs)


def _arithmetic(function: Callable[..., float]) -> tuple[Callable[..., Quantity], Callable[..., Quantity]]:
    """An operator's method, and that for operands the other way round."""

    def method(self: Quantity, other: Any) -> Quantity:
        return self.formulas.computed(function, self, other)

    def swapped(self: Quantity, other: Any) -> Quantity:
        return self.formulas.computed(function, other, self)

    return method, swapped


def _comparison(function: Callable[..., bool]) -> Callable[..., bool]:
    return lambda self, other: bool(self.formulas.asked(function, self, other))


@final
class Quantity:
    """A number with its formula. Like a float; equal ones are equal as quantities only if computed alike."""

    __slots__ = ("formulas", "number")

    def __init__(self, formulas: Formulas, number: int) -> None:
        self.formulas = formulas
        self.number = number

    @property
    def value(self) -> float:
        """The number, as it was computed."""
        return self.formulas.values[self.number]

    __add__, __radd__ = _arithmetic(operator.add)
    __sub__, __rsub__ = _arithmetic(operator.sub)
    __mul__, __rmul__ = _arithmetic(operator.mul)
    __truediv__, __rtruediv__ = _arithmetic(operator.truediv)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)

    def __floordiv__(self, other: Any) -> int:
        return int(self.formulas.asked(operator.floordiv, self, other))

    def __neg__(self) -> Quantity:
        return self.formulas.computed(_negative, self, 0)

    def __abs__(self) -> Quantity:
        return self.formulas.computed(_absolute, self, 0)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Quantity | float | int):
            return bool(self.formulas.asked(operator.eq, self, other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash((id(self.formulas), self.number))

    def __bool__(self) -> bool:
        return bool(self.formulas.asked(_bool, self))

    def __float__(self) -> float:
        return float(self.formulas.asked(_float, self))

    def __int__(self) -> int:
        return int(self.formulas.asked(_trunc, self))

    def __floor__(self) -> int:
        return int(self.formulas.asked(_floor, self))

    def __ceil__(self) -> int:
        return int(self.formulas.asked(_ceil, self))

    def __round__(self, digits: int | None = None) -> Any:
        return round(float(self), digits) if digits else self.formulas.asked(_round, self)

    def __trunc__(self) -> int:
        return int(self)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __repr__(self) -> str:
        return repr(self.value)
