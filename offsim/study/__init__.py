"""Many simulations as one study: sweeps, tuning, sensitivities."""

from offsim.study.table import read_results

__all__ = ["read_results"]
