"""Simulations that are too large are refused, before or while they run, unless an argument raises the bound."""

from __future__ import annotations

import pytest

from offsim.api import simulate
from offsim.cli import main
from offsim.inputs.errors import InputError


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("model.layers=100000", "about 1,300,000 operations (100,000 layers x 1 micro-steps x 1 simulated ranks)"),
        ("training.global_batch=4000", "about 520,000 operations (40 layers x 1,000 micro-steps x 1 simulated ranks)"),
    ],
)
def test_what_is_too_large_is_refused_before_it_runs(change: str, found: str) -> None:
    with pytest.raises(InputError) as caught:
        simulate("dos_20b_4xh100", [change])
    assert found in str(caught.value)
    assert "expected at most 500,000" in str(caught.value)
    assert "--max-operations" in str(caught.value)


def test_operations_are_counted_while_it_runs() -> None:
    size = len(simulate("dos_20b_4xh100").run.engine.operations)
    with pytest.raises(InputError, match=rf"iteration \d of deep_optimizer_states has begun its {size:,}th operation"):
        simulate("dos_20b_4xh100", max_operations=size - 1)
    assert simulate("dos_20b_4xh100", max_operations=size).fits


def test_the_command_line_raises_the_bound_for_its_workers_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OFFSIM_MAX_OPERATIONS", "600")
    with pytest.raises(InputError, match="expected at most 600"):
        simulate("dos_20b_4xh100")
    assert main(["--max-operations", "1e6", "run", "dos_20b_4xh100"]) == 0
    assert simulate("dos_20b_4xh100").fits
    assert main(["--max-operations", "many", "run", "dos_20b_4xh100"]) == 2
    assert "found 'many', expected a number of operations" in capsys.readouterr().err
