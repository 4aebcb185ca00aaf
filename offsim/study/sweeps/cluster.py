"""The workers of a Dask cluster as an executor of `concurrent.futures`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from offsim.inputs.errors import InputError

CONNECT_S = 3.0
"""How long a scheduler may take to answer."""
WORKERS = 8
"""For so many there is work at least."""


@contextmanager
def cluster_workers(address: str) -> Iterator[tuple[Executor, int]]:
    """Yield the workers of the cluster whose scheduler is at `address`, and how many to plan for, as more may come.

    Work whose worker dies is tried again as often as the scheduler allows (`allowed-failures`).
    """
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
    with Client(address, timeout=CONNECT_S, set_as_default=False) as client:
        yield client.get_executor(pure=False), max(sum(client.nthreads().values()), WORKERS)
