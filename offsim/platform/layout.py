"""How a job lies on nodes."""

from __future__ import annotations

from dataclasses import dataclass

from offsim.platform.hardware import HardwareProfile


@dataclass(frozen=True)
class Layout:
    """All nodes are alike, so one is simulated.

    `simulated` ranks of `per_node` are simulated. With one standing for all, the capacities that ranks share are
    divided by the number of those who share them: equal flows get equal parts of a max-min fair resource.
    """

    ranks: int
    per_node: int
    nodes: int
    simulated: int
    rings: int = 1
    """Data-parallel groups, each of which is a ring over all nodes."""

    @classmethod
    def of(cls, ranks: int, profile: HardwareProfile, all_ranks: bool, rings: int = 1) -> Layout:
        """Fill nodes one after another; one rank stands for all where every shared resource has equally many."""
        nodes = -(-ranks // profile.gpus_per_node)
        per_node = -(-ranks // nodes)
        groups = (min(profile.host.numa_domains, per_node), -(-per_node // profile.link.gpus_per_uplink))
        symmetric = all(per_node % group == 0 for group in groups)
        return cls(ranks, per_node, nodes, per_node if all_ranks or not symmetric else 1, rings)

    @property
    def one_for_all(self) -> bool:
        """Whether one rank stands for several."""
        return self.simulated < self.per_node

    def sharers(self, scope: str) -> int:
        """Ranks of a `node`, or of the `job`, that each simulated rank stands for."""
        return self.per_node // self.simulated * (self.nodes if scope == "job" else 1)
