"""Workers of a Dask cluster: the same payloads and outcomes as those of this machine's processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from offsim.errors import InputError
from offsim.study.local import DIED, IN_FLIGHT, Task
from offsim.study.worker import failure, simulate_point

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S = 3.0
"""How long a scheduler may take to answer."""


def outcomes(tasks: Iterable[Task], address: str) -> Generator[Task, None, None]:
    """Simulate points on the cluster whose scheduler is at `address`; yield each one's id and outcome as it is there.

    Tasks are taken as threads of workers become free. A point whose worker dies is tried again, and is an error as its
    second one dies. Raises InputError where there is no scheduler or no worker, or where workers have another offsim.
    """
    with _connect(address) as client:
        yield from _outcomes(iter(tasks), client)


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("distributed", "dask"):
            raise
        raise InputError("--dask needs Dask: pip install 'offsim[dask]'") from None
    try:
        return Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        problem = f"found no Dask scheduler: {str(error) or type(error).__name__}"
        raise InputError(problem, f"--dask '{address}'") from None


def _outcomes(tasks: Iterator[Task], client: Client) -> Iterator[Task]:
    from distributed import KilledWorker, as_completed

    keys: dict[Future[bytes], bytes] = {}
    ended = as_completed()

    def submit(wanted: int) -> None:
        for key, payload in islice(tasks, wanted):
            future = client.submit(simulate_point, payload, pure=False)
            keys[future] = key
            ended.add(future)

    submit(_window(client))
    for future in ended:
        key = keys.pop(future)
        try:
            outcome = future.result()
        except KilledWorker:
            outcome = failure(DIED)
        submit(max(_window(client) - len(keys), 0))
        yield key, outcome


def _window(client: Client) -> int:
    """How many points are under way at a time: what the workers that there are now need to be busy."""
    threads: dict[str, int] = client.nthreads()
    return IN_FLIGHT * max(sum(threads.values()), 1)
