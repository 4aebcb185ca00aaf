"""The output folder: rows are on disk before the next measurement begins, so that a stopped run can go on."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from .machine import identity, read_text
from .measurement import Key, key_of


class HarnessError(Exception):
    """What the user has to change; the message says it in one line."""


class ResultFolder:
    """Holds one measurement of one machine."""

    def __init__(self, folder: Path, machine: dict[str, Any]) -> None:
        self.folder = folder
        self.microbenchmarks = folder / "microbenchmarks.jsonl"
        self.training = folder / "training.csv"
        self.traces = folder / "traces"
        description = folder / "machine.json"
        try:
            self.traces.mkdir(parents=True, exist_ok=True)
            self.resumes = description.exists()
            if self.resumes:
                self._check_same_machine(description, machine)
            else:
                part = description.with_name("machine.json.part")
                part.unlink(missing_ok=True)
                append(part, json.dumps(machine, indent=2) + "\n")
                part.replace(description)
            for path in (self.microbenchmarks, self.training):
                drop_half_a_line(path)
        except OSError as error:
            raise HarnessError(f"--out {folder}: {error.strerror or error}") from None

    def _check_same_machine(self, description: Path, machine: dict[str, Any]) -> None:
        try:
            before = identity(json.loads(description.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError):
            raise HarnessError(f"{description} is damaged: give another folder") from None
        for name, value in identity(machine).items():
            if before[name] != value:
                shown = f"{name} {before[name]}, now {value}"
                raise HarnessError(f"{self.folder} holds results of another measurement ({shown}): give another folder")

    def measured(self) -> set[Key]:
        """Return the keys of the microbenchmarks that are done."""
        return {key_of(json.loads(line)) for line in read_text(self.microbenchmarks).splitlines()}

    def trained(self) -> set[str]:
        """Return the names of the schedules that are done."""
        return {row["schedule"] for row in csv.DictReader(io.StringIO(read_text(self.training)))}

    def add_measurement(self, row: dict[str, Any]) -> None:
        """Append a row to `microbenchmarks.jsonl`."""
        append(self.microbenchmarks, json.dumps(row) + "\n")

    def add_training(self, row: dict[str, Any]) -> None:
        """Append a row to `training.csv`, after the header where it is the first."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if not self.training.exists() or not self.training.stat().st_size:
            writer.writeheader()
        writer.writerow(row)
        append(self.training, text.getvalue())


def append(path: Path, text: str) -> None:
    """Append to a file; return when it is on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def drop_half_a_line(path: Path) -> None:
    """Remove a last line that a killed run did not finish."""
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
