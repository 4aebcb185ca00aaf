"""The facts of results and comparisons as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from offsim.results.units import format_percent
from offsim.views.console import BAR, LONG, PLAIN, Style, labelled, wrapped
from offsim.views.facts import RATES, Cell, ComparisonFacts, Facts, Holding, NoRoom, Table

SHORT_BAR = 12
OF_ONE = ("scheduler", "measured", "nearest")
"""Lines of the set-up that each result of a comparison has its own of."""
COLUMNS = 6
"""As many results as a table with a column for each has room for."""


def result_text(facts: Facts, style: Style = PLAIN) -> str:
    """All facts of a result."""
    blocks = ["\n".join(labelled(*line) for line in facts.set_up.items())]
    if facts.no_room is not None:
        return "\n\n".join([*blocks, *_no_room(facts.no_room, style)])
    lines = labelled_lines(facts.headline)
    notes = [style.alarm(labelled("note", note)) for note in facts.notes]
    blocks.append("\n".join([style.heading(lines[0]), *lines[1:], *notes]))
    tables = {
        "how long each phase takes": facts.phases,
        "what limits it, in percent of the time (the critical path)": facts.limits,
        "how busy each resource is": facts.resources,
    }
    blocks += [_titled(title, table, style) for title, table in tables.items()]
    return "\n\n".join([*blocks, *(_holding(holding, style) for holding in facts.memory)])


def comparison_text(facts: ComparisonFacts, style: Style = PLAIN) -> str:
    """All facts of a comparison; the results are numbered."""
    set_up = {name: text for name, text in facts.set_up.items() if name not in OF_ONE}
    schedulers = [wrapped(text, f"  {n}  ", "     ") for n, text in enumerate(facts.schedulers, start=1)]
    blocks = ["\n".join([*(labelled(*line) for line in set_up.items()), "schedulers", *schedulers])]
    times = [(Cell(str(n)), *row) for n, row in enumerate(facts.times.rows, start=1)]
    blocks.append(table_text(Table(("", "scheduler", *facts.times.headers[1:]), times, bar=2, words=(1,)), style))
    if facts.no_room:
        blocks.append(
            "\n".join(
                f"{style.alarm(wrapped(line, f'{place + 1}  ', '   '))}\n{wrapped(asked, '   ', '   ')}"
                for place, (line, asked) in facts.no_room.items()
            )
        )
    if facts.notes:
        blocks.append("\n".join(style.alarm(wrapped(note, "", "   ")) for note in facts.notes))
    fitting = [place for place in range(len(facts.schedulers)) if place not in facts.no_room]
    limits = [
        table_text(_columns(facts.limits, fitting[begin : begin + COLUMNS], begin), style)
        for begin in range(0, len(fitting), COLUMNS)
    ]
    if fitting:
        title = style.heading("what limits the iteration, in percent of it (the critical path)")
        blocks += [table_text(_numbered(facts.phases, fitting), style), f"{title}\n{limits[0]}", *limits[1:]]
        blocks.append(table_text(with_percents(_numbered(facts.memory, fitting)), style))
        blocks.append(table_text(_numbered(facts.largest, fitting), style))
    return "\n\n".join(blocks)


def result_lines(facts: Facts) -> list[str]:
    """A result in four lines and its notes, or why it does not fit and what would help."""
    first = f"{facts.title}, {facts.set_up['batch']}"
    if facts.no_room is not None:
        return [first, *_no_room_lines(facts.no_room)]
    lines = {label: f"{label}: {'; '.join(texts)}" for label, texts in facts.headline.items()}
    lines["iteration"] += f"; {', '.join(f'{phase.text} {time.text}' for phase, time, _ in facts.phases.rows[1:])}"
    return [first, *lines.values(), *(f"note: {note}" for note in facts.notes)]


def labelled_lines(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Texts in a column, each label beside the first of its own."""
    return [labelled("" if place else label, text) for label, its in texts.items() for place, text in enumerate(its)]


def brief_lines(facts: Facts) -> list[str]:
    """A result in two lines, and its notes."""
    if facts.no_room is not None:
        return [facts.no_room.line, facts.no_room.asked]
    (speed, day), (limits,) = facts.headline["iteration"], facts.headline["limited by"]
    return [f"{speed}; limited by {limits}", "; ".join([day, *facts.headline["peak"]]), *facts.notes]


def comparison_lines(facts: ComparisonFacts) -> list[str]:
    """A line for each result, and their notes."""
    lines = []
    for place, (label, *times) in enumerate(facts.times.rows):
        if place in facts.no_room:
            lines.append(f"{label.text}: {', '.join(facts.no_room[place])}")
        else:
            named = zip(facts.phases.headers[1:], facts.phases.rows[place][1:], strict=True)
            spent = [f"{name} {cell.text}" for name, cell in named if name not in RATES]
            lines.append(f"{label.text}: {', '.join(cell.text for cell in times)}; {', '.join(spent)}")
    return [*lines, *facts.notes]


def _no_room_lines(no_room: NoRoom) -> list[str]:
    occupants = ", ".join(f"{name.text} {held.text}" for name, held, _ in no_room.held.occupants.rows)
    fixes = [
        f"would fit with {change.text}: {time.text} on {gpus.text}" for change, time, gpus in no_room.remedies.rows
    ]
    missing = [f"{tier.text} {short.text} (needs {needed.text})" for tier, short, needed, _ in no_room.shortages.rows]
    return [
        no_room.line,
        no_room.asked,
        f"missing: {', '.join(missing)}",
        *([f"{no_room.held.title}: {occupants}"] if occupants else []),
        *(fixes or ["no change tried makes it fit"]),
        *no_room.others,
    ]


def _titled(title: str, table: Table, style: Style) -> str:
    return f"{style.heading(title)}\n{table_text(table, style)}"


def table_text(table: Table, style: Style) -> str:
    """A table, with bars where it has some."""
    bar = table.bar
    # Long names need the room more than bars do.
    width = SHORT_BAR if any(len(cell.text) > LONG for row in table.rows for cell in row) else BAR
    rows = [
        [*(cell.text for cell in row), *([] if bar is None else [style.bar(row[bar].share or 0.0, width)])]
        for row in table.rows
    ]
    align = "".join("l" if place in (0, *table.words) else "r" for place in range(len(table.headers)))
    return style.table(rows, table.headers if bar is None else (*table.headers, ""), align + "l" * (bar is not None))


def _holding(holding: Holding, style: Style) -> str:
    return _titled(f"{holding.title}: {holding.note}", holding.occupants, style)


def _no_room(no_room: NoRoom, style: Style) -> list[str]:
    return [
        f"{style.alarm(no_room.line)}\n{no_room.asked}",
        table_text(no_room.shortages, style),
        *([_holding(no_room.held, style)] if no_room.held.occupants.rows else []),
        _titled(no_room.title, no_room.remedies, style)
        if no_room.remedies.rows
        else f"{style.heading(no_room.title)}\n  none of those tried",
        "\n".join(wrapped(line, "", "  ") for line in no_room.others),
    ]


def _numbered(table: Table, places: Iterable[int]) -> Table:
    """The rows at these places, each with its number in place of its label."""
    return replace(table, rows=[(Cell(str(place + 1)), *table.rows[place][1:]) for place in places])


def with_percents(table: Table) -> Table:
    """The table with shares as text, where a page shades cells."""
    rows = [
        tuple(cell if cell.share is None else Cell(f"{cell.text} ({format_percent(cell.share)})") for cell in row)
        for row in table.rows
    ]
    return replace(table, rows=rows)


def _columns(table: Table, places: Sequence[int], first: int) -> Table:
    """The columns from `first` on, as many as there are places, with the results' numbers as headers."""
    chosen = slice(first + 1, first + 1 + len(places))
    rows = [(row[0], *row[chosen]) for row in table.rows if any(cell.text for cell in row[chosen])]
    return Table((table.headers[0], *(str(place + 1) for place in places)), rows)
