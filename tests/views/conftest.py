"""An iteration under two schedules."""

from __future__ import annotations

import pytest

from offsim.api import Result, simulate


@pytest.fixture(scope="session")
def dos() -> Result:
    return simulate("dos_20b_4xh100")


@pytest.fixture(scope="session")
def baseline() -> Result:
    return simulate("zero3_20b_4xh100")
