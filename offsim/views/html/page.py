"""The page: facts and series laid out by the template, with style and script inside. One file, no network."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2.utils
import yaml
from matplotlib.colors import to_hex

from offsim.inputs.packaged import offsim_version
from offsim.results.comparison import Comparison
from offsim.results.result import Result
from offsim.results.units import format_time
from offsim.scenario import Scenario
from offsim.views.facts import comparison_facts, facts_of, joined
from offsim.views.html.difference import difference
from offsim.views.html.headline import headline
from offsim.views.html.series import NS, bandwidth_series, memory_series, timeline_series
from offsim.views.provenance import Scored, hardware_of
from offsim.views.style import lighter, look_of, occupant_looks
from offsim.views.templates import templates
from offsim.views.wording import tiers_of_rank

HERE = Path(__file__).parent
SCRIPTS = ("format", "series", "paint", "view", "plot", "timeline", "bandwidth", "memory", "totals", "tip", "main")


def page(comparison: Comparison[Result], *, rank: int = 0, scored: Callable[[str], Scored] = lambda _: Scored()) -> str:
    """The page's HTML; the same results give the same. Its timelines are those of `rank`."""
    script = "".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";(() => {{\n{script}}})();\n'
    kinds: dict[str, int] = {}
    drawn = _drawn(comparison, kinds, rank)
    timelines = [figure["timeline"] for figure in drawn["figures"] if figure["timeline"]]
    compared = comparison_facts(comparison)
    together = joined(compared.times, compared.phases, compared.memory, compared.limited_most)
    return (
        templates(HERE, html=True)
        .get_template("page.html.jinja")
        .render(
            title=_title(comparison),
            headline=headline(comparison),
            labels=comparison.labels,
            comparison=together if len(comparison) > 1 else None,
            differences=compared.differences,
            difference=difference(comparison),
            no_room=compared.no_room,
            notes=compared.notes,
            facts=[*map(facts_of, comparison)],
            scenarios=[scenario_text(result.scenario) for result in comparison],
            hardware=hardware_of(comparison.results, comparison.labels, scored),
            figures=drawn["figures"],
            kinds=[kind["label"] for kind in drawn["kinds"]],
            occupants=[occupant["name"] for occupant in drawn["occupants"]],
            slowed=any(any(timeline["alone"]) for timeline in timelines),
            numbered=any(max(timeline["subgroup"]) >= 0 for timeline in timelines),
            early=any(any(timeline["early"]) for timeline in timelines),
            later=any(figure["later"] for figure in drawn["figures"]),
            rank=rank if any(len(result.run.ranks) > 1 for result in comparison) else None,
            data=_in_script(drawn),
            style=(HERE / "page.css").read_text(encoding="utf-8"),
            script=script,
            script_hash=b64encode(sha256(script.encode()).digest()).decode(),
            version=offsim_version(),
        )
    )


def _title(comparison: Comparison[Result]) -> str:
    names = {result.name for result in comparison}
    if len(comparison) == 1:
        return comparison[0].name
    compared = f"{len(comparison)} scenarios compared"
    return f"{names.pop()}: {compared}" if len(names) == 1 else compared


def scenario_text(scenario: Scenario) -> str:
    """The scenario as a file that can be run again."""
    return yaml.safe_dump(scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _drawn(comparison: Comparison[Result], kinds: dict[str, int], rank: int) -> dict[str, Any]:
    """What the script draws: timeline and memory of those that fit, else the memory of what ran out; and all looks."""
    begun = [(label, r) for label, r in zip(comparison.labels, comparison, strict=True) if not r.phases.empty]
    shown = [(label, result) for label, result in begun if result.fits] or begun
    names = [name for _, result in shown for name in result.memory["occupant"].unique()]
    looks = occupant_looks(names)
    places = {name: place for place, name in enumerate(looks)}
    figures = [_figure(label, result, kinds, places, rank) for label, result in shown]
    return {
        "figures": figures,
        "kinds": [_look(look_of(kind).label, *look_of(kind)[1:]) | {"id": kind} for kind in kinds],
        "occupants": [{"name": name, **_look(name, *look)} for name, look in looks.items()],
    }


def _figure(label: str, result: Result, kinds: dict[str, int], places: dict[str, int], rank: int) -> dict[str, Any]:
    phases = result.phases
    spans = zip(phases["phase"], phases["start_s"], phases["end_s"], phases["duration_s"], strict=True)
    peaks = tiers_of_rank(result.peaks, rank)
    figure: dict[str, Any] = {
        "label": label,
        "fits": result.fits,
        "phases": [
            {"name": name, "start": round(start * NS), "end": round(end * NS), "text": format_time(duration)}
            for name, start, end, duration in spans
        ],
        "total": format_time(result.iteration_s) if result.fits else "does not fit",
        "end": round(phases["end_s"].max() * NS),
        "later": False,
        "timeline": None,
        "bandwidth": [],
        "memory": memory_series(result.memory, peaks, places),
    }
    if result.fits:
        figure["later"] = bool(result.timeline["end_s"].max() > phases["end_s"].max())
        figure["timeline"] = timeline_series(result, kinds, rank=rank)
        figure["bandwidth"] = bandwidth_series(result) if rank == 0 else []
    return figure


def _look(label: str, colour: str, hatch: str) -> dict[str, Any]:
    """The colours of a kind: its own, and that of every second sub-group or layer."""
    return {"label": label, "colours": [colour, to_hex(lighter(colour)).upper()], "hatch": hatch[:1]}


def _in_script(document: dict[str, Any]) -> str:
    """JSON that cannot end the script element that it is in, whatever the names in it."""
    return jinja2.utils.htmlsafe_json_dumps(document, dumps=json.dumps, separators=(",", ":"), allow_nan=False)
