"""Fixtures of views: a made-up iteration under three schedules, and what a drawn figure says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from made_up_iteration import Tables, build
from matplotlib.figure import Figure


@pytest.fixture(scope="session")
def dos() -> Tables:
    return build("deep_optimizer_states")


@pytest.fixture(scope="session")
def baseline() -> Tables:
    return build("zero3_offload")


@pytest.fixture(scope="session")
def async_grads() -> Tables:
    return build("zero3_offload_async_grads")


@pytest.fixture(scope="session")
def texts() -> Callable[[Figure, str], list[str]]:
    """Texts of a figure's axes by what they are for."""
    return lambda figure, gid: [t.get_text() for axes in figure.axes for t in axes.texts if t.get_gid() == gid]
