"""Training iterations: when each phase began, and how much GPU memory it took."""

from __future__ import annotations

import statistics
from itertools import pairwise

import torch
from torch.profiler import record_function

from .device import Device, Mark
from .model import Shape, Transformer
from .zero3_offload import LOSS_SCALE, Zero3Offload

_GIB = 2**30
_PHASES = ("forward", "backward", "step")


class Iterations:
    """Runs training iterations, and keeps when each phase began and how much GPU memory it took."""

    def __init__(self, model: Transformer, optimizer: Zero3Offload, device: Device, shape: Shape) -> None:
        self.model, self.optimizer, self.device, self.shape = model, optimizer, device, shape
        self.random = torch.Generator().manual_seed(0)
        self.marks: list[list[Mark]] = []
        self.memory: dict[str, float] = {}

    def run(self) -> None:
        """Run one iteration; the end of its update is not waited for more than the schedule does."""
        tokens = torch.randint(self.shape.vocab, (1, self.shape.sequence + 1), generator=self.random)
        on_device = tokens.to(self.device.torch)
        marks = [self.mark("before_forward")]
        with record_function("forward"):
            loss = self.model(on_device)
        marks.append(self.mark("after_forward", "before_backward"))
        with record_function("backward"):
            (loss * LOSS_SCALE).backward()
            marks.append(self.device.compute.mark())
            self.optimizer.end_backward()
        marks.append(self.mark("after_backward", "before_step"))
        with record_function("step"):
            self.optimizer.step()
        marks.append(self.mark("after_step"))
        self.marks.append(marks)

    def mark(self, *instants: str) -> Mark:
        """Return the mark of now; note memory in use and its high-water mark since the last instant."""
        mark = self.device.compute.mark()
        if self.device.cuda:
            for instant in instants:
                self.memory[f"mem_{instant}_gib"] = torch.cuda.memory_allocated() / _GIB
                self.memory[f"peak_{instant}_gib"] = torch.cuda.max_memory_allocated() / _GIB
                torch.cuda.reset_peak_memory_stats()
        return mark

    def times(self) -> dict[str, float]:
        """Return medians in ms, and standard deviations over means, named as in tables of measured runs."""
        found: dict[str, float] = {"iterations": len(self.marks)}
        for name, first, last in (("fwd", 0, 1), ("bwd", 1, 3), ("step", 3, 4)):
            seconds = self._seconds(first, last)
            found[f"{name}_ms"] = 1e3 * statistics.median(seconds)
            found[f"{name}_cv"] = statistics.pstdev(seconds) / statistics.mean(seconds)
            if name == "bwd":
                found["bwd_inner_ms"] = 1e3 * statistics.median(self._seconds(1, 2))
                found["bwd_allreduce_ms"] = 1e3 * statistics.median(self._seconds(2, 3))
        starts = [marks[0] for marks in self.marks]
        found["iteration_ms"] = 1e3 * statistics.median(a.seconds_until(b) for a, b in pairwise(starts))
        return {name: round(value, 4) for name, value in found.items()}

    def _seconds(self, first: int, last: int) -> list[float]:
        return [marks[first].seconds_until(marks[last]) for marks in self.marks]

    def memory_columns(self) -> dict[str, float | None]:
        """Return GPU memory of the last iteration in GiB; empty without a GPU."""
        instants = [f"{when}_{phase}" for phase in _PHASES for when in ("before", "after")]
        columns = [f"{kind}_{instant}_gib" for instant in instants for kind in ("mem", "peak")]
        return {name: round(self.memory[name], 3) if name in self.memory else None for name in columns}
