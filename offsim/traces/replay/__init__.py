"""A recorded trace run again on the engine: as it was, or with faster or slower links, CPU or kernels."""

from offsim.traces.replay.run import SCALES, Replay, parse_scales, replay

__all__ = ["SCALES", "Replay", "parse_scales", "replay"]
