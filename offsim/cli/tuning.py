"""`offsim tune`: the values to try, and what was found as text and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from offsim.cli.terminal import Style, labelled, wrapped
from offsim.imports.recommendation import recommendation
from offsim.inputs.document import Document
from offsim.inputs.errors import InputError
from offsim.inputs.yaml_input import with_overrides
from offsim.results.units import GIB, format_memory, format_percent, format_time
from offsim.study.tuning.tune import Outcome, Tuning, dimensions_of
from offsim.study.tuning.upgrades import Upgrade
from offsim.views.wording import limited_by

FRONT_ROWS = 8
HEADERS = {"subgroup_size": "sub-group", "activation_checkpointing": "checkpoint"}
"""Of columns; of others the last word of the dimension's name, or all of it where others end in the same."""


def values_to_try(tries: Sequence[str]) -> dict[str, list[Any]]:
    """`micro_batch=1,2` as values to try."""
    values: dict[str, list[Any]] = {}
    for text in tries:
        name, equals, listed = text.partition("=")
        if not equals:
            raise InputError("expected DIMENSION=VALUE,VALUE,..., such as micro_batch=1,2", f"--try '{text}'")
        try:
            values[name.strip()] = with_overrides(Document(), [f"values=[{listed}]"]).data["values"]
        except InputError as error:
            raise InputError(error.problem, f"--try '{text}'") from None
    return values


def tuning_report(name: str, tuning: Tuning, bought: Sequence[Upgrade], style: Style) -> str:
    """All of it in lines of 80 characters."""
    blocks = [_set_up(name, tuning)]
    best = tuning.best
    if best is None:
        blocks.append(style.alarm("none of the settings tried fits in memory"))
        return "\n\n".join(blocks)
    blocks.append(_best(best, tuning, style))
    blocks.append(f"{style.heading('the fastest')}\n{_table(tuning.fastest, style)}")
    if len(tuning.front) > 1:
        title = "the fastest with less and less GPU memory"
        blocks.append(f"{style.heading(title)}\n{_table(_thinned(tuning.front), style)}")
    if bought:
        blocks.append(_upgrades(best, bought, style))
    blocks.append(_to_set(best, style))
    return "\n\n".join(blocks)


def _set_up(name: str, tuning: Tuning) -> str:
    question = tuning.question
    return "\n".join(
        [
            labelled("scenario", name),
            labelled("over", ", ".join(tuning.dimensions)),
            labelled("objective", question.objective.replace("_", " ").replace(" per s", "/s")),
            labelled("tried", tuning.counts),
            *(labelled("skipped", f"{name}: {reason}") for name, reason in tuning.skipped.items()),
            labelled("headroom", f"{format_percent(question.headroom)} of each memory stay free"),
        ]
    )


def _best(best: Outcome, tuning: Tuning, style: Style) -> str:
    given = tuning.given
    before = f"{given.tokens_per_s:,.0f} tokens/s, {format_time(given.iteration_s)}" if given.fits else "does not fit"
    gain = f" ({best.tokens_per_s / given.tokens_per_s:.2f}x)" if given.fits else ""
    speed = f"{best.tokens_per_s:,.0f} tokens/s{gain}, {format_time(best.iteration_s)} an iteration"
    lines = [
        style.heading(labelled("best", ", ".join(f"{key} {_shown(v)}" for key, v in best.settings.items()))),
        labelled("", speed),
        labelled("as given", before),
        labelled("limited by", limited_by(best.limited_by)),
        labelled("memory", f"GPU {format_memory(best.gpu_bytes)}, host {format_memory(best.host_bytes)}"),
    ]
    return "\n".join(lines)


def _table(outcomes: Sequence[Outcome], style: Style) -> str:
    keys = dimensions_of(outcomes)
    headers = [*_headers(keys).values(), "time", "tokens/s", "GiB"]
    rows = [
        (
            *(_shown(outcome.settings.get(key, "")) for key in keys),
            format_time(outcome.iteration_s),
            f"{outcome.tokens_per_s:,.0f}",
            f"{outcome.gpu_bytes / GIB:.1f}",
        )
        for outcome in outcomes
    ]
    return style.table(rows, headers, "".join("l" if key == "scheduler" else "r" for key in keys) + "rrr")


def _headers(dimensions: Sequence[str]) -> dict[str, str]:
    short = {name: HEADERS.get(name, name.rpartition("_")[2]) for name in dimensions}
    return {name: text if [*short.values()].count(text) == 1 else name for name, text in short.items()}


def _thinned(front: Sequence[Outcome]) -> list[Outcome]:
    """The ends of the front, and what lies evenly between them by its memory."""
    if len(front) <= FRONT_ROWS:
        return list(front)
    most, least = front[0].gpu_bytes, front[-1].gpu_bytes
    marks = [most - (most - least) * i / (FRONT_ROWS - 1) for i in range(FRONT_ROWS)]
    near = {min(range(len(front)), key=lambda i, m=mark: abs(front[i].gpu_bytes - m)) for mark in marks}  # type: ignore[misc]
    return [front[i] for i in sorted(near)]


def _upgrades(best: Outcome, bought: Sequence[Upgrade], style: Style) -> str:
    rows = []
    for upgrade in bought:
        found = upgrade.best or best
        headers = _headers(dimensions_of([found]))
        changed = {headers[key]: value for key, value in found.settings.items() if best.settings.get(key) != value}
        then = ", ".join(f"{name} {_shown(value)}" for name, value in changed.items()) or "as the best"
        rows.append(
            (upgrade.name, format_time(found.iteration_s), f"{found.tokens_per_s / best.tokens_per_s:.2f}x", then)
        )
    title = style.heading("what one upgrade would buy, with the settings tuned to it")
    scales = [wrapped(f"{upgrade.name} scales {', '.join(upgrade.scales)}", "- ", "  ") for upgrade in bought]
    return "\n".join([title, style.table(rows, ("upgrade", "time", "gain", "then with"), "lrrl"), *scales])


def _to_set(best: Outcome, style: Style) -> str:
    said = recommendation(best.scenario)
    title = style.heading("to train with the best setting: keys of DeepSpeed's configuration")
    notes = [wrapped(note, "- ", "  ") for note in said.notes]
    return "\n".join([title, said.to_json().rstrip(), *notes])


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 1_000_000:
        return f"{value:.4g}".replace("e+0", "e")
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def tuning_json(tuning: Tuning, bought: Sequence[Upgrade]) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "given": _outcome_json(tuning.given),
        "best": _outcome_json(tuning.best) if tuning.best else None,
        "deepspeed": asdict(recommendation(tuning.best.scenario)) if tuning.best else None,
        "fastest": [_outcome_json(outcome) for outcome in tuning.fastest],
        "front": [_outcome_json(outcome) for outcome in tuning.front],
        "simulated": len(tuning.outcomes),
        "left_out": tuning.left_out,
        "skipped": dict(tuning.skipped),
        "upgrades": {
            upgrade.name: {"scales": upgrade.scales} | (_outcome_json(upgrade.best) if upgrade.best else {})
            for upgrade in bought
        },
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "settings": outcome.settings,
        "fits": outcome.fits,
        "iteration_s": outcome.iteration_s if outcome.fits else None,
        "tokens_per_s": outcome.tokens_per_s if outcome.fits else None,
        "gpu_peak_bytes": outcome.gpu_bytes,
        "host_peak_bytes": outcome.host_bytes,
        "limited_by": dict(outcome.limited_by),
        "scenario": outcome.scenario.model_dump(mode="json"),
    }
