"""An iteration under two schedules, and one that does not fit."""

from __future__ import annotations

import pytest

from offsim.api import Result, simulate


@pytest.fixture(scope="session")
def dos() -> Result:
    return simulate("dos_20b_4xh100")


@pytest.fixture(scope="session")
def baseline() -> Result:
    return simulate("zero3_20b_4xh100")


@pytest.fixture(scope="session")
def too_large() -> Result:
    return simulate("zero3_20b_4xh100", ["training.micro_batch=64", "training.global_batch=256"])
