"""The validation page, from the tables that come with offsim: `python -m offsim.validation.page [DOCS FOLDER]`.

Writes validation.md and the pictures that it shows, the README's table of errors, and the picture at its top.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from offsim.api import compare
from offsim.inputs.files import atomic_write
from offsim.validation.accuracy import ACCURACY as ACCURACY_FILE
from offsim.validation.markdown import RANKING_QUESTION, error_table, markdown_table, ranking_list, worst_table
from offsim.validation.plot import plot_scatter
from offsim.validation.plot_iteration import plot_iteration
from offsim.validation.predictions import Validation, validate_runs
from offsim.validation.report import signed_percent
from offsim.validation.score import comparisons, scores
from offsim.validation.series import GIB, SeriesComparison, compare_series, read_series, run_of
from offsim.validation.table import HELD_OUT, SHIPPED_RUNS, read_runs
from offsim.views.figure import Picture, save_picture

SCATTER, ITERATION = "validation_scatter.png", "validation_iteration.png"
WORST = 10
SHOWN_SERIES = ("20B", 1.0, "deep_optimizer_states")
COMPARISON = "comparison.png"
SHOWN_SCENARIO = "dos_20b_4xh100"
SHOWN_SCHEDULERS = ("zero3_offload", "zero3_offload_async_grads", "deep_optimizer_states")
ACCURACY = "accuracy"
HELD_OUT_PHASES = ("forward", "backward", "update", "sum")  # as held_out.json calls them
LARGE = 0.15

_INTRODUCTION = """# Validation

How far predictions are from measured runs. This page is generated (`python -m offsim.validation.page`) from the tables
in `offsim/validation/`; its README says where they come from and how repetitions of a run differ.

## How predictions are made

Each row of `measured_runs.csv` is simulated from its configuration columns alone: hardware, model, parallelism, batch,
scheduler and its options. Constants come from the hardware profile; none belongs to a model or to a run. Constants of
the three profiles below were fitted to the same rows (see "Models left out of the fit" for what that flatters), held
near published figures of the hardware. An error is predicted over measured, less 1; `median`, `p90` and `worst`
are of errors without their sign, `bias` is the median with it. `sum` is forward + backward + step. `iteration` adds
what the measuring itself took (a constant of the testbed), `peak after backward` is the high-water mark of GPU memory.
`offsim validate FILE` makes the same comparison for any table with these columns.
"""

_SERIES = """## One iteration over time

Three iterations of nine runs on `jlse-4xh100` were sampled every 42 ms: PCIe counters, and GPU memory as the driver
reports it. Below is one of 20B parameters under Deep Optimizer States. Between its phases the measured iteration has
stretches of instrumentation, which are not simulated.

![Measured above predicted PCIe traffic and GPU memory](images/{picture})

Counters include the protocol's overhead: headers, requests and acknowledgements, also those of the other direction.
One factor, {overhead:g}, stands for all of it. The table has the predicted payload, the counters' integral divided by
that factor (mean of three iterations) and the error; errors above {large:.0f} % are bold.
"""

_SERIES_NOTES = """
- D2H is within {d2h:.0f} % in every phase. H2D during backward reads higher than predicted where gradients are flushed
  asynchronously, while with blocking flushes, which upload the same bytes, it is closest. Acknowledgements of the D2H
  traffic and kernel launches (forward, which copies nothing, has some H2D too) can account for a part of it.
- The H2D of Deep Optimizer States reads lower in the step and higher in the other phases than predicted, and agrees
  better over the iteration. More of its last uploads end in forward than predicted, how many differs from iteration to
  iteration; what else backward carries is not known.
- An integral of 5 to 10 samples (forward) is uncertain by one sample at either end.
"""

_MEMORY = """
GPU memory: correlation of the driver's reading with the predicted course, and how much higher the reading is. The
framework's allocator keeps what tensors gave back until it is emptied, about at each phase's end; so the prediction
here is the most held since the phase began. During backward that is its very start, so there is nothing to correlate;
the reading goes on rising as the allocator collects blocks of different streams and sizes. The level beyond the
prediction is the CUDA context, communicators and those blocks.
"""

_NOT_MODELLED = """## What is not modelled

- Variation: iterations of a run, and above all runs on other nodes or days, differ; a prediction is one number.
- Instrumentation between phases, but for the constant in `iteration`.
- Interference on shared networks, clocks that change with temperature, and stragglers: ranks and nodes are alike.
- The caching allocator: predicted memory is what tensors hold, not what the driver reports.
- Ranks that are not bound to cores move; `polaris-4xa100` has constants for that situation, which changes from run to
  run.
"""


def main(arguments: Sequence[str]) -> None:
    """Write the page and its pictures into a folder, by default `docs`."""
    folder = Path(arguments[0]) if arguments else Path("docs")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    validation = validate_runs(read_runs(SHIPPED_RUNS))
    series = compare_series(read_series(), validation.table.runs)
    for name, picture in pictures(validation, series).items():
        save_picture(picture, folder / "images" / name)
    with atomic_write(folder / "validation.md") as file:
        file.write(page(validation, series, held_out()).encode())
    save_picture(compare(SHOWN_SCENARIO, SHOWN_SCHEDULERS).plot(), folder / "images" / COMPARISON)
    readme = folder.parent / "README.md"
    if readme.exists():
        text = readme.read_text(encoding="utf-8")
        with atomic_write(readme) as file:
            file.write(with_accuracy(text, validation, held_out()).encode())
    errors = folder.parent / "offsim" / "validation" / ACCURACY_FILE.name
    if errors.exists():
        with atomic_write(errors) as file:
            file.write(accuracy_file(validation))


def with_accuracy(text: str, validation: Validation, left_out: Mapping[str, Any]) -> str:
    """Put the tables of errors between the README's marks for them; without marks it stays as it is."""
    before, mark, rest = text.partition(f"<!-- {ACCURACY} -->\n")
    _, end, after = rest.partition(f"<!-- /{ACCURACY} -->")
    return f"{before}{mark}{accuracy(validation, left_out)}{end}{after}" if end else text


def accuracy(validation: Validation, left_out: Mapping[str, Any]) -> str:
    """Median and 90th percentile of errors by hardware, and medians on models left out of the fit, in Markdown."""
    scored = scores(comparisons(validation))
    phases = ("forward", "backward", "step", "sum", "peak after backward")
    fitted = [
        (f"`{hardware}`", table["sum"].n, *(f"{100 * table[p].median:.1f} / {100 * table[p].p90:.1f}" for p in phases))
        for hardware, table in scored.items()
    ]
    held_out = [
        (
            f"`{hardware}`",
            model,
            table["sum"]["n"],
            *(f"{table[p]['median']:.1f} / {table[p]['p90']:.1f}" for p in HELD_OUT_PHASES),
        )
        for hardware, models in left_out.items()
        for model, table in models.items()
    ]
    return (
        "Absolute error of the predictions against measured runs in percent, median / 90th percentile; sum is forward\n"
        "+ backward + step, and peak the GPU memory's high-water mark during backward:\n\n"
        + markdown_table(fitted, ("hardware", "runs", *phases[:-1], "peak"), "lrrrrrr")
        + "\nThe profiles were fitted to these runs. Fitted again without the runs of one model, they predict that\n"
        + "model with these errors:\n\n"
        + markdown_table(held_out, ("hardware", "left out", "runs", "forward", "backward", "step", "sum"), "llrrrrr")
    )


def accuracy_file(validation: Validation) -> bytes:
    """The errors by hardware as `offsim.validation.accuracy` reads them."""
    sums = {hardware: table["sum"] for hardware, table in scores(comparisons(validation)).items()}
    document = {
        hardware: {"runs": score.n, "median": round(score.median, 4), "p90": round(score.p90, 4)}
        for hardware, score in sums.items()
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def held_out() -> Mapping[str, Any]:
    """The errors on models left out of the fit, as the fit wrote them; empty where it did not."""
    found: Mapping[str, Any] = orjson.loads(HELD_OUT.read_bytes()) if HELD_OUT.exists() else {}
    return found


def pictures(validation: Validation, series: Sequence[SeriesComparison]) -> dict[str, Picture]:
    """File name -> picture that the page shows."""
    shown = next(c for c in series if (c.series.model, c.series.cpu_ratio, c.series.scheduler) == SHOWN_SERIES)
    return {
        SCATTER: plot_scatter(comparisons(validation)),
        ITERATION: plot_iteration(shown, run_of(shown.series, validation.table.runs)),
    }


def page(validation: Validation, series: Sequence[SeriesComparison], left_out: Mapping[str, Any]) -> str:
    """The page's Markdown."""
    compared = comparisons(validation)
    sections = [
        _INTRODUCTION,
        f"## Errors\n\n{error_table(compared)}",
        f"![Predicted over measured values of {len(validation.predictions)} runs](images/{SCATTER})\n",
        f"## The worst runs\n\n{worst_table(validation, compared, WORST)}",
        f"## Choosing by prediction\n\n{RANKING_QUESTION}\n\n{ranking_list(validation)}",
        *([_left_out(left_out)] if left_out else []),
        _series(series),
        _NOT_MODELLED,
    ]
    return "\n".join(sections)


def _left_out(report: Mapping[str, Any]) -> str:
    rows = [
        (
            hardware,
            model,
            "step" if phase == "update" else phase,
            score["n"],
            *(f"{score[name]:.1f} %" for name in ("median", "p90")),
        )
        for hardware, models in report.items()
        for model, phases in models.items()
        for phase, score in phases.items()
    ]
    intro = (
        "## Models left out of the fit\n\nConstants fitted again without the runs of one model, which are then "
        "predicted: what to expect of a model that was\nnever measured. Repetitions of a run count once.\n"
    )
    return f"{intro}\n{markdown_table(rows, ('hardware', 'left out', 'phase', 'runs', 'median', 'p90'), 'lllrrr')}"


def _series(series: Sequence[SeriesComparison]) -> str:
    overhead = series[0].overhead
    large = 100 * LARGE
    d2h = max(
        abs(error)
        for comparison in series
        for entry in comparison.traffic
        if entry.direction == "D2H" and entry.phase != "iteration"
        if (error := entry.error(overhead)) is not None
    )
    parts = [_SERIES.format(picture=ITERATION, overhead=overhead, large=large), _traffic(series)]
    parts += [_SERIES_NOTES.format(d2h=100 * d2h), _MEMORY, _memory(series)]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _traffic(series: Iterable[SeriesComparison]) -> str:
    rows = []
    for comparison in series:
        by_phase = {(entry.direction, entry.phase): entry for entry in comparison.traffic}
        for direction in ("D2H", "H2D"):
            cells = []
            for phase in ("backward", "step", "iteration"):
                entry = by_phase[direction, phase]
                error = entry.error(comparison.overhead)
                values = f"{entry.predicted / 1e9:.1f} / {entry.mean_counted / comparison.overhead / 1e9:.1f}"
                text = "" if error is None else signed_percent(error, 0)
                cells += [values, f"**{text}**" if error is not None and abs(error) > LARGE else text]
            rows.append((comparison.series.name if direction == "D2H" else "", direction, *cells))
    headers = ["run", "", *(head for phase in ("backward", "step", "iteration") for head in (f"{phase} (GB)", "error"))]
    return markdown_table(rows, headers, "llrrrrrr")


def _memory(series: Iterable[SeriesComparison]) -> str:
    rows = []
    for comparison in series:
        courses = {course.phase: course for course in comparison.memory}
        whole, forward = courses["iteration"], courses["forward"]
        correlations = ["" if c.correlation is None else f"{c.correlation:.2f}" for c in (whole, forward)]
        higher = [f"{courses[phase].level / GIB:.1f}" for phase in ("forward", "backward", "step")]
        rows.append((comparison.series.name, *correlations, *higher))
    levels = [f"{phase}: higher by (GiB)" for phase in ("forward", "backward", "step")]
    return markdown_table(rows, ["run", "correlation, iteration", "forward", *levels], "lrrrrr")


if __name__ == "__main__":
    main(sys.argv[1:])
