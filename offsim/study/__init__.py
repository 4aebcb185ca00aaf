"""Many simulations as one study: sweeps over scenarios, hardware and schedulers."""

from offsim.study.table import read_results

__all__ = ["read_results"]
