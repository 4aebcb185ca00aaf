"""`offsim tune`: the values to try, and what was found as text and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from offsim.cli.terminal import Style, labelled, wrapped
from offsim.imports.recommendation import recommendation
from offsim.inputs.document import Document
from offsim.inputs.errors import InputError
from offsim.inputs.yaml_input import with_overrides
from offsim.programs.schedule import EXACT
from offsim.results.units import GIB, format_memory, format_percent, format_time
from offsim.study.tuning.largest import Largest
from offsim.study.tuning.tune import Outcome, Tuning
from offsim.study.tuning.upgrades import Upgrade
from offsim.views.wording import explained, limited_by, money

FRONT_ROWS = 8


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
    front = _thinned(tuning.front)
    shown = [*tuning.fastest, *(front if len(front) > 1 else [])]
    blocks.append(_best(best, tuning, style))
    blocks.append(f"{style.heading('the fastest')}\n{_table(tuning.fastest, style)}")
    if len(front) > 1:
        title = "the fastest with less and less GPU memory"
        blocks.append(f"{style.heading(title)}\n{_table(front, style)}")
    blocks += _said_of(shown, style)
    if bought:
        blocks.append(_upgrades(best, bought, style))
    blocks += _to_set(best, tuning, style)
    return "\n\n".join(blocks)


def _said_of(shown: Sequence[Outcome], style: Style) -> list[str]:
    """Schedulers of the tables that do not compute the same, and the notes on rows."""
    found = dict.fromkeys((one.scenario.scheduler.name, one.exactness) for one in shown if one.exactness != EXACT)
    lines = [wrapped(f"{name}: {explained(exactness)}", "", "  ") for name, exactness in found]
    notes = dict.fromkeys(f"{_words(one)}: {note}" for one in shown for note in one.notes)
    lines += [style.alarm(wrapped(note, "", "  ")) for note in notes]
    return ["\n".join(lines)] if lines else []


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
    cost = "" if best.cost_per_1e9_tokens is None else f", {money(best.cost_per_1e9_tokens)} per 1e9 tokens"
    speed = f"{best.tokens_per_s:,.0f} tokens/s{gain}, {format_time(best.iteration_s)} an iteration"
    lines = [
        style.heading(labelled("best", ", ".join(f"{key} {_shown(v)}" for key, v in best.settings.items()))),
        labelled("", f"{speed}, MFU {format_percent(best.mfu)}{cost}"),
        labelled("result", explained(best.exactness)),
        labelled("as given", before),
        labelled("limited by", limited_by(best.limited_by)),
        labelled("memory", f"GPU {format_memory(best.gpu_bytes)}, host {format_memory(best.host_bytes)}"),
        *(style.alarm(labelled("note", note)) for note in best.notes),
    ]
    return "\n".join(lines)


def _table(outcomes: Sequence[Outcome], style: Style) -> str:
    priced = any(outcome.cost_per_1e9_tokens is not None for outcome in outcomes)
    rows = [
        (
            format_time(outcome.iteration_s),
            f"{outcome.tokens_per_s:,.0f}",
            format_percent(outcome.mfu),
            *([money(outcome.cost_per_1e9_tokens or 0.0)] if priced else []),
            f"{outcome.gpu_bytes / GIB:.1f}",
            _words(outcome),
        )
        for outcome in outcomes
    ]
    headers = ["time", "tokens/s", "MFU", *(["cost/1e9"] if priced else []), "GPU GiB", "setting"]
    return style.table(rows, headers, "r" * (len(headers) - 1) + "l")


def _words(outcome: Outcome) -> str:
    settings = outcome.settings.items()
    return ", ".join(_shown(value) if key == "scheduler" else f"{key} {_shown(value)}" for key, value in settings)


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
        changed = {key: value for key, value in found.settings.items() if best.settings.get(key) != value}
        then = ", ".join(f"{name} {_shown(value)}" for name, value in changed.items()) or "as the best"
        rows.append(
            (upgrade.name, format_time(found.iteration_s), f"{found.tokens_per_s / best.tokens_per_s:.2f}x", then)
        )
    title = style.heading("what one upgrade would buy, with the settings tuned to it")
    scales = [wrapped(f"{upgrade.name} scales {', '.join(upgrade.scales)}", "- ", "  ") for upgrade in bought]
    return "\n".join([title, style.table(rows, ("upgrade", "time", "gain", "then with"), "lrrl"), *scales])


def _to_set(best: Outcome, tuning: Tuning, style: Style) -> list[str]:
    stock = tuning.best_of_deepspeed
    name = best.scenario.scheduler.name
    elsewhere = f"{name}: no key of DeepSpeed's configuration chooses it"
    if stock is None:
        return [wrapped(f"{elsewhere}, nor any other setting that fits")]
    said = recommendation(stock.scenario)
    title = style.heading("to train with the best setting: keys of DeepSpeed's configuration")
    if stock.settings != best.settings:
        slower = f"{format_time(stock.iteration_s)}, {stock.iteration_s / best.iteration_s:.2f} times as long"
        title = wrapped(f"{elsewhere}. The fastest setting that DeepSpeed has: {_words(stock)}; {slower}. Its keys:")
    notes = [wrapped(note, "- ", "  ") for note in said.notes]
    return ["\n".join([title, said.to_json().rstrip(), *notes])]


def largest_report(found: Largest, style: Style) -> str:
    """The largest model by scheduler, the largest first."""
    model = found.given.model
    head = [
        labelled("scenario", found.given.name),
        labelled("models", f"its architecture in published shapes, then by layers; sequence {model.sequence}"),
        *(labelled("skipped", f"{name}: {reason}") for name, reason in found.skipped.items()),
        *(labelled("none fits", f"{name}: not even the smallest shape") for name in found.none),
    ]
    if not found.models:
        return "\n".join(head)
    batches = {one.outcome.settings.get("micro_batch") for one in found.models}
    batch = batches.pop() if len(batches) == 1 else None  # said once if all have the same
    rows = []
    for one in found.models:
        shape, outcome = one.outcome.scenario.model, one.outcome
        said_once = ("scheduler",) if batch is None else ("scheduler", "micro_batch")
        with_options = {name: value for name, value in outcome.settings.items() if name not in said_once}
        rows.append(
            (
                f"{one.parameters / 1e9:.3g}e9",
                f"{shape.layers} x {shape.hidden}",
                format_time(outcome.iteration_s),
                f"{outcome.tokens_per_s:,.0f}",
                format_percent(outcome.mfu),
                ", ".join([one.scheduler, *(f"{name} {_shown(value)}" for name, value in with_options.items())]),
            )
        )
    headers = ("parameters", "layers x hidden", "time", "tokens/s", "MFU", "setting")
    title = "the largest model that fits, by scheduler" + ("" if batch is None else f", with micro_batch {batch}")
    return "\n".join([*head, "", style.heading(title), style.table(rows, headers, "rrrrrl")])


def largest_json(found: Largest) -> dict[str, Any]:
    """Everything as plain values."""
    models = [
        {"scheduler": one.scheduler, "parameters": one.parameters, **_outcome_json(one.outcome)} for one in found.models
    ]
    return {"models": models, "none": list(found.none), "skipped": dict(found.skipped)}


def largest_rows(found: Largest) -> list[dict[str, Any]]:
    """A row for each scheduler."""
    return [
        {name: value for name, value in model.items() if not isinstance(value, dict | list)}
        for model in largest_json(found)["models"]
    ]


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
        "deepspeed": _deepspeed_json(tuning.best_of_deepspeed, tuning.best),
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


def _deepspeed_json(stock: Outcome | None, best: Outcome | None) -> dict[str, Any] | None:
    """The fastest setting that DeepSpeed has, and its keys."""
    if stock is None or best is None:
        return None
    said = recommendation(stock.scenario)
    return {
        "settings": stock.settings,
        "is_best": stock.settings == best.settings,
        "keys": said.keys,
        "notes": said.notes,
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "settings": outcome.settings,
        "fits": outcome.fits,
        "iteration_s": outcome.iteration_s if outcome.fits else None,
        "tokens_per_s": outcome.tokens_per_s if outcome.fits else None,
        "mfu": outcome.mfu if outcome.fits else None,
        "cost_per_1e9_tokens": outcome.cost_per_1e9_tokens,
        "exactness": outcome.exactness,
        "notes": list(outcome.notes),
        "gpu_peak_bytes": outcome.gpu_bytes,
        "host_peak_bytes": outcome.host_bytes,
        "limited_by": dict(outcome.limited_by),
        "scenario": outcome.scenario.model_dump(mode="json"),
    }
