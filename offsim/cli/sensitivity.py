"""Sensitivities as text: what the time follows, value by value, and how sure it is."""

from __future__ import annotations

from offsim.cli.terminal import PLAIN, Style, labelled, wrapped
from offsim.cli.trust import trust_lines
from offsim.results.units import engineering, format_time, format_time_interval
from offsim.study.sensitivities.hardware_values import HardwareValue
from offsim.study.sensitivities.sensitivity import COLUMNS, NOTHING, Effect, Sensitivity
from offsim.study.sensitivities.slopes import UNEVEN
from offsim.views.wording import drawing_title, validated

SHOWN_FROM = 0.0005
"""The elasticity below which a cell stays empty."""
BAR = 6


def sensitivity_report(found: Sensitivity, style: Style = PLAIN) -> str:
    """All of a sensitivity that fits into lines of 80 characters."""
    blocks = [_headline(found, style), _effects(found, style)]
    if notes := _notes(found):
        blocks.append(notes)
    if found.interval is not None:
        blocks.append(_interval(found, style))
    return "\n\n".join(blocks)


def _headline(found: Sensitivity, style: Style) -> str:
    time_s = found.result.iteration_s
    time = format_time_interval(time_s, found.interval.half_s()) if found.interval else format_time(time_s)
    lines = [
        labelled("scenario", drawing_title(found.result)),
        labelled("validated", validated(found.result.run.profile)),
        style.heading(labelled("iteration", time)),
        *(labelled(*line) for line in trust_lines(found.result, found.interval)),
    ]
    if found.effects and found.effects[0].matters:
        lines.append(labelled("limited by", _limit(found.effects[0], time_s)))
    return "\n".join(lines)


def _limit(effect: Effect, time_s: float) -> str:
    elasticity = effect.elasticity["iteration"]
    gain = abs(elasticity)
    direction = "more" if elasticity < 0 else "less"
    return f"{effect.value.key} most: 1 % {direction} of it saves {gain:.2f} % ({format_time(gain * time_s / 100)})"


def _effects(found: Sensitivity, style: Style) -> str:
    shown = [e for e in found.effects if any(abs(e.elasticity[name]) >= SHOWN_FROM for name in COLUMNS)]
    largest = max((abs(effect.elasticity["iteration"]) for effect in shown), default=0.0) or 1.0
    rows = [
        (
            effect.value.key,
            *(_cell(effect.elasticity[name]) for name in COLUMNS),
            style.bar(abs(effect.elasticity["iteration"]) / largest, BAR),
        )
        for effect in shown
    ]
    title = style.heading("percent of time for each percent that a value rises")
    table = style.table(rows, ("value", *COLUMNS, ""), "l" + "r" * len(COLUMNS) + "l")
    rest = [effect.value.key for effect in found.effects if effect not in shown]
    return "\n".join([title, table, *([wrapped(f"next to nothing: {', '.join(rest)}")] if rest else [])])


def _cell(elasticity: float) -> str:
    return f"{elasticity:+.3f}" if abs(elasticity) >= SHOWN_FROM else ""


def _notes(found: Sensitivity) -> str:
    """Where a single number says too little."""
    lines = []
    for effect in found.effects:
        slope = effect.slope
        if slope.jump is not None:
            change = format_time(slope.jump.change["iteration"] * found.result.iteration_s)
            at = _number(effect.value, effect.value.value * slope.jump.at)
            lines.append(f"{effect.value.key}: the time jumps by {change} at {at}, which is not in the table")
        elif abs(slope.above - slope.below) > UNEVEN:
            bend = f"{slope.below:+.3f} for a little less, {slope.above:+.3f} for a little more"
            lines.append(f"{effect.value.key}: {bend}")
    return "\n".join(wrapped(line, "", "  ") for line in lines)


def _interval(found: Sensitivity, style: Style) -> str:
    assert found.interval is not None
    values = {effect.value.key: effect.value for effect in found.effects}
    alone, together = found.interval.contributions_s(), found.interval.together_s()
    correlated = alone != together
    columns = {"alone": alone, "together": together} if correlated else {"± time": alone}
    rows = [
        (key, _range(values[key]), *(format_time(column[key]) for column in columns.values()))
        for key in alone
        if alone[key] > NOTHING * found.result.iteration_s
    ]
    headers = ("value", "95 % interval", *columns)
    lines = [
        style.heading("what the interval of each value makes of the iteration's time, to either side"),
        style.table(rows, headers, "lrrr"[: len(headers)]),
    ]
    if correlated:
        meaning = (
            "alone: all other values stay; together: those it was fitted with are off too, as they then most likely are"
        )
        lines.append(wrapped(f"{meaning}; all values: ± {format_time(found.interval.half_s())}"))
    exact = [effect.value.key for effect in found.effects if effect.matters and effect.value.interval is None]
    if exact:
        lines.append(wrapped(f"taken as exact, as they have no interval: {', '.join(exact)}"))
    return "\n".join(lines)


def _number(value: HardwareValue, number: float) -> str:
    return _short(number) + ("" if value.unit == "1" else f" {value.unit}")


def _range(value: HardwareValue) -> str:
    low, high = value.interval or (value.value, value.value)
    return f"{_short(low)} to {_short(high)}" + ("" if value.unit == "1" else f" {value.unit}")


def _short(number: float) -> str:
    return engineering(float(f"{number:.3g}"))
