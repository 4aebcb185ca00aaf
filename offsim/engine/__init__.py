"""Streams, shared resources and memory tiers on SimPy. Knows nothing of training."""

from offsim.engine.fluid import FluidSharing, Resource
from offsim.engine.memory import MemoryTier, OutOfMemory
from offsim.engine.operation import CopyEngine, Operation, Rendezvous
from offsim.engine.stream import Engine, Stream

__all__ = [
    "CopyEngine",
    "Engine",
    "FluidSharing",
    "MemoryTier",
    "Operation",
    "OutOfMemory",
    "Rendezvous",
    "Resource",
    "Stream",
]
