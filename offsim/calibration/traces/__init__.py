"""Traces that profilers recorded of real runs: reading, summing up and drawing them."""

from offsim.calibration.traces.events import Trace
from offsim.calibration.traces.read import read_trace

__all__ = ["Trace", "read_trace"]
