"""Settings of all tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from matplotlib.figure import Figure

from offsim.cli import main
from tests.views import drawn

# How long an example takes says how busy the machine is, not whether the code is right. Continuous integration tries
# the same examples each time; elsewhere each run tries others.
settings.register_profile("offsim", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("offsim")

Complaint = Callable[..., str]


@pytest.fixture
def complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Run a command that must fail with one message and leave the test's folder as it is; return the message."""

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def complaint(*arguments: object) -> str:
        capsys.readouterr()
        before = files()
        assert main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert printed.err.startswith("Error: ")
        assert files() == before
        return printed.err.removeprefix("Error: ").removesuffix("\n")

    return complaint


@pytest.fixture(scope="session")
def overlaps() -> Callable[[Figure], list[tuple[str, str]]]:
    """Pairs of texts of a figure that overlap, and texts that leave it."""
    return drawn.overlaps
