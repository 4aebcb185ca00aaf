"""TRL's `OffloadActivations` (trl/models/activation_offloading.py, commit f2cd577): torchtune's, without duplicates."""

from __future__ import annotations

from offsim.activations.torchtune import Torchtune


class Trl(Torchtune):
    """As `torchtune`, but a storage that is saved more than once moves once."""

    name = "trl"

    def saved_twice(self, layer: int) -> list[float]:
        return []
