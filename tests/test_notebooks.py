"""The notebooks as they are kept: cells that draw show their pictures, and no cell shows an error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
DRAWS = re.compile(r"(\bplot\w*\(|\bplt\.|\bfigure\b)")


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def draws(cell: dict[str, Any]) -> bool:
    lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith(("import ", "from "))]
    return any(DRAWS.search(line) for line in lines)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_that_draw_show_a_picture(notebook: Path) -> None:
    drawing = [cell for cell in code_cells(notebook) if draws(cell)]
    assert drawing
    for cell in drawing:
        shown = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        assert "image/png" in shown, "".join(cell["source"])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_cells_were_run_without_errors(notebook: Path) -> None:
    for cell in code_cells(notebook):
        assert cell["execution_count"], "".join(cell["source"])
        assert all(output["output_type"] != "error" for output in cell["outputs"])
