"""The guard: a benchmark fails where its ratio is more than 30 % above the committed one, in ratios.json."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path

import pytest
from quantiphy import Quantity

from benchmarks.measure import TIMEOUT, Act, Check, Measured, Yardstick, measure

RATIOS = Path(__file__).with_name("ratios.json")
ALLOWED = 1.3
SECONDS, PATIENT_SECONDS, WRITING_SECONDS = 1.0, 20.0, 10.0
"""How long to measure; longer where the ratio is too high so far: noise only lengthens, so more repeats decide."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-ratios", action="store_true", help="write the ratios found to benchmarks/ratios.json")


@pytest.fixture
def check(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Check:
    """Measures what it is given, and compares the ratio of a piece with the one committed for the test."""
    name = request.node.name.removeprefix("test_")
    ratios = json.loads(RATIOS.read_text(encoding="utf-8"))
    write = request.config.getoption("--write-ratios")
    limit = ALLOWED * ratios.get(name, 0.0)

    def enough(ratio: float, seconds: float) -> bool:
        if write:
            return seconds > WRITING_SECONDS
        return seconds > (SECONDS if ratio <= limit else PATIENT_SECONDS)

    def check(act: Act, pieces: int = 1, yardstick: Yardstick = TIMEOUT) -> Measured:
        if not write and name not in ratios:
            pytest.fail(f"{name}: expected a ratio in {RATIOS.name}, which --write-ratios writes", pytrace=False)
        found = measure(act, pieces, yardstick, enough)
        cpu, wall = (Quantity(seconds, "s").render(prec=2) for seconds in (found.cpu_s, found.wall_s))
        figures = f"{found.ratio:,.1f} {yardstick.name} (committed: {ratios.get(name, nan):,})"
        with capsys.disabled():
            print(f"\n{name}: {cpu} on a core ({1 / found.cpu_s:,.1f}/s), {wall} by the wall, {figures}", end=" ")
        if write:
            RATIOS.write_text(
                json.dumps({**ratios, name: float(f"{found.ratio:.3g}")}, indent=2, sort_keys=True) + "\n"
            )
        elif found.ratio > limit:
            pytest.fail(f"{name}: found {figures}, expected at most {limit:,.1f}, 30 % more", pytrace=False)
        return found

    return check
