"""Scenarios that commands read, or make from the configuration of DeepSpeed or PyTorch FSDP and a model's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offsim.cli.arguments import IMPORT_OPTIONS, ScenarioArgument, SetOption
from offsim.cli.outputs import STDOUT
from offsim.cli.terminal import Style, note, show, style_of, wrapped
from offsim.inputs.document import dotted, flat
from offsim.inputs.errors import InputError

if TYPE_CHECKING:
    from offsim.imports.draft import Draft, Entry
    from offsim.scenario import Scenario

Command = Callable[..., None]
CONFIGURATIONS = ("deepspeed", "fsdp", "trainer")
FILES = (*CONFIGURATIONS, "model")
"""Import options that are files."""


@dataclass
class Given:
    """What the command line gives: scenarios by name or path, or the files to make one from, and `--set`."""

    sources: Sequence[str]
    files: Mapping[str, Any]
    """Parameter of `import_scenario` -> value, of those that are given."""
    overrides: Sequence[str]
    draft: Draft | None = None
    """The account of the files' keys, once they are read."""

    @property
    def inputs(self) -> list[str]:
        """The files that are read."""
        return [*self.sources, *(self.files[name] for name in FILES if name in self.files)]

    def load_all(self) -> list[Scenario]:
        """Read all scenarios; InputError unless there are either scenarios or all that makes one."""
        if self.sources and self.files:
            option = next(iter(self.files))
            raise InputError(f"found the scenario '{self.sources[0]}' and --{option}, expected one or the other")
        if self.sources:
            from offsim.scenario import load_scenario

            return [load_scenario(source, self.overrides) for source in self.sources]
        if not self.files:
            expected = f"SCENARIO, or one of {', '.join(f'--{name}' for name in CONFIGURATIONS)}"
            raise InputError(f"found no scenario, expected {expected}, with --model and --hardware")
        from offsim.imports.read import import_scenario

        made = import_scenario(**self.files, overrides=self.overrides)
        self.draft = made.draft
        return [made.scenario]

    def load(self) -> Scenario:
        """Read the one scenario."""
        return self.load_all()[0]

    def tell(self, scenario: Scenario, *written: str | None) -> None:
        """Show what became of the files' keys; on standard error if one of what is written is standard output."""
        if self.draft is not None:
            stream, write = (sys.stderr, note) if STDOUT in written else (sys.stdout, show)
            write(f"{account(self.draft, scenario, style_of(stream))}\n")


def takes_scenario(
    source: Any = ScenarioArgument, *, overrides: Any = SetOption, price: Any = None
) -> Callable[[Command], Command]:
    """Give a command `SCENARIO`, `--set` and the options that make a scenario, as its first parameter, a `Given`.

    `source`, `overrides` and `price` are how a scenario, `--set` and `--price-per-gpu-hour` are declared; None: the
    command has none.
    """
    declared = {"scenario": source, "overrides": overrides, "price": price, **IMPORT_OPTIONS}
    own = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in declared.items()
        if annotation is not None
    ]

    def declare(command: Command) -> Command:
        @wraps(command)
        def parsed(**values: Any) -> None:
            source, overrides = values.pop("scenario", None), values.pop("overrides", None)
            files = {name: value for name in IMPORT_OPTIONS if (value := values.pop(name)) is not None}
            sources = [source] if isinstance(source, str) else source or []
            cost = values.pop("price") if price is not None else None
            priced = [] if cost is None else [f"price_per_gpu_hour={cost!r}"]
            command(Given(sources, files, [*(overrides or []), *priced]), **values)

        _, *rest = signature(command, eval_str=True).parameters.values()
        rest = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in rest]
        first = len(own) - len(IMPORT_OPTIONS)
        parameters = [*own[:first], *rest, *own[first:]]
        parsed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        parsed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return parsed

    return declare


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
    document, values = scenario.document, flat(scenario.document.data)
    changed = (path for path, mark in document.marks.items() if not mark.origin or mark.origin.startswith("override "))
    # --scheduler drops options of another.
    return [f"{name} {values[name]}" for name in map(dotted, changed) if name in values]


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
