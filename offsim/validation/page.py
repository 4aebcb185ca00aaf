"""Write the validation page from the tables that come with offsim: `python -m offsim.validation.page [DOCS FOLDER]`.

Besides validation.md and its pictures: the README's table of errors and picture, and accuracy.json of the package.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from offsim.inputs.files import write_together
from offsim.platform.held_out import Groups
from offsim.results.comparison import compare
from offsim.results.units import GIB
from offsim.validation.accuracy import ACCURACY, held_out
from offsim.validation.folder import shipped_runs
from offsim.validation.markdown import render
from offsim.validation.plot import plot_scatter
from offsim.validation.plot_iteration import plot_iteration
from offsim.validation.predictions import Validation, validate_runs
from offsim.validation.published import Scored, inside_line, score, shipped_figures
from offsim.validation.ranking import rankings
from offsim.validation.reasons import reasons
from offsim.validation.score import comparisons, scores, scores_by, worst_runs
from offsim.validation.series import DIRECTIONS, SeriesComparison, compare_series, read_series, run_of
from offsim.views.figure import Picture, save_picture
from offsim.views.timeline import plot_comparison

SCATTER, ITERATION, COMPARISON = "validation_scatter.png", "validation_iteration.png", "comparison.png"
WORST = 10
LARGE = 0.15
SHOWN_SERIES = "20B ratio 1 deep_optimizer_states stride 2"
SHOWN_PHASES = ("backward", "step", "iteration")
SHOWN_SCENARIO = "dos_13b_4xa100"
SHOWN_SCHEDULERS = ("zero3_offload", "zero3_offload_async_grads", "deep_optimizer_states")
MARKS = ("<!-- accuracy -->\n", "<!-- /accuracy -->")


def main(arguments: Sequence[str]) -> None:
    """Write the page and its pictures into a folder, by default `docs`, and what is beside that folder."""
    folder = Path(arguments[0]) if arguments else Path("docs")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    validation = validate_runs(shipped_runs())
    series = compare_series(read_series(), validation.table.runs)
    for name, picture in pictures(validation, series).items():
        save_picture(picture, folder / "images" / name)
    published = score(shipped_figures())
    files = {folder / "validation.md": page(validation, series, held_out(), published)}
    readme, errors = folder.parent / "README.md", folder.parent / "offsim" / "validation" / ACCURACY.name
    if readme.exists():
        files[readme] = with_accuracy(readme.read_text(encoding="utf-8"), validation, held_out(), published)
    if errors.exists():
        files[errors] = accuracy_file(validation)
    write_together({path: text.encode() for path, text in files.items()})


def pictures(validation: Validation, series: Sequence[SeriesComparison]) -> dict[str, Picture]:
    """File name -> picture of the page and of the README."""
    runs = compare(SHOWN_SCENARIO, SHOWN_SCHEDULERS)
    shown = next(compared for compared in series if compared.series.name == SHOWN_SERIES)
    return {
        SCATTER: plot_scatter(comparisons(validation)),
        ITERATION: plot_iteration(shown, run_of(shown.series, validation.table.runs)),
        COMPARISON: plot_comparison([(name, r.timeline, r.phases) for name, r in zip(runs.labels, runs, strict=True)]),
    }


def page(
    validation: Validation,
    series: Sequence[SeriesComparison],
    left_out: Mapping[str, Groups],
    published: Sequence[Scored],
) -> str:
    """The page's Markdown."""
    compared = comparisons(validation)
    overhead = series[0].overhead
    traffic = [entry for one in series for entry in one.traffic if entry.phase != "iteration"]
    d2h = [entry.error(overhead) for entry in traffic if entry.direction == "D2H"]
    return render(
        "page.md.jinja",
        runs=len(validation.predictions),
        by_hardware=scores_by(compared, "hardware"),
        scatter=SCATTER,
        worst=[(worst, reasons(validation, worst)) for worst in worst_runs(compared, WORST)],
        rankings=rankings(validation.predictions),
        left_out=left_out,
        iteration=ITERATION,
        overhead=overhead,
        large=LARGE,
        directions=tuple(DIRECTIONS),
        phases_shown=SHOWN_PHASES,
        series=series,
        d2h_worst=max(abs(error) for error in d2h if error is not None),
        correlations=[one.memory_correlation for one in series if one.memory_correlation is not None],
        published=published,
        published_inside=inside_line(published),
        levels_gib=[level / GIB for one in series for level in one.memory_levels.values()],
    )


def with_accuracy(
    text: str, validation: Validation, left_out: Mapping[str, Groups], published: Sequence[Scored]
) -> str:
    """The README with errors of runs and of published figures between its marks; without marks as it is."""
    before, begin, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    table = render(
        "accuracy.md.jinja",
        scores=scores(comparisons(validation)),
        left_out=left_out,
        published_inside=inside_line(published),
    )
    return f"{before}{begin}{table}{end}{after}" if end else text


def accuracy_file(validation: Validation) -> str:
    """The errors of the sum by hardware, as `offsim.validation.accuracy` reads them."""
    document = {
        hardware: {"runs": table["sum"].n, "median": round(table["sum"].median, 4), "p90": round(table["sum"].p90, 4)}
        for hardware, table in scores(comparisons(validation)).items()
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


if __name__ == "__main__":
    main(sys.argv[1:])
