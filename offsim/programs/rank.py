"""A rank: the host thread and the streams of one GPU, and what a scheduler may command of them.

Blocking calls return an event that the host thread must `yield`; asynchronous ones return an `Operation` that
others may be ordered behind. Byte counts per parameter are those of the real systems' tensors.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

from simpy import Event

from offsim.engine import Engine, MemoryTier, Operation, Rendezvous, Resource, Stream
from offsim.engine.operation import MemoryChange, Usage
from offsim.platform.node import Device, Node
from offsim.programs.transformer import Cost, Workload

Process = Generator[Event, Any, None]

ADAM_TRAFFIC = 28  # read p, m, v, g and write p, m, v, all fp32
SCALE_TRAFFIC = 8
DOWNCAST_TRAFFIC = 10  # scaled in a second pass: read 4 + 2, write 2 + 2 (schedules of the released code)
UPCAST_TRAFFIC = 6


class HostThread(Stream):
    """A host thread is the stream of its own blocking work."""


class Rank:
    """Commands of one rank. `phase` is what newly enqueued operations are accounted to."""

    def __init__(self, engine: Engine, node: Node, number: int, workload: Workload, collectives: Collectives) -> None:
        self.engine = engine
        self.number = number
        self.workload = workload
        self.node = node
        self.profile = node.profile
        self.phase = "forward"
        self.device = Device(engine, node.profile, number)
        domain = node.domain_of(number)
        self._host_memory = node.host_memory[domain]
        self._cores = node.cores[domain]
        self._uplink = node.uplinks[number // node.profile.link.gpus_per_uplink] if node.uplinks else None
        self._collectives = collectives
        self.host = HostThread("host thread", number)
        self._streams: dict[str, Stream] = {}
        self._threads: dict[str, HostThread] = {}
        self.compute_stream = self.stream("compute")
        self.collective_stream = self.stream("collectives")
        self.reduce_stream = self.stream("reduce")

    @property
    def gpu_memory(self) -> MemoryTier:
        """The rank's own device memory."""
        return self.device.memory

    @property
    def host_memory(self) -> MemoryTier:
        """Host memory, which the ranks of a node share."""
        return self.node.memory

    def stream(self, name: str) -> Stream:
        """The rank's stream of that name, made at its first use."""
        if name not in self._streams:
            self._streams[name] = Stream(name, self.number)
        return self._streams[name]

    def thread(self, name: str) -> HostThread:
        """The rank's further host thread of that name."""
        if name not in self._threads:
            self._threads[name] = HostThread(name, self.number)
        return self._threads[name]

    def start(self, process: Process, thread: HostThread) -> None:
        """Run a further host thread's code; its first work waited for what the host thread did last."""
        thread.last_ended = self.host.last_ended
        self.engine.env.process(process)

    def _enqueue(
        self, operation: Operation, after: Iterable[Operation | None] = (), thread: HostThread | None = None
    ) -> Operation:
        return self.engine.enqueue(operation, self.phase, after, thread or self.host)

    def _blocking(self, operation: Operation, after: Iterable[Operation | None] = ()) -> Event:
        issuer = operation.stream if isinstance(operation.stream, HostThread) else self.host
        return self.engine.enqueue(operation, self.phase, after, issuer).completion(self.engine.env)

    # Host thread

    def launch(self, name: str, seconds: float, layer: int = -1) -> Event:
        """Blocking: the host thread runs hooks and launches kernels."""
        return self._blocking(Operation(self.host, "launch", name, seconds, ((self._cores, 1.0),), layer=layer))

    def synchronize(self, *awaited: Operation | Stream | None, thread: HostThread | None = None) -> Event:
        """Blocking: wait for operations, or for all that is on streams now."""
        operations = [x.tail if isinstance(x, Stream) else x for x in awaited]
        return self._blocking(Operation(thread or self.host, "wait", "synchronize", 0.0), operations)

    def wait_event(self, stream: Stream, operation: Operation | None) -> None:
        """Order what is enqueued on `stream` from now on behind `operation` too (cudaStreamWaitEvent)."""
        if operation is not None:
            self._enqueue(Operation(stream, "wait", "wait for event", 0.0), [operation])

    def _cpu_work(
        self,
        kind: str,
        name: str,
        elements: float,
        rate: float,
        traffic: float,
        subgroup: int,
        thread: HostThread | None,
    ) -> Event:
        usage: Usage = ((self._host_memory, traffic * rate), (self._cores, self.profile.host.cores_per_rank))
        return self._blocking(
            Operation(
                thread or self.host, kind, name, elements / rate, usage, nbytes=traffic * elements, subgroup=subgroup
            )
        )

    def cpu_adam(self, elements: float, subgroup: int) -> Event:
        """Blocking: vectorised Adam on fp32 state in host memory."""
        rate = self.profile.host.adam_params_per_s
        return self._cpu_work("cpu_adam", f"CPU Adam {subgroup}", elements, rate, ADAM_TRAFFIC, subgroup, None)

    def scale(self, elements: float, subgroup: int) -> Event:
        """Blocking: unscale and clip fp32 gradients in host memory."""
        rate = self.profile.host.scale_params_per_s
        return self._cpu_work("scaling", f"scale gradients {subgroup}", elements, rate, SCALE_TRAFFIC, subgroup, None)

    def downcast(self, elements: float, subgroup: int, thread: HostThread | None = None, fresh: bool = False) -> Event:
        """Blocking the thread: fp32 -> bf16 on the CPU, into a staging buffer or `fresh` pages."""
        host = self.profile.host
        rate = (fresh and host.fresh_downcast_params_per_s) or host.downcast_params_per_s
        return self._cpu_work(
            "conversion", f"fp32 to bf16 {subgroup}", elements, rate, DOWNCAST_TRAFFIC, subgroup, thread
        )

    def upcast(self, elements: float, subgroup: int) -> Event:
        """Blocking: bf16 -> fp32 on the CPU."""
        rate = self.profile.host.upcast_params_per_s
        return self._cpu_work("conversion", f"bf16 to fp32 {subgroup}", elements, rate, UPCAST_TRAFFIC, subgroup, None)

    # Copies

    def _copy(self, stream: Stream, kind: str, name: str, nbytes: float, rate: float, subgroup: int) -> Operation:
        down = kind == "d2h"
        direction = self.device.d2h if down else self.device.h2d
        copy_engine = self.device.d2h_engine if down else self.device.h2d_engine
        seconds = nbytes / rate + self.profile.link.copy_latency_s
        mean = nbytes / seconds  # over the copy, its fixed time included: resources see its bytes exactly
        usage: list[tuple[Resource, float]] = [
            (direction, mean),
            (self.device.duplex, mean),
            (self._host_memory, mean),
        ]
        if self._uplink is not None:
            usage.append((self._uplink[1 if down else 0], mean))
        return Operation(
            stream, kind, name, seconds, tuple(usage), nbytes=nbytes, subgroup=subgroup, engine=copy_engine
        )

    def h2d(
        self,
        stream: Stream,
        nbytes: float,
        name: str,
        subgroup: int = -1,
        after: Sequence[Operation | None] = (),
        thread: HostThread | None = None,
    ) -> Operation:
        """Asynchronous copy from pinned host memory."""
        copy = self._copy(stream, "h2d", name, nbytes, self.profile.link.h2d_bytes_per_s, subgroup)
        return self._enqueue(copy, after, thread)

    def d2h(
        self,
        stream: Stream,
        nbytes: float,
        name: str,
        subgroup: int = -1,
        after: Sequence[Operation | None] = (),
    ) -> Operation:
        """Asynchronous copy to pinned host memory."""
        return self._enqueue(
            self._copy(stream, "d2h", name, nbytes, self.profile.link.d2h_bytes_per_s, subgroup), after
        )

    def _pageable(self, stream: Stream, kind: str, nbytes: float, rate: float, name: str, subgroup: int) -> Event:
        copy = self._copy(stream, kind, name, nbytes, rate, subgroup)
        # The driver stages through a pinned buffer: the CPU reads and writes every byte once more.
        copy.usage = tuple((r, 3 * u if r is self._host_memory else u) for r, u in copy.usage)
        self._enqueue(copy)
        return self.synchronize(copy)

    def pageable_h2d(self, stream: Stream, nbytes: float, name: str, subgroup: int = -1) -> Event:
        """Blocking copy from pageable host memory."""
        return self._pageable(stream, "h2d", nbytes, self.profile.link.pageable_h2d_bytes_per_s, name, subgroup)

    def pageable_d2h(self, stream: Stream, nbytes: float, name: str, subgroup: int = -1) -> Event:
        """Blocking copy to pageable host memory."""
        return self._pageable(stream, "d2h", nbytes, self.profile.link.pageable_d2h_bytes_per_s, name, subgroup)

    # GPU

    def compute(
        self,
        name: str,
        work: Cost,
        layer: int = -1,
        after: Iterable[Operation | None] = (),
        allocates: Sequence[MemoryChange] = (),
        frees: Sequence[MemoryChange] = (),
    ) -> Operation:
        """Asynchronous kernels on the compute stream."""
        usage: Usage = ((self.device.compute, 1.0), (self.device.hbm, work.nbytes / work.seconds))
        operation = Operation(
            self.compute_stream, "compute", name, work.seconds, usage, layer=layer, allocates=allocates, frees=frees
        )
        return self._enqueue(operation, after)

    def elementwise(
        self,
        stream: Stream,
        kind: str,
        nbytes: float,
        name: str,
        subgroup: int = -1,
        after: Sequence[Operation | None] = (),
    ) -> Operation:
        """Asynchronous memory-bound kernels: bytes are device memory read plus written."""
        rate = self.profile.gpu.hbm_bytes_per_s
        seconds = nbytes / rate + self.profile.gpu.kernel_latency_s
        usage: Usage = ((self.device.compute, 1.0), (self.device.hbm, rate))
        return self._enqueue(Operation(stream, kind, name, seconds, usage, nbytes=nbytes, subgroup=subgroup), after)

    def gpu_adam(self, elements: float, subgroup: int, after: Sequence[Operation | None] = ()) -> Operation:
        """Asynchronous AdamW on fp32 state in device memory, on the compute stream."""
        seconds = elements / self.profile.gpu.adam_params_per_s + self.profile.gpu.kernel_latency_s
        usage: Usage = ((self.device.compute, 1.0),)
        name = f"GPU AdamW {subgroup}"
        operation = Operation(
            self.compute_stream, "gpu_adam", name, seconds, usage, nbytes=ADAM_TRAFFIC * elements, subgroup=subgroup
        )
        return self._enqueue(operation, after)

    # Collectives over the data-parallel group (each returns None where the group is one rank). They share one
    # communicator, on which NCCL runs them one after another.

    def all_gather(
        self,
        nbytes: float,
        layer: int,
        after: Iterable[Operation | None] = (),
        allocates: Sequence[MemoryChange] = (),
    ) -> Operation | None:
        """Asynchronous all-gather of a tensor of `nbytes` over data-parallel ranks."""
        name = f"all-gather layer {layer}" if layer >= 0 else "all-gather vocabulary"
        return self._ring("all_gather", name, nbytes, 1, layer, after, allocates)

    def reduce_scatter(self, nbytes: float, after: Iterable[Operation | None] = ()) -> Operation | None:
        """Asynchronous reduce-scatter of a tensor of `nbytes` over data-parallel ranks."""
        return self._ring("reduce_scatter", "reduce-scatter gradients", nbytes, 1, -1, after, ())

    def scalar_all_reduce(self) -> Operation | None:
        """Asynchronous all-reduce of one number over data-parallel ranks."""
        return self._ring("all_reduce", "all-reduce norm", 8, 2, -1, (), ())

    def _ring(
        self,
        kind: str,
        name: str,
        nbytes: float,
        rounds: int,
        layer: int,
        after: Iterable[Operation | None],
        allocates: Sequence[MemoryChange],
    ) -> Operation | None:
        dp = self.workload.training.data_parallel
        if dp == 1:
            return None
        sent = rounds * nbytes * (dp - 1) / dp
        interconnect = self.profile.interconnect
        rate = interconnect.gpu_bytes_per_s
        rings = self.workload.training.tensor_parallel  # each crosses the node's network once
        if self.node.nic is not None:
            rate = min(rate, self.node.nic.capacity / rings)
        seconds = sent / rate + interconnect.collective_latency_s * rounds
        usage: list[tuple[Resource, float]] = [(self.device.interconnect, sent / seconds)]
        if interconnect.collective_gpu_share:
            usage.append((self.device.compute, interconnect.collective_gpu_share))
        if self.node.nic is not None:
            usage.append((self.node.nic, sent / seconds * rings / self.node.layout.simulated))
        operation = Operation(
            self.collective_stream,
            kind,
            name,
            seconds,
            tuple(usage),
            nbytes=sent,
            layer=layer,
            allocates=allocates,
            rendezvous=self._collectives.join(self),
        )
        return self._enqueue(operation, after)

    def tensor_parallel_seconds(self, nbytes: float) -> float:
        """Time of one blocking all-reduce of `nbytes` over the tensor-parallel group (ring)."""
        tp = self.workload.training.tensor_parallel
        if tp == 1:
            return 0.0
        interconnect = self.profile.interconnect
        return 2 * nbytes * (tp - 1) / tp / interconnect.gpu_bytes_per_s + interconnect.collective_latency_s


class Collectives:
    """Matches the n-th collective across the simulated ranks of a node."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._rendezvous: list[Rendezvous] = []
        self._joined = [0] * ranks

    def join(self, rank: Rank) -> Rendezvous | None:
        """Return where the rank's next collective meets its peers; None where one rank stands for all."""
        if self.ranks == 1:
            return None
        count = self._joined[rank.number]
        self._joined[rank.number] += 1
        if count == len(self._rendezvous):
            self._rendezvous.append(Rendezvous(self.ranks))
        return self._rendezvous[count]
