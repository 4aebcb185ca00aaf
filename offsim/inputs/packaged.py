"""The YAML files that come with offsim: hardware profiles and example scenarios."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
SOURCE = "source"
"""In place of a version where none is installed."""


@cache
def packaged_folder(name: str) -> Path:
    """Return the folder `hardware_profiles` or `scenarios`: in an installed package, else at the repository's top."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def packaged_files(folder: str) -> dict[str, Path]:
    """Return stem -> path of the folder's YAML files, in order of name."""
    return {path.stem: path for path in sorted(packaged_folder(folder).glob("*.yaml"))}


def packaged_file(folder: str, name: str) -> Path | None:
    """Return the file that `packaged_files(folder)` has under `name`, if any, without reading the folder."""
    path = packaged_folder(folder) / f"{name}.yaml"
    return path if os.path.isfile(path) else None  # false, not an error, for names no file can have


def is_path(name: str) -> bool:
    """Tell a path from the name of a packaged file."""
    return "/" in name or "\\" in name or name.endswith((".yaml", ".yml"))


@cache
def offsim_version() -> str:
    """Return the version of the installed package; SOURCE where it runs from its source tree alone."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("offsim")
    except PackageNotFoundError:
        return SOURCE
