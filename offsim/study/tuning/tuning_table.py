"""What tuning found as tables and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from offsim.results.units import format_memory, format_time, plural
from offsim.study.tuning.space import DIMENSIONS

if TYPE_CHECKING:
    import pandas as pd

    from offsim.study.tuning.tune import Outcome, Tuning
    from offsim.study.tuning.upgrades import Upgrade


def tuning_table(tuning: Tuning) -> pd.DataFrame:
    """A row per setting simulated, the fastest first, with the columns of a sweep's table and `on_front`."""
    import pandas as pd

    front = {id(outcome) for outcome in tuning.front}
    shown = [*tuning.fitting, *(outcome for outcome in tuning.outcomes if not outcome.fits)]
    axes = [name for name in DIMENSIONS if any(name in outcome.settings for outcome in shown)]
    table = pd.DataFrame([_row(outcome, axes) | {"on_front": id(outcome) in front} for outcome in shown])
    table.attrs["axes"] = axes
    return table


def upgrades_table(tuning: Tuning, bought: Sequence[Upgrade]) -> pd.DataFrame:
    """The best setting as it is and with each upgrade; `gain` is the ratio of tokens per second."""
    import pandas as pd

    bests = {"as it is": tuning.best} | {upgrade.name: upgrade.best for upgrade in bought}
    axes = [name for name in DIMENSIONS if any(best and name in best.settings for best in bests.values())]
    found = {name: best for name, best in bests.items() if best is not None}
    rows = [_row(best, axes) for best in found.values()]
    if tuning.best is not None:
        rows = [row | {"gain": row["tokens_per_s"] / tuning.best.tokens_per_s} for row in rows]
    return pd.DataFrame(rows, index=pd.Index(found, name="upgrade"))


def _row(outcome: Outcome, axes: Sequence[str]) -> dict[str, Any]:
    return {
        "scheduler": outcome.scenario.scheduler.name,
        **{name: outcome.settings.get(name) for name in axes if name != "scheduler"},
        "fits": outcome.fits,
        "iteration_s": outcome.iteration_s if outcome.fits else None,
        "tokens_per_s": outcome.tokens_per_s if outcome.fits else None,
        "gpu_peak_bytes": outcome.gpu_bytes,
        "host_peak_bytes": outcome.host_bytes,
        "limited_by": next(iter(outcome.limited_by), "") if outcome.fits else "memory",
    }


def counts(tuning: Tuning) -> str:
    """How many settings were simulated, and how many did not need to be."""
    return f"{plural(len(tuning.outcomes), 'setting')} simulated, {tuning.ruled_out} ruled out by lower bounds"


def tuning_text(tuning: Tuning) -> str:
    """The best setting, in a few lines."""
    best, given = tuning.best, tuning.given
    counted = counts(tuning)
    if best is None:
        return f"{given.scenario.name}: none of the settings tried fits in memory\n  {counted}"
    as_given = format_time(given.iteration_s) if given.fits else "does not fit"
    lines = [
        f"{given.scenario.name}: {', '.join(f'{name} {value}' for name, value in best.settings.items())}",
        f"{format_time(best.iteration_s)}, {best.tokens_per_s:,.0f} tokens/s (as given: {as_given})",
        f"GPU {format_memory(best.gpu_bytes)}, host {format_memory(best.host_bytes)}",
        counted,
    ]
    return "\n  ".join(lines)
