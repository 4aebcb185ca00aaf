"""Traces that profilers recorded of real runs: reading, summing up and drawing them."""

from offsim.traces.events import Trace
from offsim.traces.read import read_trace

__all__ = ["Trace", "read_trace"]
