"""The harness as one file: a zip archive that Python runs on machines where offsim is not installed."""

from __future__ import annotations

import io
import zipapp
from pathlib import Path

from offsim.inputs.files import atomic_write

_PACKAGE = Path(__file__).parent / "harness"


def write_harness(path: Path) -> None:
    """Write the archive: `python harness.pyz --out results` runs it."""
    archive = io.BytesIO()
    zipapp.create_archive(
        _PACKAGE.parent,
        archive,
        main="harness.command:main",
        filter=lambda file: file.parts[0] == _PACKAGE.name and file.suffix == ".py",
    )
    with atomic_write(path) as file:
        file.write(archive.getvalue())
