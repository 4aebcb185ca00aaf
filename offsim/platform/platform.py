"""What a profile is made into: devices, tiers, and the routes between tiers, by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from offsim.engine import Engine, Resource, Server, Tier, Usage
from offsim.platform.hardware import HardwareProfile, TierSpec
from offsim.platform.layout import Layout

GPU, HOST = "gpu", "host"
STAGING = 3
"""A pageable copy goes through the driver's pinned buffer: the CPU reads and writes every byte once more."""


class OrderAmongRanks(Exception):
    """Something that ranks share has an order, so that one rank cannot stand for all."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A resource as results name it. `scale` is the capacity of the whole over that of the simulated part."""

    name: str
    resource: Resource
    unit: str
    scale: float = 1.0

    @property
    def capacity(self) -> float:
        """In `unit`."""
        return self.resource.capacity * self.scale


@dataclass(frozen=True, slots=True)
class TrackedTier:
    """A tier as results name it. `scale` makes what the simulated ranks hold that of all who share it."""

    memory: Tier
    kind: str
    """gpu, memory, storage or csd (computational storage)."""
    scale: float = 1.0

    @property
    def name(self) -> str:
        """As results call it."""
        return self.memory.name

    @property
    def capacity(self) -> float:
        """Bytes."""
        return self.memory.capacity * self.scale


@dataclass(frozen=True, slots=True)
class Leg:
    """One hop of a route: its time alone, and what of each resource it takes per byte per second."""

    kind: str
    bytes_per_s: float
    latency_s: float
    per_byte: Usage
    servers: tuple[Server, ...] = ()
    _costs: dict[float, tuple[float, Usage]] = field(default_factory=dict)

    def cost(self, nbytes: float) -> tuple[float, Usage]:
        """Seconds alone, and mean rates over them, the fixed time included: resources see its bytes exactly."""
        if nbytes not in self._costs:
            seconds = nbytes / self.bytes_per_s + self.latency_s
            mean = nbytes / seconds if seconds else 0.0
            rates = tuple([(resource, mean * share) for resource, share in self.per_byte]) if mean else ()
            self._costs[nbytes] = seconds, rates
        return self._costs[nbytes]


class Device:
    """One GPU: its compute, memory bandwidth, link directions and memory."""

    def __init__(self, engine: Engine, profile: HardwareProfile, rank: int) -> None:
        gpu, link = profile.gpu, profile.link
        self.compute = Resource(f"GPU compute {rank}", 1.0)
        self.hbm = Resource(f"HBM {rank}", gpu.hbm_bytes_per_s)
        self.h2d = Resource(f"H2D {rank}", link.h2d_bytes_per_s)
        self.d2h = Resource(f"D2H {rank}", link.d2h_bytes_per_s)
        self.h2d_engine, self.d2h_engine = Server("H2D engine"), Server("D2H engine")
        self.duplex = Resource(f"PCIe both directions {rank}", link.duplex_bytes_per_s)
        self.interconnect = Resource(f"GPU interconnect {rank}", profile.interconnect.gpu_bytes_per_s)
        self.memory = engine.tier(f"GPU {rank}", gpu.memory_bytes - gpu.reserved_bytes)


class SharedDevice:
    """Storage or memory beyond the host's: a device that reads and writes share, and its capacity.

    A byte read takes 1 / read rate of a device-second, a byte written 1 / write rate.
    """

    def __init__(self, engine: Engine, name: str, spec: TierSpec, sharers: int) -> None:
        self.name = name
        self.spec = spec
        self.sharers = sharers
        self.device = Resource(name, 1.0 / sharers)
        # Never contended, since the device is: they are there to show bytes per second of each direction.
        self.read = Resource(f"{name} read", spec.read_bytes_per_s / sharers)
        self.write = Resource(f"{name} write", spec.write_bytes_per_s / sharers)
        self.memory = engine.tier(name, spec.capacity_bytes / sharers)
        numbers = range(spec.devices if spec.kind == "csd" else 0)
        self.inside = [Resource(f"{name} device {number}", 1.0 / sharers) for number in numbers]
        self.kernels = [Resource(f"{name} kernel {number}", 1.0 / sharers) for number in numbers]
        """Of computational storage: each device's own reads and writes, and its kernel, in device-seconds a second."""

    def usage(self, writes: bool) -> Usage:
        """Per byte per second, of the device and of the direction."""
        rate = self.spec.write_bytes_per_s if writes else self.spec.read_bytes_per_s
        return ((self.device, 1.0 / rate), (self.write if writes else self.read, 1.0))


class Platform:
    """A node under a layout: what its ranks share, each simulated rank's GPU, and the routes between tiers."""

    def __init__(self, engine: Engine, profile: HardwareProfile, layout: Layout) -> None:
        self.engine = engine
        self.profile = profile
        self.layout = layout
        domains = min(profile.host.numa_domains, layout.per_node)
        sharing = layout.per_node // domains if layout.one_for_all else 1
        used_domains = 1 if layout.one_for_all else domains
        host, link = profile.host, profile.link
        self.host_memory = [
            Resource(f"host memory bandwidth {d}", host.memory_bytes_per_s / sharing) for d in range(used_domains)
        ]
        self.cores = [Resource(f"CPU cores {d}", host.cores / sharing) for d in range(used_domains)]
        self.memory = engine.tier(HOST, host.memory_bytes / layout.sharers("node"))
        self.uplinks: list[tuple[Resource, Resource]] = []
        if link.uplink_bytes_per_s is not None:
            groups = 1 if layout.one_for_all else -(-layout.per_node // link.gpus_per_uplink)
            rate = link.uplink_bytes_per_s / (min(link.gpus_per_uplink, layout.per_node) if layout.one_for_all else 1)
            self.uplinks = [
                (Resource(f"uplink H2D {g}", rate), Resource(f"uplink D2H {g}", rate)) for g in range(groups)
            ]
        nic = profile.interconnect.nic_bytes_per_s
        if layout.rings > 1:
            nic = profile.interconnect.shared_nic_bytes_per_s or nic
        self.nic = Resource("network", nic) if layout.nodes > 1 and nic else None
        self.further = {
            name: SharedDevice(engine, name, spec, layout.sharers(spec.scope)) for name, spec in profile.tiers.items()
        }
        self.devices = [Device(engine, profile, rank) for rank in range(layout.simulated)]
        self._locks: dict[str, Server] = {}
        self._routes: dict[tuple[str, str, int, bool, bool], list[Leg]] = {}

    def domain_of(self, rank: int) -> int:
        """Ranks are spread over domains in blocks, as core binding does."""
        return rank * len(self.host_memory) // self.layout.simulated

    def kind_of(self, tier: str) -> str:
        """Return gpu, memory (that the CPU addresses), storage or csd; KeyError for a tier that the profile lacks."""
        return tier_kind(self.profile, tier)

    def tier(self, name: str, rank: int) -> Tier:
        """The tier of that name that the rank uses."""
        if name == GPU:
            return self.devices[rank].memory
        return self.memory if name == HOST else self.further[name].memory

    def lock(self, name: str) -> Server:
        """The lock of that name, which one rank of the node holds at a time."""
        if self.layout.one_for_all:
            raise OrderAmongRanks(name)
        return self._locks.setdefault(name, Server(f"lock {name}"))

    def memory_usage(self, tier: str, rank: int, reads: float, writes: float) -> Usage:
        """What CPU work takes of a memory tier that reads and writes these bytes per second there."""
        if tier == HOST:
            return ((self.host_memory[self.domain_of(rank)], reads + writes),)
        device = self.further[tier]
        shares: dict[Resource, float] = {}
        for writing, rate in ((False, reads), (True, writes)):
            for resource, share in device.usage(writing):
                shares[resource] = shares.get(resource, 0.0) + share * rate
        return tuple((resource, rate) for resource, rate in shares.items() if rate)

    def route(self, source: str, destination: str, rank: int, pinned: bool = True, direct: bool = False) -> list[Leg]:
        """Hops from tier to tier: between GPU and storage by way of host memory, or directly."""
        key = source, destination, rank, pinned, direct
        if key not in self._routes:
            hops = self._hops(source, destination, rank, pinned)
            self._routes[key] = [self._direct(hops, rank)] if direct and len(hops) == 2 else hops
        return self._routes[key]

    def _direct(self, hops: list[Leg], rank: int) -> Leg:
        """Both hops at once, without host memory: at the slower rate, after both latencies."""
        first, second = hops
        host = self.host_memory[self.domain_of(rank)]
        used = tuple((resource, share) for resource, share in (*first.per_byte, *second.per_byte) if resource != host)
        storage = first if second.servers else second
        rate, latency = min(first.bytes_per_s, second.bytes_per_s), first.latency_s + second.latency_s
        return Leg(storage.kind, rate, latency, used, first.servers + second.servers)

    def _hops(self, source: str, destination: str, rank: int, pinned: bool) -> list[Leg]:
        kinds = {self.kind_of(source), self.kind_of(destination)}
        if kinds <= {GPU, "storage", "csd"} and kinds != {GPU}:
            return [*self.route(source, HOST, rank), *self.route(HOST, destination, rank)]
        if GPU in kinds:
            return [self._link(source, destination, rank, pinned)]
        return [self._storage(source, destination, rank)]

    def _link(self, source: str, destination: str, rank: int, pinned: bool) -> Leg:
        device, link = self.devices[rank], self.profile.link
        down = source == GPU
        if down:
            direction, engine = device.d2h, device.d2h_engine
            rate = link.d2h_bytes_per_s if pinned else link.pageable_d2h_bytes_per_s
        else:
            direction, engine = device.h2d, device.h2d_engine
            rate = link.h2d_bytes_per_s if pinned else link.pageable_h2d_bytes_per_s
        memory = destination if down else source
        used: list[tuple[Resource, float]] = [(direction, 1.0), (device.duplex, 1.0)]
        used += self._in_memory(memory, rank, writes=down, staged=not pinned)
        if self.uplinks:
            used.append((self.uplinks[rank // link.gpus_per_uplink][1 if down else 0], 1.0))
        return Leg("d2h" if down else "h2d", rate, link.copy_latency_s, tuple(used), (engine,))

    def inside(self, tier: str, device: int, writes: bool) -> Leg:
        """Reads or writes of a computational storage device for its own kernel: they cross no shared link."""
        shared = self.further[tier]
        spec = shared.spec
        rate = spec.device_write_bytes_per_s if writes else spec.device_read_bytes_per_s
        assert rate is not None
        way = "write" if writes else "read"
        return Leg(f"{tier} device {way}", rate, spec.latency_s, ((shared.inside[device], 1.0 / rate),))

    def link_filled(self, rank: int, sent: float) -> Usage:
        """What a collective over PCIe takes: NCCL's copies by way of host memory keep the whole link of a GPU busy.

        `sent` is its mean rate of bytes sent, as it would be received.
        """
        device = self.devices[rank]
        busy = sent / self.profile.interconnect.gpu_bytes_per_s
        link = tuple((resource, busy * resource.capacity) for resource in (device.h2d, device.d2h, device.duplex))
        return (*link, (self.host_memory[self.domain_of(rank)], 2.0 * sent))

    def _in_memory(self, tier: str, rank: int, writes: bool, staged: bool) -> list[tuple[Resource, float]]:
        host = self.host_memory[self.domain_of(rank)]
        if tier == HOST:
            return [(host, float(STAGING) if staged else 1.0)]
        return [*self.further[tier].usage(writes), *([(host, STAGING - 1.0)] if staged else [])]

    def _storage(self, source: str, destination: str, rank: int) -> Leg:
        writes = source == HOST or self.kind_of(destination) in ("storage", "csd")
        name, memory = (destination, source) if writes else (source, destination)
        device = self.further[name]
        spec = device.spec
        alone, process = (
            (spec.write_bytes_per_s, spec.process_write_bytes_per_s)
            if writes
            else (spec.read_bytes_per_s, spec.process_read_bytes_per_s)
        )
        used = [*device.usage(writes), *self._in_memory(memory, rank, writes=not writes, staged=False)]
        if spec.scope == "job" and self.nic is not None:
            used.append((self.nic, 1.0 / self.layout.simulated))
        rate = min(alone, process) if process else alone
        return Leg(f"{name} {'write' if writes else 'read'}", rate, spec.latency_s, tuple(used))

    @property
    def in_use(self) -> dict[str, SharedDevice]:
        """The further tiers that hold something."""
        return {name: shared for name, shared in self.further.items() if shared.memory.series}

    @property
    def tracked(self) -> list[Tracked]:
        """What rank 0 uses, as results enumerate it."""
        host, device = self.profile.host, self.devices[0]
        memory, cores = self.host_memory[self.domain_of(0)], self.cores[self.domain_of(0)]
        found = [
            Tracked("H2D", device.h2d, "B/s"),
            Tracked("D2H", device.d2h, "B/s"),
            Tracked("PCIe both directions", device.duplex, "B/s"),
            Tracked("host memory", memory, "B/s", host.memory_bytes_per_s / memory.capacity),
            Tracked("CPU cores", cores, "cores", host.cores / cores.capacity),
            Tracked("GPU compute", device.compute, "GPU"),
            Tracked("HBM", device.hbm, "B/s"),
            Tracked("GPU interconnect", device.interconnect, "B/s"),
        ]
        if self.uplinks:
            rate = self.profile.link.uplink_bytes_per_s or 0.0
            ports = zip(("uplink H2D", "uplink D2H"), self.uplinks[0], strict=True)
            found += [Tracked(name, port, "B/s", rate / port.capacity) for name, port in ports]
        if self.nic is not None:
            found.append(Tracked("network", self.nic, "B/s"))
        for name, shared in self.in_use.items():
            found += [
                Tracked(name, shared.device, "device", shared.sharers),
                Tracked(f"{name} read", shared.read, "B/s", shared.sharers),
                Tracked(f"{name} write", shared.write, "B/s", shared.sharers),
            ]
            for number, (inside, kernel) in enumerate(zip(shared.inside, shared.kernels, strict=True)):
                found += [
                    Tracked(f"{name} device {number}", inside, "device", shared.sharers),
                    Tracked(f"{name} kernel {number}", kernel, "kernel", shared.sharers),
                ]
        return found

    @property
    def tiers(self) -> Iterator[TrackedTier]:
        """Each simulated GPU's memory, the node's, then the further ones in use, as if all ranks were simulated."""
        for device in self.devices:
            yield TrackedTier(device.memory, GPU)
        yield TrackedTier(self.memory, "memory", self.layout.sharers("node"))
        for shared in self.in_use.values():
            yield TrackedTier(shared.memory, shared.spec.kind, shared.sharers)


def tier_kind(profile: HardwareProfile, tier: str) -> str:
    """Return the kind of a profile's tier: gpu, memory, storage or csd; KeyError where it has none of that name."""
    if tier in (GPU, HOST):
        return GPU if tier == GPU else "memory"
    return profile.tiers[tier].kind
