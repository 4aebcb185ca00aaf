"""Scenarios that `offsim run` makes from DeepSpeed's configuration and a model's config.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offsim.cli.terminal import Style, wrapped
from offsim.inputs.document import dotted
from offsim.inputs.errors import InputError

if TYPE_CHECKING:
    from offsim.imports.draft import Draft, Entry
    from offsim.scenario import Scenario


@dataclass(frozen=True)
class Files:
    """What the command line gives in place of a scenario."""

    deepspeed: str | None = None
    model: str | None = None
    hardware: str | None = None
    gpus: int | None = None
    sequence: int | None = None

    @property
    def inputs(self) -> list[str]:
        """The files that are read."""
        return [path for path in (self.deepspeed, self.model) if path is not None]

    def check(self, source: str | None) -> None:
        """Raise InputError unless there is either a scenario or all that makes one."""
        given = [f"--{name}" for name, value in vars(self).items() if value is not None]
        if source is not None and given:
            raise InputError(f"found the scenario '{source}' and {given[0]}, expected one or the other")
        missing = [f"--{name}" for name in ("deepspeed", "model", "hardware") if getattr(self, name) is None]
        if source is None and missing:
            found = f"found {given[0]} without {' and '.join(missing)}" if given else "found no scenario"
            raise InputError(f"{found}, expected SCENARIO, or --deepspeed, --model and --hardware")


def scenario_of(source: str | None, files: Files, overrides: Sequence[str]) -> tuple[Scenario, Draft | None]:
    """The scenario of a file or a name, or one made from files, with the account of their keys."""
    files.check(source)
    if source is not None:
        from offsim.scenario import load_scenario

        return load_scenario(source, overrides), None
    from offsim.imports.read import import_scenario

    assert files.deepspeed is not None
    assert files.model is not None
    assert files.hardware is not None
    made = import_scenario(
        files.deepspeed, files.model, files.hardware, gpus=files.gpus, sequence=files.sequence, overrides=overrides
    )
    return made.scenario, made.draft


TITLES = {
    "taken": "taken from the files",
    "assumed": "assumed: no file says it",
    "ignored": "ignored: without effect on the time of an iteration",
    "not modelled": "not modelled: the prediction is for what is said here",
}


def account(draft: Draft, scenario: Scenario, style: Style) -> str:
    """What became of each key, and what was assumed where there is none."""
    lists = {
        TITLES[name]: list(_grouped(entries)) if name == "ignored" else [str(entry) for entry in entries]
        for name, entries in draft.lists.items()
    }
    if changed := _changed(scenario):
        lists["changed on the command line"] = changed
    return "\n\n".join(
        "\n".join([style.heading(title), *(wrapped(line, "  ", "    ") for line in lines or ["nothing"])])
        for title, lines in lists.items()
    )


def _changed(scenario: Scenario) -> list[str]:
    """Values that come from --set or --scheduler."""
    lines = []
    for path, mark in scenario.document.marks.items():
        if not mark.origin or mark.origin.startswith("override "):
            value: Any = scenario.document.data
            for part in path:
                value = value.get(part, {})  # --scheduler drops options of another
            if not isinstance(value, dict):
                lines.append(f"{dotted(path)} {value}")
    return lines


def _grouped(entries: Iterable[Entry]) -> Iterable[str]:
    """One line for each reason, with the keys that it is the reason for."""
    by_reason = sorted(entries, key=lambda entry: entry.became)  # stable: keys stay in the files' order
    for reason, group in groupby(by_reason, key=lambda entry: entry.became):
        yield f"{', '.join(entry.key for entry in group)} -> {reason}"


def write_scenario(path: str, scenario: Scenario, draft: Draft | None) -> None:
    """Write the scenario as a file that says where its values come from."""
    from offsim.cli.outputs import writing
    from offsim.imports.emit import scenario_yaml
    from offsim.inputs.files import atomic_write

    text = scenario_yaml(scenario, draft.sources if draft else {}, Path(path).parent)
    with writing("--emit-scenario", path), atomic_write(path) as file:
        file.write(text.encode())
