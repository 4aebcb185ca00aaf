"""Streams and threads, shared resources, servers and memory tiers on SimPy. Knows nothing of training."""

from offsim.engine.engine import Code, Deadlock, Engine, Stream, Thread
from offsim.engine.operation import MemoryChange, Operation, Rendezvous, Usage
from offsim.engine.server import Server
from offsim.engine.sharing import Resource, Sharing
from offsim.engine.tier import OutOfMemory, Tier

__all__ = [
    "Code",
    "Deadlock",
    "Engine",
    "MemoryChange",
    "Operation",
    "OutOfMemory",
    "Rendezvous",
    "Resource",
    "Server",
    "Sharing",
    "Stream",
    "Thread",
    "Tier",
    "Usage",
]
