"""The measured device and its streams: the first CUDA GPU or, without one, the CPU in its place."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .machine import available_host_bytes

BF16, FP32 = torch.bfloat16, torch.float32


class Mark:
    """An instant on a stream: a CUDA event; without a GPU, the clock."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self.event = None if stream is None else torch.cuda.Event(enable_timing=True)
        self.clock_s = time.perf_counter()
        if self.event is not None:
            self.event.record(stream)

    def synchronize(self) -> None:
        """Stop the host thread until the stream has got there."""
        if self.event is not None:
            self.event.synchronize()

    def seconds_until(self, later: Mark) -> float:
        """Time between two instants that have passed."""
        if self.event is not None and later.event is not None:
            return float(self.event.elapsed_time(later.event)) / 1e3
        return later.clock_s - self.clock_s


class Stream:
    """A CUDA stream. Without a GPU work is done when it is asked for, and there is nothing to order."""

    def __init__(self, cuda_stream: torch.cuda.Stream | None) -> None:
        self.cuda_stream = cuda_stream

    def use(self) -> AbstractContextManager[Any]:
        """Enqueue what follows on this stream."""
        return nullcontext() if self.cuda_stream is None else torch.cuda.stream(self.cuda_stream)

    def mark(self) -> Mark:
        """Return the instant at which all that is enqueued so far is done."""
        return Mark(self.cuda_stream)

    def wait(self, mark: Mark) -> None:
        """Let what is enqueued from now on wait for another stream's mark."""
        if self.cuda_stream is not None and mark.event is not None:
            self.cuda_stream.wait_event(mark.event)

    def synchronize(self) -> None:
        """Stop the host thread until the stream is empty."""
        if self.cuda_stream is not None:
            self.cuda_stream.synchronize()

    def uses(self, tensor: Tensor) -> None:
        """Keep the allocator from reusing a tensor's memory before this stream is done with it."""
        if self.cuda_stream is not None:
            tensor.record_stream(self.cuda_stream)


class Device:
    """The first CUDA GPU, or the CPU in its place."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        self.torch = torch.device("cuda", 0) if self.cuda else torch.device("cpu")
        self.compute = Stream(torch.cuda.current_stream() if self.cuda else None)

    def stream(self) -> Stream:
        """Return a stream of its own."""
        return Stream(torch.cuda.Stream() if self.cuda else None)

    def synchronize(self) -> None:
        """Stop the host thread until the GPU is idle."""
        if self.cuda:
            torch.cuda.synchronize()

    def host(self, elements: int, dtype: torch.dtype) -> Tensor:
        """Return zeros in host memory that copies at link speed: pinned, where there is a GPU."""
        return torch.empty(elements, dtype=dtype, pin_memory=self.cuda).zero_()

    def empty(self, elements: int, dtype: torch.dtype) -> Tensor:
        """Return device memory."""
        return torch.empty(elements, dtype=dtype, device=self.torch)

    def full(self, elements: int, dtype: torch.dtype, value: float) -> Tensor:
        """Return device memory that holds a value."""
        return torch.full((elements,), value, dtype=dtype, device=self.torch)

    def free_bytes(self) -> int:
        """Device memory that is free; host memory without a GPU."""
        return int(torch.cuda.mem_get_info()[0]) if self.cuda else available_host_bytes()

    def release(self) -> None:
        """Give cached memory back, so that the next to allocate finds it free."""
        if self.cuda:
            torch.cuda.empty_cache()
            empty_pinned = getattr(torch._C, "_host_emptyCache", None)
            if empty_pinned is not None:
                empty_pinned()
