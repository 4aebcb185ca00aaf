"""The shipped YAML files: hardware profiles and example scenarios."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
SOURCE = "source"
"""The version of a source tree that is not installed."""


@cache
def packaged_folder(name: str) -> Path:
    """Return the folder `hardware_profiles` or `scenarios`, of the installed package or of the repository."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def packaged_files(folder: str) -> dict[str, Path]:
    """Return stem -> path of the folder's YAML files, sorted by name."""
    return {path.stem: path for path in sorted(packaged_folder(folder).glob("*.yaml"))}


def packaged_file(folder: str, name: str) -> Path | None:
    """Return the file of `packaged_files(folder)` with this name, if any, without listing the folder."""
    path = packaged_folder(folder) / f"{name}.yaml"
    return path if os.path.isfile(path) else None  # false, not an error, for names no file can have


def is_path(name: str) -> bool:
    """Whether `name` is a path rather than the name of a shipped file."""
    return "/" in name or "\\" in name or name.endswith((".yaml", ".yml"))


@cache
def offsim_version() -> str:
    """Return the version of the installed package; SOURCE if it runs from the source tree."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("offsim")
    except PackageNotFoundError:
        return SOURCE
