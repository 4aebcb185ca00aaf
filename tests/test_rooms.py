"""The package's rooms import from those below them only, and only schedulers name options of schedulers."""

from __future__ import annotations

import re
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from offsim.programs.options import declared
from offsim.schedulers.registry import available_schedulers, find_scheduler

ROOT = Path(__file__).parents[1]

OPTIONS_NAMED = {
    # keys of DeepSpeed's and accelerate's own, whose names options have taken
    "imports/deepspeed_keys.py": {
        "cpuadam_cores_perc",
        "gradient_clipping",
        "overlap_comm",
        "pipeline_read",
        "pipeline_write",
    },
    "imports/fsdp_keys.py": {"reshard_after_forward"},
    # the same schedules on PyTorch, for machines without offsim: each has its own options
    "calibration/harness/zero3_offload.py": {"cpu_ratio"},
    "calibration/harness/deep_optimizer_states.py": {"update_stride", "dos_build"},
}
"""File -> the options and their columns that it names all the same."""


def test_rooms_import_from_below(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == EXIT_STATUS_SUCCESS


def test_only_schedulers_name_options():
    options = [option for name in available_schedulers() for option in declared(find_scheduler(name).Options)]
    names = {name for option in options for name in (option.name, option.column)}
    # a word of plain English is an option's name only where it is said of options
    patterns = {
        name: re.compile(rf"\b{name}\b" if "_" in name else rf"""\b(?:options|scheduler)(?:\.|\[["']){name}\b""")
        for name in names
    }
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "offsim").rglob("*")):
        file = path.relative_to(ROOT / "offsim")
        if path.suffix in (".py", ".jinja") and file.parts[0] != "schedulers":
            text = path.read_text(encoding="utf-8")
            if named := {name for name, pattern in patterns.items() if pattern.search(text)}:
                found[file.as_posix()] = named
    assert found == OPTIONS_NAMED
