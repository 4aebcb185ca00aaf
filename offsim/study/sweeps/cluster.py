"""Workers of a Dask cluster: the same payloads and outcomes as those of this machine's processes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

from offsim.inputs.errors import InputError
from offsim.study.sweeps.local import DIED, Task
from offsim.study.sweeps.worker import failure, simulate_point

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S = 3.0
"""How long a scheduler may take to answer."""

IN_FLIGHT = 4
"""Points under way for each thread of the workers: enough to keep it busy over a network."""

LOOK_S = 1.0
"""How often it is looked how many workers there are."""


def outcomes(tasks: Iterable[Task], address: str) -> Generator[Task, None, None]:
    """Simulate points on the cluster whose scheduler is at `address`; yield each one's id and outcome as it is there.

    Tasks are taken as threads of workers become free; without workers it waits for some. A point whose worker dies is
    tried again as often as the scheduler allows (`allowed-failures`), and is an error then. Raises InputError where
    there is no scheduler and where workers cannot simulate.
    """
    with _connect(address) as client:
        yield from _outcomes(iter(tasks), client)


def _connect(address: str) -> Client:
    try:
        from distributed import Client
        from distributed.comm.core import connect
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("distributed", "dask"):
            raise
        raise InputError("--dask needs Dask: pip install 'offsim[dask]'") from None

    async def knock() -> None:
        await (await connect(address, timeout=CONNECT_S)).close()

    # First without a client: one that could not connect waits long before it gives up, and writes tracebacks. In a
    # thread, as notebooks have an event loop in this one.
    try:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(knock())).result()
    except Exception as error:  # whatever answers there may be no scheduler at all
        problem = f"found no Dask scheduler: {str(error) or type(error).__name__}"
        raise InputError(problem, f"--dask '{address}'") from None
    return Client(address, timeout=CONNECT_S, set_as_default=False)


def _outcomes(tasks: Iterator[Task], client: Client) -> Iterator[Task]:
    from distributed import KilledWorker, as_completed

    under_way: dict[Future[bytes], bytes] = {}
    ended = as_completed(loop=client.loop)
    window, looked = 0, -math.inf
    while True:
        if monotonic() - looked > LOOK_S:  # workers come and go
            threads: dict[str, int] = client.nthreads()
            window, looked = IN_FLIGHT * max(sum(threads.values()), 1), monotonic()
        for key, payload in islice(tasks, max(window - len(under_way), 0)):
            future = client.submit(simulate_point, payload, pure=False)
            under_way[future] = key
            ended.add(future)
        if not under_way:
            return
        future = next(ended)
        try:
            outcome = future.result()
        except InputError:
            raise
        except KilledWorker:
            outcome = failure(DIED)
        except CancelledError:
            raise InputError("lost the Dask scheduler; what is finished is kept, --resume continues") from None
        except Exception as error:  # of the worker's set-up: what goes wrong with a point is its outcome
            problem = f"a worker cannot simulate: {type(error).__name__}: {error}"
            raise InputError(problem) from error
        yield under_way.pop(future), outcome
