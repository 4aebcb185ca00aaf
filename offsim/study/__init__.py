"""Many simulations as one study: sweeps, tuning, sensitivities."""

from offsim.study.sweeps.parquet import read_results

__all__ = ["read_results"]
