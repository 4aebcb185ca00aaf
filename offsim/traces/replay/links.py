"""The links of a recorded trace: each GPU has one in each direction, as fast as its copies ever were together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from offsim.traces.replay.process import Step

COPIES = ("h2d", "d2h")


def link_of(step: Step) -> tuple[str, str] | None:
    """The GPU and direction of a copy between host and GPU; None for other steps, and where bytes are not known."""
    if step.kind not in COPIES or step.bytes <= 0 or step.seconds <= 0:
        return None
    return step.stream.rsplit(" stream ", 1)[0], step.kind


def fullest(steps: Iterable[Step]) -> dict[tuple[str, str], float]:
    """Link -> the most bytes per second that its copies moved together at any time of the trace."""
    changes: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for step in steps:
        if link := link_of(step):
            rate = step.bytes / step.seconds
            changes.setdefault(link, []).extend([(step.at, rate), (step.at + step.seconds, -rate)])
    found = {}
    for link, rates in changes.items():
        rate, most = 0.0, 0.0
        for _, change in sorted(rates):
            rate += change
            most = max(most, rate)
        found[link] = max(most, max(change for _, change in rates))
    return found


def sharing_of(steps: Sequence[Step]) -> str:
    """What is shared and what is not, in a sentence or two."""
    copies = [step for step in steps if step.kind in COPIES]
    without = sum(link_of(step) is None for step in copies)
    frozen = "Memory, both directions together and other GPUs slow copies as recorded."
    if not copies:
        return "There are no copies between host and GPU to share a link."
    if without:
        frozen = f"{without} of {len(copies)} copies have no bytes and take their own time. {frozen}"
    return f"Copies of a GPU in one direction share its link. {frozen}" if without < len(copies) else frozen
