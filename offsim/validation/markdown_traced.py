"""The worst disagreement in Markdown where a trace was measured: activities beside those that were simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offsim.results.units import format_bytes, format_rate, format_time
from offsim.validation.accounts import PhaseAccount
from offsim.validation.markdown import markdown_table
from offsim.validation.side_by_side import Pair
from offsim.validation.traced import TracedIteration
from offsim.views.style import look_of

HOW_TO_READ = """\
A measured phase ends when the compute stream has done what was launched in it, as the harness times it. Activities are
sorted into the simulator's kinds by what they are (copies, kernels by name) and by the harness's name for the work that
they are launched in. `measured` (m) and `simulated` (s) are what all activities of a kind took, one after another;
those that run in two phases count in both, each with its part. "launch" is what host threads do in calls, operators and
the Python between them, named work and waits left out. Bytes of CPU work are not in a trace. A kind that differs much
need not make the phase longer: `on the path` is how long the simulated critical path runs through it.
"""


def introduction(traced: TracedIteration, accounts: Sequence[PhaseAccount]) -> str:
    """Which iteration was measured, and how its phases compare with the table's."""
    seconds = traced.phases.set_index("phase")["duration_s"]
    spans = [
        f"{account.phase} {format_time(seconds[account.phase])}"
        + (f" (table: {format_time(account.measured_s)})" if account.measured_s is not None else "")
        for account in accounts
    ]
    text = (
        f"The trace {traced.file} has the run's activities; its last whole iteration is laid beside the simulated one. "
        f"Its phases took {', '.join(spans)}; the table has medians of iterations that no profiler slowed down."
    )
    return text if traced.gpu else f"{text} No GPU is in it: the CPU did the computing, and copied within its memory."


def furthest(phase: str, pairs: Sequence[Pair]) -> str:
    """A sentence on the phase's activities whose times are furthest apart; "" without any."""
    if not pairs:
        return ""
    pair = pairs[0]
    text = f"In {phase}, furthest apart is {look_of(pair.kind).label}: "
    if pair.measured is None:
        return f"{text}simulated {format_time(pair.simulated_s)}, not in the trace."
    if pair.simulated is None:
        return f"{text}measured {format_time(pair.measured_s)}, not simulated."
    text += f"measured {format_time(pair.measured_s)}, simulated {format_time(pair.simulated_s)} ({_times(pair)})"
    if pair.measured.bytes and pair.simulated.bytes:
        sides = ((pair.measured.bytes, pair.measured_s), (pair.simulated.bytes, pair.simulated_s))
        rates = [f"{format_bytes(nbytes)} at {format_rate(nbytes / seconds)}" for nbytes, seconds in sides]
        text += f"; {' against '.join(rates)}"
    return text + "."


def differences(pairs: Sequence[Pair], explained: Callable[[str], str]) -> str:
    """A table of a phase's activities, and the classes of its kernels; `explained` is what a kind's last cell says."""
    rows = [
        (
            look_of(pair.kind).label,
            format_time(pair.measured_s) if pair.measured else "",
            format_time(pair.simulated_s) if pair.simulated else "",
            _times(pair),
            *_counted(pair),
            format_time(pair.simulated.path_s) if pair.simulated and pair.simulated.path_s >= 1e-9 else "",
            explained(pair.kind) if pair.simulated else "",
        )
        for pair in pairs
    ]
    headers = (
        "activity",
        "measured",
        "simulated",
        "ratio",
        "count (m / s)",
        "bytes (m / s)",
        "on the path",
        "explains it",
    )
    table = markdown_table(rows, headers, "lrrrrrrr")
    classes = [
        f"{look_of(pair.kind).label}: "
        + ", ".join(f"{name} {format_time(seconds)}" for name, seconds in pair.measured.kernels.items())
        for pair in pairs
        if pair.measured and pair.measured.kernels
    ]
    return table + (f"\nMeasured kernels of {'; '.join(classes)}.\n" if classes else "")


def _times(pair: Pair) -> str:
    return f"{pair.measured_s / pair.simulated_s:.2f}x" if pair.measured and pair.simulated else ""


def _counted(pair: Pair) -> tuple[str, str]:
    """How many, and how many bytes: measured / simulated."""
    count = (pair.measured.count if pair.measured else 0, pair.simulated.count if pair.simulated else 0)
    nbytes = (pair.measured.bytes if pair.measured else 0.0, pair.simulated.bytes if pair.simulated else 0.0)
    return _both([str(number or "") for number in count]), _both([format_bytes(n) if n else "" for n in nbytes])


def _both(cells: Sequence[str]) -> str:
    return " / ".join(cell or "-" for cell in cells) if any(cells) else ""
