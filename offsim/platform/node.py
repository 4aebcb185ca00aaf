"""The resources of a node, and which of them each rank uses."""

from __future__ import annotations

from dataclasses import dataclass

from offsim.engine import CopyEngine, Engine, MemoryTier, Resource
from offsim.platform.hardware import HardwareProfile


@dataclass(frozen=True)
class Layout:
    """How a job lies on nodes. All nodes are alike, so one is simulated.

    `simulated` ranks of `per_node` are simulated. With one standing for all, what ranks share is divided by
    the number of those who share it: equal flows get equal parts of a max-min fair resource.
    """

    ranks: int
    per_node: int
    nodes: int
    simulated: int

    @classmethod
    def of(cls, ranks: int, profile: HardwareProfile, all_ranks: bool) -> Layout:
        """Fill nodes one after another; one rank stands for all where every shared resource has equally many."""
        nodes = -(-ranks // profile.gpus_per_node)
        per_node = -(-ranks // nodes)
        groups = (min(profile.host.numa_domains, per_node), -(-per_node // profile.link.gpus_per_uplink))
        symmetric = all(per_node % group == 0 for group in groups)
        return cls(ranks, per_node, nodes, per_node if all_ranks or not symmetric else 1)


class Node:
    """Resources that the ranks of a node share, and each simulated rank's own."""

    def __init__(self, engine: Engine, profile: HardwareProfile, layout: Layout) -> None:
        self.profile = profile
        self.layout = layout
        alone = layout.simulated == 1
        domains = min(profile.host.numa_domains, layout.per_node)
        sharing = layout.per_node // domains if alone else 1
        used_domains = 1 if alone else domains
        host, link = profile.host, profile.link
        self.host_memory = [
            Resource(f"host memory bandwidth {d}", host.memory_bytes_per_s / sharing) for d in range(used_domains)
        ]
        self.cores = [Resource(f"CPU cores {d}", host.cores / sharing) for d in range(used_domains)]
        self.memory = MemoryTier(engine.env, "host", host.memory_bytes / (layout.per_node if alone else 1))
        self.uplinks: list[tuple[Resource, Resource]] = []
        if link.uplink_bytes_per_s is not None:
            groups = 1 if alone else -(-layout.per_node // link.gpus_per_uplink)
            rate = link.uplink_bytes_per_s / (min(link.gpus_per_uplink, layout.per_node) if alone else 1)
            self.uplinks = [
                (Resource(f"uplink H2D {g}", rate), Resource(f"uplink D2H {g}", rate)) for g in range(groups)
            ]
        nic = profile.interconnect.nic_bytes_per_s
        self.nic = Resource("network", nic) if layout.nodes > 1 and nic else None

    def domain_of(self, rank: int) -> int:
        """Ranks are spread over domains in blocks, as core binding does."""
        return rank * len(self.host_memory) // self.layout.simulated


class Device:
    """One GPU: its compute, memory bandwidth, link directions and memory."""

    def __init__(self, engine: Engine, profile: HardwareProfile, rank: int) -> None:
        gpu, link = profile.gpu, profile.link
        self.compute = Resource(f"GPU compute {rank}", 1.0)
        self.hbm = Resource(f"HBM {rank}", gpu.hbm_bytes_per_s)
        self.h2d = Resource(f"H2D {rank}", link.h2d_bytes_per_s)
        self.d2h = Resource(f"D2H {rank}", link.d2h_bytes_per_s)
        self.h2d_engine, self.d2h_engine = CopyEngine(), CopyEngine()
        self.duplex = Resource(f"PCIe both directions {rank}", link.duplex_bytes_per_s)
        self.interconnect = Resource(f"GPU interconnect {rank}", profile.interconnect.gpu_bytes_per_s)
        self.memory = MemoryTier(engine.env, f"GPU {rank}", gpu.memory_bytes - gpu.reserved_bytes)
