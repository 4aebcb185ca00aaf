"""A rank: the threads and streams of one GPU, and what a schedule may command of them.

Every command returns an `Operation`. A thread that yields it waits for its end, as a blocking call does; operations
named in `after` end before it starts. Byte counts per parameter are those of the real systems' tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from offsim.engine import (
    Code,
    Engine,
    MemoryChange,
    Operation,
    Rendezvous,
    Resource,
    Server,
    Stream,
    Thread,
    Tier,
    Usage,
)
from offsim.platform.platform import GPU, HOST, Platform
from offsim.programs.transformer import Bucket, Cost, Workload
from offsim.states.block import Block

ADAM_READS, ADAM_WRITES = 12, 12
"""p, m and v in fp32; the gradient is 4 more."""
ADAM_TRAFFIC = ADAM_READS + ADAM_WRITES + 4
CAST_WRITES = 2
TORCH_ADAM_TRAFFIC = 80
"""A pass over memory for each operation of PyTorch's loop (torch.optim.adamw, single tensor), temporaries included."""
TORCH_FUSED_SPEEDUP = 1.8
"""Of `fused=True` over the loop: 56.0 against 31.8 ms on 32 cores (zhuhaozhe/Misc, bench-fused-optimizer)."""
SCALE_TRAFFIC = 8
ADD_TRAFFIC = 12
DOWNCAST_TRAFFIC = 10  # scaled in a second pass: read 4 + 2, write 2 + 2 (schedules of the released code)
UPCAST_TRAFFIC = 6
COPY_TRAFFIC = 2
"""Bytes of host memory that a copy within it moves for each byte copied."""

After = Iterable[Operation | None]


class Rank:
    """Commands of one rank. What its threads enqueue has their tags: phase and iteration."""

    def __init__(
        self, engine: Engine, platform: Platform, number: int, workload: Workload, collectives: Collectives
    ) -> None:
        self.engine = engine
        self.number = number
        self.workload = workload
        self.platform = platform
        self.profile = platform.profile
        self.device = platform.devices[number]
        self.parameters: list[Block] = []
        """The 16-bit parameters of each sub-group."""
        self._cores = platform.cores[platform.domain_of(number)]
        self._collectives = collectives
        self.left: list[Operation] = []
        """Copies from the GPU."""
        self.came: list[Operation] = []
        """Copies to the GPU."""
        self.updates: list[tuple[Operation, float]] = []
        """Adam of parts of sub-groups, in elements."""
        self.gathered: dict[int, Operation] = {}
        """Of each layer, the all-gather that no kernel has used yet."""
        self.gathers: list[Operation] = []
        """All-gathers that are of no layer."""
        self.reduced: list[tuple[int, Bucket, Operation]] = []
        """Of each iteration and bucket, what ends when its gradients are reduced."""
        self.backward_from: dict[int, int] = {}
        """Of each iteration, the first copy from the GPU in its last backward."""
        self.uses: list[tuple[Operation, int, Sequence[Operation | None], Operation | None]] = []
        """The first kernel of each pass of a layer, what wrote its parameters, and what gathered them."""
        self.host = Thread("host thread", number)
        self._enqueue = engine.enqueue
        self._streams: dict[str, Stream] = {}
        self._threads: dict[str, Thread] = {}
        self._core_shares: dict[Thread, float] = {}
        self._turns: dict[Thread | None, tuple[tuple[Server, ...], int]] = {}
        self._launching: Usage = ((self._cores, 1.0),)
        self._kernels: dict[float, Usage] = {}
        self._rings: dict[tuple[float, int], tuple[float, float, Usage]] = {}
        self.compute_stream = self.stream("compute")
        self.collective_stream = self.stream("collectives")
        self.reduce_stream = self.stream("reduce")

    # Places

    def tier(self, name: str) -> Tier:
        """The tier of that name: the rank's own `gpu`, the node's `host`, or a further one of the profile."""
        return self.platform.tier(name, self.number)

    @property
    def gpu_memory(self) -> Tier:
        """The rank's own device memory."""
        return self.device.memory

    @property
    def host_memory(self) -> Tier:
        """Host memory, which the ranks of a node share."""
        return self.platform.memory

    @property
    def iteration(self) -> int:
        """The iteration that the host thread is in, from 1."""
        return self.host.iteration

    def stream(self, name: str) -> Stream:
        """The rank's stream of that name, made at its first use."""
        if name not in self._streams:
            self._streams[name] = Stream(name, self.number)
        return self._streams[name]

    def give_cores(self, thread: Thread, share: float) -> None:
        """CPU work on the thread runs on a share of the rank's cores from now on.

        Adam is so much slower: an upper bound of its time. Casts, scaling and copies are slower only where the cores of
        the share move fewer bytes than the work takes, each as many as one that copies.
        """
        self._core_shares[thread] = share

    def take_turns(self, thread: Thread, server: Server, priority: int = 0) -> None:
        """CPU work on the thread holds the server from now on, as that of others: lower priorities first."""
        self._turns[thread] = (server,), priority

    def thread(self, name: str) -> Thread:
        """The rank's further thread of that name, made at its first use."""
        if name not in self._threads:
            self._threads[name] = Thread(name, self.number)
        return self._threads[name]

    def spawn(self, name: str, code: Code) -> Operation:
        """Run `code` on the thread of that name, behind the code it has; returns its end, to `yield` or to ignore."""
        return self.engine.spawn(self.thread(name), code, self.host)

    # Threads

    def launch(self, name: str, seconds: float, layer: int = -1) -> Operation:
        """The host thread runs hooks and launches kernels."""
        return self._enqueue(Operation(self.host, "launch", name, seconds, self._launching, layer=layer), (), self.host)

    def wait(
        self,
        *awaited: Operation | Stream | None,
        thread: Thread | None = None,
        takes: Sequence[MemoryChange] = (),
    ) -> Operation:
        """A thread waits for operations, for all that is on streams now, and for buffers that it `takes`."""
        operations = [self.engine.tail(x) if isinstance(x, Stream) else x for x in awaited]
        thread = thread or self.host
        return self._enqueue(Operation(thread, "wait", "synchronize", 0.0, allocates=takes), operations, thread)

    def all_of(self, operations: After) -> Operation | None:
        """What ends with the last of these operations; None where all have ended."""
        pending = [each for each in operations if each is not None and not self.engine.has_ended(each)]
        if len(pending) < 2:
            return pending[0] if pending else None
        return self._enqueue(
            Operation(Stream("events", self.number), "wait", "wait for events", 0.0), pending, self.host
        )

    def wait_event(
        self,
        stream: Stream,
        operation: Operation | None,
        takes: Sequence[MemoryChange] = (),
        frees: Sequence[MemoryChange] = (),
    ) -> None:
        """Order what is enqueued on `stream` from now on behind `operation` too (cudaStreamWaitEvent).

        From then on it holds the memory that it `takes`, and what it `frees` is free for the stream.
        """
        if operation is not None or takes:
            waiting = Operation(stream, "wait", "wait for event", 0.0, allocates=takes, frees=frees)
            self._enqueue(waiting, [operation], self.host)

    def free_after(self, operations: Operation | Sequence[Operation], frees: Sequence[MemoryChange]) -> None:
        """Give memory or buffers back when the operations have ended."""
        behind = [operations] if isinstance(operations, Operation) else operations
        released = Operation(Stream("release", self.number), "wait", "release", 0.0, frees=frees)
        self._enqueue(released, behind, self.host)

    def _cpu(
        self,
        kind: str,
        name: str,
        elements: float,
        rate: float,
        usage: Usage,
        nbytes: float,
        subgroup: int,
        thread: Thread | None,
        streamed: float = 0.0,
    ) -> Operation:
        """Work at `rate` on all cores of the rank, which takes `usage` of memory.

        `streamed` are its bytes per second where it only passes over memory.
        """
        cores, share = self.profile.host.cores_per_rank, self._core_shares.get(thread or self.host)
        if share is not None:
            cores *= share
            passed = COPY_TRAFFIC * self.profile.host.copy_bytes_per_s * cores
            slowed = max(share, min(1.0, passed / streamed)) if streamed else share
            rate *= slowed
            usage = tuple((resource, slowed * asked) for resource, asked in usage)
        usage += ((self._cores, cores),)
        holds, priority = self._turns.get(thread, ((), 0))
        operation = Operation(
            thread or self.host, kind, name, elements / rate, usage, nbytes, subgroup, holds=holds, priority=priority
        )
        return self._enqueue(operation, (), thread or self.host)

    def _host_work(
        self, kind: str, name: str, elements: float, rate: float, traffic: float, subgroup: int, thread: Thread | None
    ) -> Operation:
        streamed = traffic * rate
        usage = self.platform.memory_usage(HOST, self.number, 0.0, streamed)
        return self._cpu(kind, name, elements, rate, usage, traffic * elements, subgroup, thread, streamed)

    def cpu_adam(
        self,
        elements: float,
        subgroup: int,
        tier: str = HOST,
        thread: Thread | None = None,
        casts: bool = False,
    ) -> Operation:
        """Vectorised Adam on fp32 state in a memory tier; the gradient is in host memory.

        With `casts` it writes the parameters in 16 bits as well, as DeepSpeed's fused kernel does.
        """
        traffic = ADAM_TRAFFIC + (CAST_WRITES if casts else 0)
        rate = self.profile.host.adam_params_per_s
        return self._adam(f"CPU Adam {subgroup}", elements, subgroup, rate, traffic, tier, thread)

    def _adam(
        self,
        name: str,
        elements: float,
        subgroup: int,
        rate: float,
        traffic: float,
        tier: str,
        thread: Thread | None = None,
    ) -> Operation:
        """What it moves beyond p, m and v is in host memory."""
        if tier == HOST:
            usage = self.platform.memory_usage(HOST, self.number, 0.0, traffic * rate)
        else:
            usage = self.platform.memory_usage(HOST, self.number, 0.0, (traffic - ADAM_READS - ADAM_WRITES) * rate)
            usage += self.platform.memory_usage(tier, self.number, ADAM_READS * rate, ADAM_WRITES * rate)
        updated = self._cpu("cpu_adam", name, elements, rate, usage, traffic * elements, subgroup, thread)
        self.updates.append((updated, elements))
        return updated

    def torch_adam(self, elements: float, subgroup: int, tier: str = HOST, fused: bool = False) -> Operation:
        """PyTorch's own AdamW on fp32 state in a memory tier."""
        host = self.profile.host
        rate = host.torch_adam_params_per_s or host.adam_params_per_s * ADAM_TRAFFIC / TORCH_ADAM_TRAFFIC
        traffic = ADAM_TRAFFIC if fused else TORCH_ADAM_TRAFFIC
        rate *= TORCH_FUSED_SPEEDUP if fused else 1.0
        return self._adam(f"PyTorch AdamW {subgroup}", elements, subgroup, rate, traffic, tier)

    def add(self, elements: float, subgroup: int, thread: Thread | None = None) -> Operation:
        """Add fp32 gradients to others in host memory, at the bytes per second of scaling."""
        rate = self.profile.host.scale_params_per_s * SCALE_TRAFFIC / ADD_TRAFFIC
        return self._host_work("scaling", f"add gradients {subgroup}", elements, rate, ADD_TRAFFIC, subgroup, thread)

    def scale(self, elements: float, subgroup: int, thread: Thread | None = None) -> Operation:
        """Unscale and clip fp32 gradients in host memory."""
        rate = self.profile.host.scale_params_per_s
        return self._host_work(
            "scaling", f"scale gradients {subgroup}", elements, rate, SCALE_TRAFFIC, subgroup, thread
        )

    def downcast(self, elements: float, subgroup: int, thread: Thread | None = None, fresh: bool = False) -> Operation:
        """fp32 -> bf16 on the CPU, into a staging buffer or `fresh` pages."""
        host = self.profile.host
        rate = (fresh and host.fresh_downcast_params_per_s) or host.downcast_params_per_s
        name = f"fp32 to bf16 {subgroup}"
        return self._host_work("conversion", name, elements, rate, DOWNCAST_TRAFFIC, subgroup, thread)

    def upcast(self, elements: float, subgroup: int, thread: Thread | None = None) -> Operation:
        """bf16 -> fp32 on the CPU."""
        rate = self.profile.host.upcast_params_per_s
        name = f"bf16 to fp32 {subgroup}"
        return self._host_work("conversion", name, elements, rate, UPCAST_TRAFFIC, subgroup, thread)

    def host_pass(
        self, nbytes: float, name: str, kind: str = "scaling", subgroup: int = -1, thread: Thread | None = None
    ) -> Operation:
        """All cores of the thread go over host memory, reading and writing so many bytes at the rate of scaling."""
        elements, rate = nbytes / SCALE_TRAFFIC, self.profile.host.scale_params_per_s
        return self._host_work(kind, name, elements, rate, SCALE_TRAFFIC, subgroup, thread)

    def copy_state(self, elements: float, subgroup: int, thread: Thread | None = None) -> Operation:
        """fp32 values within host memory by all cores of the thread: as many bytes as scaling moves."""
        name = f"copy in host memory {subgroup}"
        return self.host_pass(SCALE_TRAFFIC * elements, name, "host copy", subgroup, thread)

    def host_copy(self, nbytes: float, name: str, thread: Thread | None = None) -> Operation:
        """A copy within host memory by one core."""
        rate = self.profile.host.copy_bytes_per_s
        usage: Usage = (
            *self.platform.memory_usage(HOST, self.number, 0.0, COPY_TRAFFIC * rate),
            (self._cores, 1.0),
        )
        operation = Operation(thread or self.host, "host copy", name, nbytes / rate, usage, nbytes)
        return self._enqueue(operation, (), thread or self.host)

    # Copies

    def move(
        self,
        nbytes: float,
        source: str,
        destination: str,
        name: str,
        subgroup: int = -1,
        *,
        layer: int = -1,
        stream: Stream | None = None,
        after: After = (),
        thread: Thread | None = None,
        pinned: bool = True,
        fresh: float = 0.0,
        direct: bool = False,
        holds: tuple[Server, ...] = (),
        allocates: Sequence[MemoryChange] = (),
        frees: Sequence[MemoryChange] = (),
        priority: int = 0,
    ) -> Operation:
        """Copy from tier to tier, hop by hop; returns the last hop.

        Each hop is on `stream`, else on a stream of its kind. What is allocated is from the first hop on, what is
        freed goes with the last. A real copy from or to pageable memory blocks: `yield` it. So many of its bytes as are
        `fresh` go to pages that the kernel has to map first. Between GPU and storage a `direct` copy (GPUDirect
        Storage) bypasses host memory.
        """
        thread = thread or self.host
        legs = self.platform.route(source, destination, self.number, pinned, direct)
        operation: Operation | None = None
        for hop, leg in enumerate(legs):
            seconds, usage = leg.cost(nbytes)
            if fresh and (rate := self.profile.host.fresh_page_bytes_per_s):
                alone, seconds = seconds, seconds + fresh / rate
                usage = tuple([(resource, share * alone / seconds) for resource, share in usage])
            operation = Operation(
                stream or self.stream(leg.kind),
                leg.kind,
                name,
                seconds,
                usage,
                nbytes,
                subgroup,
                layer,
                allocates if hop == 0 else (),
                frees if hop == len(legs) - 1 else (),
                holds=holds + leg.servers,
                priority=priority,
            )
            self._enqueue(operation, after, thread)
            after = [operation]
        assert operation is not None
        if source == GPU:
            self.left.append(operation)
        elif destination == GPU:
            self.came.append(operation)
        if not pinned and self.engine.active is not None:
            self.engine.active.busy = operation
        return operation

    def h2d(
        self,
        stream: Stream,
        nbytes: float,
        name: str,
        subgroup: int = -1,
        after: After = (),
        thread: Thread | None = None,
        pinned: bool = True,
    ) -> Operation:
        """Copy from host memory; from pageable memory it blocks."""
        return self.move(
            nbytes, "host", "gpu", name, subgroup, stream=stream, after=after, thread=thread, pinned=pinned
        )

    def d2h(
        self,
        stream: Stream,
        nbytes: float,
        name: str,
        subgroup: int = -1,
        after: After = (),
        thread: Thread | None = None,
        pinned: bool = True,
        fresh: float = 0.0,
    ) -> Operation:
        """Copy to host memory; to pageable memory it blocks, and so many of its bytes as are `fresh` to fresh pages."""
        return self.move(
            nbytes, "gpu", "host", name, subgroup, stream=stream, after=after, thread=thread, pinned=pinned, fresh=fresh
        )

    def inside(self, tier: str, number: int, thread: Thread) -> StorageDevice:
        """A computational storage device of a tier, at the command of a thread."""
        return StorageDevice(self, tier, number, thread)

    # GPU

    def _kernel_usage(self, nbytes_per_s: float) -> Usage:
        if nbytes_per_s not in self._kernels:
            self._kernels[nbytes_per_s] = ((self.device.compute, 1.0), (self.device.hbm, nbytes_per_s))
        return self._kernels[nbytes_per_s]

    def compute(
        self,
        name: str,
        work: Cost,
        layer: int = -1,
        after: After = (),
        allocates: Sequence[MemoryChange] = (),
        frees: Sequence[MemoryChange] = (),
    ) -> Operation:
        """Kernels on the compute stream."""
        usage = self._kernel_usage(work.nbytes / work.seconds)
        operation = Operation(
            self.compute_stream, "compute", name, work.seconds, usage, layer=layer, allocates=allocates, frees=frees
        )
        return self._enqueue(operation, after, self.host)

    def elementwise(
        self, stream: Stream, kind: str, nbytes: float, name: str, subgroup: int = -1, after: After = ()
    ) -> Operation:
        """Memory-bound kernels: bytes are device memory read plus written."""
        rate = self.profile.gpu.hbm_bytes_per_s
        seconds = nbytes / rate + self.profile.gpu.kernel_latency_s
        usage = self._kernel_usage(rate)
        return self._enqueue(Operation(stream, kind, name, seconds, usage, nbytes, subgroup), after, self.host)

    def gpu_adam(self, elements: float, subgroup: int, after: After = ()) -> Operation:
        """AdamW on fp32 state in device memory, on the compute stream."""
        seconds = elements / self.profile.gpu.adam_params_per_s + self.profile.gpu.kernel_latency_s
        usage: Usage = ((self.device.compute, 1.0),)
        name = f"GPU AdamW {subgroup}"
        operation = Operation(
            self.compute_stream, "gpu_adam", name, seconds, usage, nbytes=ADAM_TRAFFIC * elements, subgroup=subgroup
        )
        self.updates.append((operation, elements))
        return self._enqueue(operation, after, self.host)

    # Collectives over the data-parallel group (each returns None where the group is one rank). They share one
    # communicator, whose stream runs them one after another.

    def all_gather(
        self, nbytes: float, layer: int, after: After = (), allocates: Sequence[MemoryChange] = ()
    ) -> Operation | None:
        """All-gather of a tensor of `nbytes`."""
        name = f"all-gather layer {layer}" if layer >= 0 else "all-gather vocabulary"
        operation = self._ring("all_gather", name, nbytes, 1, layer, after, allocates)
        if operation is not None:
            if layer >= 0:
                self.gathered[layer] = operation
            else:
                self.gathers.append(operation)
        return operation

    def reduce_scatter(self, nbytes: float, after: After = ()) -> Operation | None:
        """Reduce-scatter of a tensor of `nbytes`."""
        return self._ring("reduce_scatter", "reduce-scatter gradients", nbytes, 1, -1, after, ())

    def all_reduce(self, nbytes: float, name: str = "all-reduce gradients", after: After = ()) -> Operation | None:
        """All-reduce of `nbytes`."""
        return self._ring("all_reduce", name, nbytes, 2, -1, after, ())

    def _ring(
        self,
        kind: str,
        name: str,
        nbytes: float,
        rounds: int,
        layer: int,
        after: After,
        allocates: Sequence[MemoryChange],
    ) -> Operation | None:
        dp = self.workload.training.data_parallel
        if dp == 1:
            return None
        if (nbytes, rounds) not in self._rings:
            self._rings[nbytes, rounds] = self._ring_cost(nbytes, rounds, dp)
        sent, seconds, usage = self._rings[nbytes, rounds]
        operation = Operation(
            self.collective_stream,
            kind,
            name,
            seconds,
            usage,
            nbytes=sent,
            layer=layer,
            allocates=allocates,
            rendezvous=self._collectives.join(self),
        )
        return self._enqueue(operation, after, self.host)

    def _ring_cost(self, nbytes: float, rounds: int, dp: int) -> tuple[float, float, Usage]:
        """Bytes that a rank sends, the seconds that takes alone, and what it uses."""
        sent = rounds * nbytes * (dp - 1) / dp
        interconnect, nic = self.profile.interconnect, self.platform.nic
        rate, layout = interconnect.gpu_bytes_per_s, self.platform.layout
        rings = layout.rings  # each crosses the node's network once
        if nic is not None:
            rate = min(rate, nic.capacity / rings)
        seconds = sent / rate + interconnect.collective_latency_s * rounds
        usage: list[tuple[Resource, float]] = [(self.device.interconnect, sent / seconds)]
        if interconnect.collective_gpu_share:
            usage.append((self.device.compute, interconnect.collective_gpu_share))
        if interconnect.over_pcie:
            usage += self.platform.link_filled(self.number, sent / seconds)
        if nic is not None:
            usage.append((nic, sent / seconds * rings / layout.simulated))
        return sent, seconds, tuple(usage)

    def tensor_parallel_seconds(self, nbytes: float) -> float:
        """Time of one blocking all-reduce of `nbytes` over the tensor-parallel group (ring)."""
        tp = self.workload.training.tensor_parallel
        if tp == 1:
            return 0.0
        interconnect = self.profile.interconnect
        return 2 * (nbytes * (tp - 1) / tp / interconnect.gpu_bytes_per_s + interconnect.collective_latency_s)


class StorageDevice:
    """A thread's commands to a computational storage device; nothing of them crosses the link that devices share."""

    def __init__(self, rank: Rank, tier: str, number: int, thread: Thread) -> None:
        self.rank = rank
        self.tier = tier
        self.number = number
        self.thread = thread

    def read(self, nbytes: float, name: str, subgroup: int) -> Operation:
        """The device reads for its own kernel."""
        return self._move(False, nbytes, name, subgroup, self.thread)

    def write(self, nbytes: float, name: str, subgroup: int, stream: Stream) -> Operation:
        """The device writes what its kernel made."""
        return self._move(True, nbytes, name, subgroup, stream)

    def _move(self, writes: bool, nbytes: float, name: str, subgroup: int, stream: Stream) -> Operation:
        leg = self.rank.platform.inside(self.tier, self.number, writes)
        seconds, usage = leg.cost(nbytes)
        operation = Operation(stream, leg.kind, name, seconds, usage, nbytes, subgroup)
        return self.rank.engine.enqueue(operation, (), self.thread)

    def adam(self, elements: float, subgroup: int) -> Operation:
        """Adam by the device's kernel."""
        rate = self.rank.profile.tiers[self.tier].device_params_per_s
        assert rate is not None
        usage: Usage = ((self.rank.platform.further[self.tier].kernels[self.number], 1.0),)
        name, nbytes = f"device Adam {subgroup}", ADAM_TRAFFIC * elements
        operation = Operation(
            self.thread, "device_adam", name, elements / rate, usage, nbytes=nbytes, subgroup=subgroup
        )
        self.rank.updates.append((operation, elements))
        return self.rank.engine.enqueue(operation, (), self.thread)


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
