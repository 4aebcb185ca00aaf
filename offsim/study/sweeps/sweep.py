"""Run a sweep: simulate its points wherever there are workers, keep every outcome, make the table."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO

from offsim.inputs.errors import InputError
from offsim.study.sweeps import local
from offsim.study.sweeps.folder import JOURNAL, claim, writing
from offsim.study.sweeps.journal import Journal
from offsim.study.sweeps.local import Task
from offsim.study.sweeps.point import points
from offsim.study.sweeps.sweep_file import Sweep, read_sweep
from offsim.study.sweeps.table import read_results, write_table
from offsim.study.sweeps.worker import failure

if TYPE_CHECKING:
    import pandas as pd

MAX_POINTS = 100_000


@dataclass
class Progress:
    """How far a sweep is, in points."""

    total: int
    done: int = 0
    simulated: int = 0
    """Of those done: simulated now."""
    known: int = 0
    """Of those done: in the journal from before."""


def sweep(
    spec: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    resume: bool = False,
    max_points: int = MAX_POINTS,
    dask: str | None = None,
) -> pd.DataFrame:
    """Simulate every point of a sweep; return a table with a row per point.

    `spec` is a sweep file, the name of one that comes with offsim, or a mapping of the same shape. Outcomes are kept in
    the folder `out`, so that `resume` continues a sweep that was interrupted; without one they are not kept. `jobs` is
    the number of worker processes, by default one for each core; `dask` the address of a scheduler to use instead.
    Raises InputError; a point that fails is a row with an `error`.
    """
    with nullcontext(out) if out is not None else TemporaryDirectory(prefix="offsim-") as folder:
        run_sweep(read_sweep(spec), Path(folder), jobs=jobs, resume=resume, max_points=max_points, dask=dask)
        return read_results(folder)


def run_sweep(
    plan: Sweep,
    folder: Path,
    *,
    jobs: int | None = None,
    resume: bool = False,
    max_points: int = MAX_POINTS,
    dask: str | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Simulate what the folder does not have yet and write its table. `report` is called after each point."""
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: found {jobs}, expected at least 1")
    if plan.count > max_points:
        raise InputError(
            f"the sweep has {plan.count:,} points, expected at most {max_points:,}; allow more with --max-points"
        )
    if not plan.count:
        raise InputError("the sweep has no points: 'skip' drops all of them")
    progress = Progress(plan.count)
    begun: set[bytes] = set()
    with (
        claim(folder, plan.content, resume=resume),
        writing(folder),
        Journal(folder / JOURNAL) as journal,
        TemporaryFile(dir=folder) as ids,
    ):
        tasks = _missing(plan, journal, begun, ids, progress)
        with closing(_workers(tasks, jobs, dask)) as outcomes:
            for key, outcome in outcomes:
                journal.append(key, outcome)
                begun.discard(key)
                progress.done += 1
                progress.simulated += 1
                report(progress)
        ids.seek(0)
        write_table(folder, plan, ids, journal)
    return progress


def _workers(tasks: Iterator[Task], jobs: int | None, dask: str | None) -> Generator[Task, None, None]:
    if dask is None:
        return local.outcomes(tasks, jobs or local.cores())
    from offsim.study.sweeps import cluster

    return cluster.outcomes(tasks, dask)


def _missing(plan: Sweep, journal: Journal, begun: set[bytes], ids: BinaryIO, progress: Progress) -> Iterator[Task]:
    """The points to simulate, noted as `begun`; the ids of all points are written to `ids` on the way."""
    for point in points(plan):
        ids.write(point.id)
        if point.error and point.id not in journal:
            journal.append(point.id, failure(point.error))
        if point.id in journal or point.id in begun:
            progress.done += 1
            progress.known += journal.had(point.id)
            continue
        begun.add(point.id)
        yield point.id, point.payload
