"""All schedules on one scenario as a page: bars of phases, what limits them, bars of memory, what they compute."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.patches import Rectangle

from offsim.results.result import Result
from offsim.results.survey import Entry, Survey
from offsim.results.units import format_memory, format_time
from offsim.results.verdict import Verdict
from offsim.views.figure import (
    AXIS_IN,
    EDGE_IN,
    LINE_IN,
    SMALL_PT,
    TEXT_PT,
    TITLE_IN,
    Legend,
    Picture,
    swatch,
    text_width_in,
    time_axis,
)
from offsim.views.wording import TierPeak, batch_line, hardware_line, limited_by, peaks_by_tier

PHASE_COLOURS: Mapping[str, str] = {"forward": "#56B4E9", "backward": "#0072B2", "update": "#E69F00"}
OTHER_PHASES = ("#009E73", "#CC79A7", "#8F5F5F")
HELD, FREE, NO_ROOM = "#009E73", "#EDEDED", "#D55E00"
QUIET = "#666666"
ROW_IN, BAR_IN, TIMES_IN, TIER_IN, GUTTER_IN = 0.3, 0.12, 3.0, 0.85, 0.22
UP, HIGH = (ROW_IN / 2 - BAR_IN) / ROW_IN, BAR_IN / ROW_IN
"""Where bars begin in their rows, and how high they are."""
LONGEST = 4.0
"""Bars longer than so many times the middle one are cut: the others would shrink to nothing."""


def plot_survey(survey: Survey, *, title: str | None = None) -> Picture:
    """A row per schedule that applies, the fastest first; below them, why the others do not."""
    rows = [(entry, entry.result) for entry in (*survey.fitting, *survey.too_large) if entry.result is not None]
    if not rows:
        raise ValueError("nothing to draw: no schedule can run the scenario")
    peaks = [peaks_by_tier(result) for _, result in rows]
    tiers = list(dict.fromkeys(tier for row in peaks for tier in row))
    phases = list(dict.fromkeys(phase for entry, result in rows if entry.fits for phase in result.durations))
    others = cycle(OTHER_PHASES)
    colours = {phase: PHASE_COLOURS.get(phase) or next(others) for phase in phases}
    names = [(entry.schedule, ", ".join(entry.changes)) for entry, _ in rows]
    widths = (size for name, more in names for size in (text_width_in(name, TEXT_PT), text_width_in(more, SMALL_PT)))
    names_in = max(widths) + EDGE_IN + 0.1
    results = [entry.exactness.replace("; ", "\n") for entry, _ in rows]
    words_in = max(text_width_in(line, SMALL_PT) for result in results for line in result.splitlines())
    tiers_at = [names_in + TIMES_IN + GUTTER_IN + place * (TIER_IN + GUTTER_IN) for place in range(len(tiers))]
    words_at = tiers_at[-1] + TIER_IN + GUTTER_IN
    width = words_at + max(words_in, text_width_in("result", TEXT_PT)) + EDGE_IN
    reasons = _reasons(survey.inapplicable, width)
    legend = Legend([swatch(colours[phase], "", phase) for phase in phases], width)
    rows_in = ROW_IN * len(rows)
    head_in = TITLE_IN * bool(title) + 3 * LINE_IN + 0.3
    reasons_in = (len(reasons) + 1) * LINE_IN + 0.2 if reasons else 0.0
    height = head_in + rows_in + AXIS_IN + legend.height_in + reasons_in
    picture = Picture(width, height)
    top = height - head_in
    bottom = top - rows_in

    picture.title_at(EDGE_IN, height - 0.05, title)
    first = rows[0][1]
    set_up = f"{hardware_line(first)}\n{batch_line(first.scenario)}"
    picture.text_at(EDGE_IN, height - 0.05 - TITLE_IN * bool(title), set_up, linespacing=1.25, color=QUIET)
    header = {"va": "bottom", "fontweight": "bold"}
    picture.text_at(names_in, top + 0.05, "iteration, and what limits it", **header)
    _times(picture, rows, colours, names_in, bottom)
    for left, tier in zip(tiers_at, tiers, strict=True):
        capacity = max(row[tier].most.capacity_bytes for row in peaks if tier in row)
        picture.text_at(left, top + 0.05, f"{tier}\nof {format_memory(capacity)}", linespacing=1.2, **header)
        held = [(row.get(tier), result.verdict) for row, (_, result) in zip(peaks, rows, strict=True)]
        _tier(picture, held, left, bottom)
    picture.text_at(words_at, top + 0.05, "result", **header)
    for place, (_, result) in enumerate(rows):
        middle = top - (place + 0.5) * ROW_IN
        name, changes = names[place]
        if changes:
            picture.text_at(EDGE_IN, middle + 0.01, name, va="bottom")
            picture.text_at(EDGE_IN, middle - 0.02, changes, va="top", fontsize=SMALL_PT, color=QUIET)
        else:
            picture.text_at(EDGE_IN, middle, name, va="center")
        picture.text_at(words_at, middle, results[place], va="center", fontsize=SMALL_PT)
        if result.verdict is not None:
            short = f"does not fit: {result.verdict.tier} memory"
            picture.text_at(names_in + 0.05, middle + 0.01, short, va="bottom", color=NO_ROOM)
            asked = f"{format_memory(result.verdict.asked_bytes)} more for {result.verdict.occupant}"
            picture.text_at(names_in + 0.05, middle - 0.01, asked, va="top", fontsize=SMALL_PT, color=QUIET)
    _rules(picture, len(rows), top)
    legend.draw(picture, reasons_in)
    if reasons:
        picture.text_at(EDGE_IN, reasons_in - 0.1, "do not apply", fontweight="bold")
        picture.text_at(
            EDGE_IN, reasons_in - 0.1 - LINE_IN, "\n".join(reasons), fontsize=SMALL_PT, color=QUIET, linespacing=1.4
        )
    return picture


def _times(
    picture: Picture,
    rows: Sequence[tuple[Entry, Result]],
    colours: Mapping[str, str],
    left: float,
    bottom: float,
) -> None:
    axes = picture.axes_at(left, bottom, TIMES_IN, ROW_IN * len(rows))
    axes.set_zorder(1)  # over the rules between rows
    spent = sorted(result.iteration_s for entry, result in rows if entry.fits) or [1.0]
    shown = min(spent[-1], LONGEST * spent[len(spent) // 2])
    labels_in = max(text_width_in(format_time(seconds), TEXT_PT) for seconds in spent) + 0.08
    time_axis(axes, 0.0, shown * TIMES_IN / (TIMES_IN - labels_in), label="time ({unit})")
    axes.set_ylim(len(rows), 0)
    axes.yaxis.set_visible(False)
    per_in = shown / (TIMES_IN - labels_in)
    for place, (entry, result) in enumerate(rows):
        if not entry.fits:
            continue
        begin = 0.0
        for phase, seconds in result.durations.items():
            end = min(begin + seconds, shown)
            bar = Rectangle((begin, place + UP), max(end - begin, 0), HIGH, facecolor=colours[phase], lw=0)
            axes.add_patch(bar)
            begin += seconds
        if begin > shown:  # torn off
            for at in (shown - 0.10 * per_in, shown - 0.06 * per_in):
                axes.plot([at, at + 0.03 * per_in], [place + 0.55, place + UP - 0.05], color="white", lw=1.2)
        end = min(begin, shown)
        centre = place + UP + HIGH / 2
        time = format_time(result.iteration_s)
        axes.text(end + 0.04 * per_in, centre, time, va="center_baseline", fontsize=TEXT_PT)
        why = limited_by(result.limited_by, 3)
        axes.text(0.02 * per_in, place + 0.54, why, va="top", fontsize=SMALL_PT - 0.5, color=QUIET)


def _tier(
    picture: Picture, peaks: Sequence[tuple[TierPeak | None, Verdict | None]], left: float, bottom: float
) -> None:
    """Bars of the peak over the capacity; where the tier ran out, of what was held, and what was asked for beyond."""
    axes = picture.axes_at(left, bottom, TIER_IN, ROW_IN * len(peaks))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(peaks), 0)
    axes.set_axis_off()
    for place, (peak, verdict) in enumerate(peaks):
        if peak is None or not peak.most.bytes:
            continue
        ran_out = verdict is not None and verdict.tier == peak.most.tier
        for share, colour in ((1.0, NO_ROOM if ran_out else FREE), (min(peak.share, 1.0), HELD)):
            axes.add_patch(Rectangle((0, place + UP), share, HIGH, facecolor=colour, lw=0))
        held = format_memory(peak.most.bytes)
        axes.text(0.01, place + 0.54, held, va="top", fontsize=SMALL_PT - 0.5, color=QUIET)


def _rules(picture: Picture, rows: int, top: float) -> None:
    """Thin lines between rows over the whole width."""
    for place in range(rows):
        y = (top - place * ROW_IN) / picture.height_in
        rule = Rectangle(
            (EDGE_IN / picture.width_in, y), 1 - 2 * EDGE_IN / picture.width_in, 0, ec="#DDDDDD", lw=0.4, zorder=0
        )
        rule.set_transform(picture.transFigure)
        picture.patches.append(rule)


def _reasons(entries: Sequence[Entry], width: float) -> list[str]:
    characters = max(int(width / text_width_in("n" * 10, SMALL_PT) * 10), 40)
    reasons = (f"{entry.schedule}: {entry.reason}" for entry in entries)
    return [line for reason in reasons for line in textwrap.wrap(reason, characters, subsequent_indent="    ")]
