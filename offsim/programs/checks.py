"""What holds for every schedule, checked in every run; and errors in a schedule's code as one message.

Every sub-group is updated once in each measured iteration, where and when its gradients are there; what the CPU updates
crosses the link in both directions; kernels use parameters that are updated, uploaded and gathered; threads wait for
what blocks them. A schedule that says how it approximates may update less often, but each sub-group once in a period,
and compress what it moves.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import simpy

from offsim.engine import Operation
from offsim.engine.engine import Engine, NotAwaited, Thread, code_at
from offsim.inputs.errors import InputError
from offsim.platform.platform import GPU
from offsim.programs.driven import HookError, dropped
from offsim.programs.rank import Rank
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import BF16

if TYPE_CHECKING:
    from offsim.programs.run import Run

CLOSE = 1e-6
"""Relative difference of bytes and elements that are taken as equal."""
ROUNDING_S = 1e-9
_PACKAGE = Path(__file__).parents[1]
_OF_SCHEDULES = tuple(
    str(_PACKAGE / part) for part in ("schedulers", "activations", "programs/schedule.py", "programs/activations.py")
)
_OF_ENGINES = (str(_PACKAGE), str(Path(simpy.__file__).parent))


class ScheduleError(InputError):
    """A schedule's code fails, or its run breaks what must hold for every schedule."""


# Errors in a schedule's code


def explained(error: Exception, schedule: type[TrainingSchedule], engine: Engine) -> Exception:
    """The error as one message that names schedule, file and line, and what ran; as it is where offsim itself fails."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    active = engine.active
    waiting = [(frame.f_code.co_filename, frame.f_lineno) for frame in code_at(active.code if active else None)]
    if isinstance(error, HookError):
        text, file, line = error.args
        places, told = [(file, line)], text
    elif type(error).__module__.startswith("offsim."):
        told = str(error)
    else:
        told = f"{type(error).__name__}: {error}"
    place = _own_line(places) or _own_line(waiting)
    if place is None and not type(error).__module__.startswith("offsim."):
        return error
    if isinstance(error, NotAwaited):
        told = f"{_subgroup(error.operation)}{told}"
    found = ScheduleError(f"scheduler {schedule.name}, {_running(active)}: {told}", place or "")
    found.__cause__ = error.with_traceback(_from_own_code(error))
    return found


def _running(active: Thread | None) -> str:
    if active is None:
        return "before the first iteration"
    return f"{active.phase} of iteration {active.iteration}, {active.name} of rank {active.rank}"


def _own_line(places: Sequence[tuple[str, int]]) -> str | None:
    """The innermost line of code that is no part of offsim; otherwise the innermost one of its schedules."""
    others = [place for place in places if not place[0].startswith(_OF_ENGINES)]
    own = others or [place for place in places if place[0].startswith(_OF_SCHEDULES)]
    return f"{own[-1][0]}:{own[-1][1]}" if own else None


def _from_own_code(error: Exception) -> TracebackType | None:
    """The traceback without what comes before the schedule's own code."""
    found = error.__traceback__
    while found is not None and not found.tb_frame.f_code.co_filename.startswith(_OF_SCHEDULES):
        if not found.tb_frame.f_code.co_filename.startswith(_OF_ENGINES):
            break
        found = found.tb_next
    return found


def _subgroup(operation: Operation) -> str:
    return f"sub-group {operation.subgroup}: " if operation.subgroup >= 0 else ""


def check_driven(schedules: Sequence[TrainingSchedule]) -> None:
    """Raise ScheduleError where code was called and not run."""
    for schedule in schedules:
        for name, file, line in dropped(schedule):
            problem = f"`{name}(...)` was called and not run, expected `yield from` before it, or `rank.spawn` with it"
            raise ScheduleError(f"scheduler {schedule.name}: {problem}", f"{file}:{line}")


# What a run must hold


def check_run(run: Run, schedules: Sequence[TrainingSchedule]) -> None:
    """Raise ScheduleError for what the measured iterations break; times compare as they were simulated."""
    for rank, schedule in zip(run.ranks, schedules, strict=True):
        if schedule.program == "training":
            _RankCheck(rank, schedule, range(run.first, run.last + 1)).check()


class _RankCheck:
    """The measured iterations of one rank."""

    def __init__(self, rank: Rank, schedule: TrainingSchedule, measured: range) -> None:
        self.rank = rank
        self.schedule = schedule
        self.measured = measured
        self.approximate = bool(schedule.approximates(schedule.options))
        self.late = schedule.waits_for_parameters and schedule.lag > 0
        """Whether an update may use gradients of an iteration before."""
        self.updated: dict[tuple[int, int], float] = defaultdict(float)
        """Elements by iteration and sub-group."""
        self.ended: dict[tuple[int, int], float] = defaultdict(float)
        """When the update ended."""
        for update, elements in rank.updates:
            key = update.iteration, update.subgroup
            self.updated[key] += elements
            self.ended[key] = max(self.ended[key], update.ended_at)

    def check(self) -> None:
        self.check_once()
        self.check_gradients()
        self.check_uses()
        for iteration in self.measured:
            self.check_arrivals(iteration)
            self.check_uploads(iteration)
        self.check_link()
        self.check_gathers()

    def fail(self, subgroup: int, iteration: int, problem: str) -> ScheduleError:
        of = f"sub-group {subgroup}, iteration {iteration}, rank {self.rank.number}"
        return ScheduleError(f"scheduler {self.schedule.name}, {of}: {problem}")

    def check_once(self) -> None:
        """Every sub-group is updated once an iteration; by an approximate schedule at most, and once a period."""
        known = len(self.schedule.subgroups)
        for update, _ in self.rank.updates:
            if not 0 <= update.subgroup < known:
                raise self.fail(update.subgroup, update.iteration, f"found '{update.name}', expected 0 to {known - 1}")
        for subgroup in self.schedule.subgroups:
            total = 0.0
            for iteration in self.measured:
                times = self.updated.get((iteration, subgroup.index), 0.0) / subgroup.elements
                total += times
                if times > 1 + CLOSE or (times < 1 - CLOSE and not self.approximate):
                    raise self.fail(subgroup.index, iteration, f"found {_times(times)}, expected one in each iteration")
            if total < 1 - CLOSE:
                raise self.fail(subgroup.index, self.measured[0], f"found {_times(total)}, expected one in each period")

    def check_gradients(self) -> None:
        """No update begins before the gradients that it reads are reduced."""
        reduced: dict[tuple[int, int], Operation] = {}
        for iteration, bucket, ready in self.rank.reduced:
            for index, _ in bucket.shares:
                reduced[iteration, index] = ready  # the last one of a stream ends last
        for update, _ in self.rank.updates:
            if update.iteration not in self.measured:
                continue
            if not update.done:
                raise self.fail(update.subgroup, update.iteration, f"'{update.name}' never ends")
            ready = reduced[update.iteration, update.subgroup]
            if update.started_at < ready.ended_at - ROUNDING_S and not self.late:
                problem = f"'{update.name}' begins {_ahead(update, ready)} before its gradients are reduced"
                raise self.fail(update.subgroup, update.iteration, f"{problem}, expected it behind them")

    def check_arrivals(self, iteration: int) -> None:
        """As each update off the GPU begins, the gradients of all that was updated so far have left the GPU."""
        if self.approximate or self.late:
            return
        left = self.rank.left[self.rank.backward_from.get(iteration, 0) :]
        moves = sorted((o.ended_at, o.bytes) for o in left if o.iteration == iteration and o.done)
        updates = [(o, elements) for o, elements in self.rank.updates if o.iteration == iteration and _off_gpu(o)]
        arrived, needed, at = 0.0, 0.0, 0
        for update, elements in sorted(updates, key=_started):
            while at < len(moves) and moves[at][0] <= update.started_at + ROUNDING_S:
                arrived += moves[at][1]
                at += 1
            needed += BF16 * elements
            if arrived < needed * (1 - CLOSE):
                problem = (
                    f"'{update.name}' begins when {arrived:.3g} B of gradients have left the GPU since backward began, "
                    f"expected {needed:.3g} B, 2 for each parameter updated so far: its gradients are not there"
                )
                raise self.fail(update.subgroup, iteration, problem)

    def check_uploads(self, iteration: int) -> None:
        """Parameters that live on the GPU come there once the CPU has updated them."""
        rank, schedule = self.rank, self.schedule
        if self.approximate or self.late:
            return
        updates = [
            (update, elements)
            for update, elements in rank.updates
            if update.iteration == iteration
            and _off_gpu(update)
            and schedule.home_of(schedule.subgroups[update.subgroup]) == GPU
        ]
        if not updates:
            return
        begun = min(update.ended_at for update, _ in updates)
        uploads = [move for move in rank.came if move.iteration == iteration and move.started_at >= begun - ROUNDING_S]
        needed, moved = BF16 * sum(elements for _, elements in updates), sum(move.bytes for move in uploads)
        if moved < needed * (1 - CLOSE):
            named = {move.subgroup for move in uploads} - {-1}
            missing = next((u.subgroup for u, _ in updates if u.subgroup not in named), updates[0][0].subgroup)
            problem = (
                f"found {moved:.3g} B of uploads after updates, expected at least {needed:.3g} B, 2 for each parameter "
                "updated off the GPU"
            )
            raise self.fail(missing, iteration, problem)

    def check_link(self) -> None:
        """What is updated off the GPU goes there as gradients and comes back; state kept off it comes and goes back."""
        if self.approximate:
            return
        rank, schedule = self.rank, self.schedule
        needed, by = 0.0, {True: "16-bit values of parameters updated off the GPU", False: "optimizer state"}
        found: dict[bool, int] = {}
        for update, elements in rank.updates:
            if update.iteration in self.measured:
                off = _off_gpu(update)
                if off or schedule.state_tier(schedule.subgroups[update.subgroup]) != GPU:
                    needed += elements * (BF16 if off else schedule.state_bytes)
                    found.setdefault(off, update.subgroup)
        if schedule.placed.parameters != GPU:  # norms beside embedding and head stay on the GPU
            needed -= 2 * BF16 * rank.workload.model.hidden * len(self.measured)
        for way, moves in (("to", rank.came), ("from", rank.left)):
            moved = sum(move.bytes for move in moves if move.iteration in self.measured)
            if moved < needed * (1 - CLOSE):
                named = {move.subgroup for move in moves}
                off, index = next(iter(found.items()))
                missing = (u.subgroup for u, _ in rank.updates if u.subgroup not in named)
                index = next(missing, index) if named != {-1} else index
                what = " and ".join(by[each] for each in found)
                problem = (
                    f"found {moved:.3g} B {way} the GPU, expected at least {needed:.3g} B: {what}; a copy is missing"
                )
                raise self.fail(index, self.measured[0], problem)

    def check_gathers(self) -> None:
        """In stages 1 and 2, what each rank has updated goes to all."""
        training = self.rank.workload.training
        if self.approximate or training.zero_stage not in (1, 2) or training.data_parallel == 1:
            return
        needed = BF16 * self.rank.workload.parameters * (1 - 1 / training.data_parallel)
        for iteration in self.measured:
            found = sum(gather.bytes for gather in self.rank.gathers if gather.iteration == iteration)
            if found < needed * (1 - CLOSE):
                problem = f"found {found:.3g} B gathered of updated parameters, expected at least {needed:.3g} B"
                raise self.fail(0, iteration, problem)

    def check_uses(self) -> None:
        """Kernels begin behind what wrote and gathered their parameters, which ends no sooner than the update."""
        waits = self.schedule.waits_for_parameters
        for kernel, layer, written, gather in self.rank.uses:
            if kernel.iteration not in self.measured:
                continue
            begins = kernel.started_at + ROUNDING_S
            for place, since in enumerate(written if waits else ()):
                if since is not None and since.ended_at > begins:
                    index = self.rank.workload.subgroups_of_layers[layer][place]
                    problem = (
                        f"'{kernel.name}' begins before '{since.name}' ends, expected it behind: fetch has to wait"
                    )
                    raise self.fail(index, kernel.iteration, problem)
            if gather is not None and gather.ended_at > begins:
                problem = f"'{kernel.name}' begins before '{gather.name}' ends, expected fetch to return the gather"
                raise self.fail(self.rank.workload.subgroups_of_layers[layer][0], kernel.iteration, problem)
        for subgroup, block in zip(self.schedule.subgroups, self.rank.parameters, strict=True):
            if block.since is None:
                continue
            if not block.since.done:
                raise self.fail(
                    subgroup.index, block.version, f"'{block.since.name}' never ends, but writes parameters"
                )
            if block.since.ended_at < self.ended[block.version, subgroup.index] - ROUNDING_S:
                problem = (
                    f"parameters are said to be written by '{block.since.name}', which ends before the update does"
                )
                raise self.fail(subgroup.index, block.version, problem)


def _times(times: float) -> str:
    return "no update" if times < CLOSE else f"{times:.3g} updates"


def _started(update: tuple[Operation, float]) -> float:
    return update[0].started_at


def _off_gpu(update: Operation) -> bool:
    return update.kind != "gpu_adam"


def _ahead(update: Operation, ready: Operation) -> str:
    return f"{1e3 * (ready.ended_at - update.started_at):.3g} ms"
