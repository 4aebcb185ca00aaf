"""Names of measured runs, as short as telling them apart allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from offsim.inputs.fields import parsed_number
from offsim.schedulers.registry import known_options
from offsim.validation.run_table import TABLE, MeasuredRun

_DETAILS: tuple[tuple[str, str], ...] = (
    (TABLE, "{}"),
    ("subgroup_size", "sub-groups of {}"),
    ("global_batch", "global batch {}"),
    ("micro_batch", "micro-batch {}"),
    ("seq", "sequence {}"),
    ("layers", "{} layers"),
)


def run_names(runs: Sequence[MeasuredRun]) -> dict[int, str]:
    """Line -> name: what is always said, then the details in which runs of the same name differ."""
    names = {run.line: short_name(run) for run in runs}
    options = [option for option in known_options().values() if option.word and not option.tries]
    for column, words in (*_DETAILS, *((option.column, f"{option.word} {{}}") for option in options)):
        _refine(names, runs, column, words)
    count = Counter(names.values())
    for run in runs:
        if count[names[run.line]] > 1:
            names[run.line] += f", line {run.line - run.before}"
    return names


def short_name(run: MeasuredRun) -> str:
    """Hardware, series, model, ranks, scheduler and its options that are worth trying."""
    series = [*map(run.cell, ("hardware", "series", "model")), f"dp{run.cell('dp')} tp{run.cell('tp')}"]
    tried = (option for option in known_options().values() if option.word and option.tries)
    given = [option for option in tried if option.name in run.scenario.scheduler.options]
    options = [f"{option.word} {short(run.cell(option.column))}" for option in given]
    return " ".join(filter(None, [*series, run.cell("scheduler"), *options]))


def _refine(names: dict[int, str], runs: Sequence[MeasuredRun], column: str, words: str) -> None:
    """Add what a column says to the names of runs that it tells apart."""
    alike: dict[str, list[MeasuredRun]] = {}
    for run in runs:
        alike.setdefault(names[run.line], []).append(run)
    for same in alike.values():
        if len({short(run.cell(column)) for run in same}) > 1:
            for run in same:
                names[run.line] += f", {words.format(short(run.cell(column)))}"


def short(text: str) -> str:
    """A number without zeros that say nothing: "1.0" is "1", "100000000" is "1e8"."""
    value = parsed_number(text)
    return text if value is None else f"{value:g}".replace("e+0", "e")
