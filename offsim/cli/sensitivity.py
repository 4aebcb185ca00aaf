"""Sensitivities as text: what the time follows, value by value, and how far to trust it."""

from __future__ import annotations

from offsim.cli.terminal import Style, labelled, wrapped
from offsim.cli.trust import trust_lines
from offsim.results.units import format_time, format_time_interval
from offsim.study.sensitivities.sensitivity import Effect, Sensitivity
from offsim.views.text import labelled_lines
from offsim.views.wording import drawing_title, validated

SHOWN_FROM = 0.0005
"""The elasticity below which a cell stays empty."""
BAR = 6
UNEVEN = 0.02
"""Elasticities for a little less and a little more that differ by more are printed."""


def sensitivity_report(found: Sensitivity, style: Style) -> str:
    """All of a sensitivity that fits into lines of 80 characters."""
    uneven = [
        f"{effect.value.key}: {effect.below:+.3f} for a little less, {effect.above:+.3f} for a little more"
        for effect in found.effects
        if abs(effect.above - effect.below) > UNEVEN
    ]
    notes = "\n".join(wrapped(line, "", "  ") for line in uneven)
    return "\n\n".join(filter(None, [_headline(found, style), _effects(found, style), notes]))


def _headline(found: Sensitivity, style: Style) -> str:
    time_s = found.result.iteration_s
    interval = found.result.interval
    time = format_time_interval(time_s, interval.half_s()) if interval else format_time(time_s)
    lines = [
        labelled("scenario", drawing_title(found.result)),
        labelled("validated", validated(found.result.run.profile)),
        style.heading(labelled("iteration", time)),
        *labelled_lines(trust_lines(found.result)),
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
    shown = [e for e in found.effects if any(abs(slope) >= SHOWN_FROM for slope in e.elasticity.values())]
    largest = max((abs(effect.elasticity["iteration"]) for effect in shown), default=0.0) or 1.0
    rows = [
        (
            effect.value.key,
            *(_cell(effect.elasticity[name]) for name in found.columns),
            style.bar(abs(effect.elasticity["iteration"]) / largest, BAR),
        )
        for effect in shown
    ]
    title = style.heading("percent of time for each percent that a value rises")
    table = style.table(rows, ("value", *found.columns, ""), "l" + "r" * len(found.columns) + "l")
    rest = [effect.value.key for effect in found.effects if effect not in shown]
    return "\n".join([title, table, *([wrapped(f"next to nothing: {', '.join(rest)}")] if rest else [])])


def _cell(elasticity: float) -> str:
    return f"{elasticity:+.3f}" if abs(elasticity) >= SHOWN_FROM else ""
