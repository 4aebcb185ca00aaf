"""Run a sweep: simulate its points wherever there are workers, keep every outcome, make the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from offsim.inputs.errors import InputError
from offsim.inputs.packaged import offsim_version
from offsim.study.processes import cores, worker_processes
from offsim.study.sweeps.axes import Sweep
from offsim.study.sweeps.cluster import cluster_workers
from offsim.study.sweeps.parquet import read_results, write_table
from offsim.study.sweeps.point import Point, failure, points, simulate_tasks
from offsim.study.sweeps.store import CONTINUES, Store, open_store
from offsim.study.sweeps.sweep_file import read_sweep

if TYPE_CHECKING:
    import pandas as pd

MAX_POINTS = 100_000
ID_BYTES = 32

TOGETHER = 64
"""Points handed to a worker at once, while there are many for each."""
IN_FLIGHT_PER_WORKER = 2
"""How often points are handed to each before some are back."""

Outcome = tuple[bytes, bytes]
"""Id of a point and its outcome as JSON."""


@dataclass
class Progress:
    """How far a sweep is, in points."""

    total: int
    done: int = 0
    simulated: int = 0
    """Of those done: simulated now."""
    known: int = 0
    """Of those done: simulated by an earlier run."""


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
    """Simulate what the folder does not have yet and write its table. `report` is called at first and as points end."""
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: found {jobs}, expected at least 1")
    progress = Progress(sum(1 for _ in islice(plan.positions(), max_points + 1)))
    if progress.total > max_points:
        raise InputError(f"the sweep has more than {max_points:,} points; allow more with --max-points")
    if not progress.total:
        raise InputError("the sweep has no points: 'skip' drops all of them")
    report(progress)
    ids = bytearray(progress.total * ID_BYTES)
    labels = [str(label) for (label,) in plan.axes[0].cells]
    with _workers(dask, jobs or cores()) as (workers, count), open_store(folder, labels, resume=resume) as store:
        begun = set[bytes]()
        missing = _missing(plan, store, ids, begun, progress)
        for outcomes in _outcomes(missing, workers, IN_FLIGHT_PER_WORKER * count, progress):
            store.add(outcomes)
            begun.difference_update(key for key, _ in outcomes)
            progress.done += len(outcomes)
            progress.simulated += len(outcomes)
            report(progress)
        write_table(folder, plan, (bytes(ids[at : at + ID_BYTES]) for at in range(0, len(ids), ID_BYTES)), store)
    return progress


@contextmanager
def _workers(dask: str | None, jobs: int) -> Iterator[tuple[Executor, int]]:
    """Yield an executor and for how many workers it has work."""
    if dask is not None:
        with cluster_workers(dask) as found:
            yield found
    else:
        with worker_processes(jobs, CONTINUES) as processes:
            yield processes, jobs


def _missing(plan: Sweep, store: Store, ids: bytearray, begun: set[bytes], progress: Progress) -> Iterator[Point]:
    """The points to simulate, noted as `begun`; the ids of all points are put into `ids`, in the order of the sweep."""
    for point in points(plan):
        ids[point.number * ID_BYTES : (point.number + 1) * ID_BYTES] = point.id
        if point.id in begun or point.id in store:
            progress.done += 1
            progress.known += store.had(point.id)
        elif point.task is None:
            progress.done += 1
            store.add([(point.id, failure(point.error))])
        else:
            begun.add(point.id)
            yield point


def _outcomes(missing: Iterator[Point], workers: Executor, window: int, progress: Progress) -> Iterator[list[Outcome]]:
    """Simulate points, some at a time; yield the outcomes that are there as soon as there are some."""
    version = offsim_version()
    under_way: dict[Future[list[bytes]], list[Point]] = {}
    ended: SimpleQueue[Future[list[bytes]]] = SimpleQueue()
    handed_back: list[Point] = []
    while True:
        while len(under_way) < window and ended.empty():
            count = min(TOGETHER, (progress.total - progress.done) // window + 1)
            some, handed_back = handed_back[:count] or list(islice(missing, count)), handed_back[count:]
            if not some:
                break
            future = workers.submit(simulate_tasks, version, [point.task for point in some if point.task])
            under_way[future] = some
            future.add_done_callback(ended.put)
        if not under_way:
            return
        together = [ended.get(), *(ended.get() for _ in range(ended.qsize()))]
        lost = [future for future in together if future.cancelled() or future.exception()]
        outcomes: list[Outcome] = []
        for future in together:
            if future not in lost:
                some, found = under_way.pop(future), future.result()
                outcomes += zip((point.id for point in some), found, strict=False)
                handed_back += some[len(found) :]
        yield outcomes
        for future in lost:
            _complain(future)


def _complain(future: Future[list[bytes]]) -> None:
    """Raise what kept a worker from simulating; what goes wrong with a point is its outcome."""
    try:
        future.result()
    except CancelledError:
        raise InputError(f"lost the Dask scheduler; {CONTINUES}") from None
    except (InputError, BrokenExecutor):
        raise
    except Exception as error:
        raise InputError(f"a worker cannot simulate: {type(error).__name__}: {error}; {CONTINUES}") from error
