"""Recorded traces and their replays as text."""

from __future__ import annotations

from typing import Any

from offsim.cli.terminal import Style, labelled, wrapped
from offsim.results.units import format_bytes, format_percent, format_rate, format_time
from offsim.traces.replay import Replay
from offsim.traces.summary import Summary, device_names
from offsim.validation.report import signed_percent

BAR = 20
STREAMS = 20
"""As many are listed; the others are counted."""


def trace_rows(summary: Summary) -> list[dict[str, Any]]:
    """The three tables of a trace as one: copies by direction, memory and size, kernels by class, streams."""
    found = summary.to_dict()
    kinds = {"copies": found["copies"], "kernels": found["kernels"], "streams": found["streams"]}
    columns = dict.fromkeys(name for rows in kinds.values() for row in rows for name in row)
    return [{"table": kind, **dict.fromkeys(columns), **row} for kind, rows in kinds.items() for row in rows]


def replay_rows(replay: Replay) -> list[dict[str, Any]]:
    """How long each stream was busy."""
    return [{"stream": name, **busy} for name, busy in replay.to_dict()["streams"].items()]


def trace_report(summary: Summary, style: Style) -> str:
    """What is in a trace, in lines of at most 80 characters."""
    tables = ((_copies, summary.copies), (_kernels, summary.kernels), (_streams, summary.streams))
    shown = [table(summary, style) for table, rows in tables if rows]
    return "\n\n".join([_set_up(summary), *shown, *_last(summary)])


def _set_up(summary: Summary) -> str:
    trace = summary.trace
    ranks = sorted(trace.events.loc[trace.events["device"] >= 0, "rank"].unique().tolist())
    counts = [f"{count} {kind}" for kind, count in summary.to_dict()["events"].items()]
    devices = device_names(list(trace.devices.values()))
    lines = {
        "trace": f"{trace.path.name} ({trace.tool})",
        "GPUs": devices + (f", ranks {ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else ""),
        "span": format_time(trace.span_s),
        "events": ", ".join(counts),
    }
    return "\n".join(labelled(*line) for line in lines.items())


def _copies(summary: Summary, style: Style) -> str:
    rows: list[tuple[object, ...]] = []
    for copies in summary.copies:
        whole = copies.size == "all"
        kind = f"{copies.direction or 'other'} {copies.memory or '(memory not recorded)'}" if whole else None
        rate = None if copies.bytes_per_s is None else format_rate(copies.bytes_per_s)
        rows.append((kind, copies.size, copies.count, format_bytes(copies.bytes), format_time(copies.seconds), rate))
    head = ("copies", "size", "count", "bytes", "time", "rate")
    return style.table(rows, head, "llrrrr")


def _kernels(summary: Summary, style: Style) -> str:
    total = sum(kernels.seconds for kernels in summary.kernels)
    rows = [
        (
            kernels.kind,
            kernels.count,
            format_time(kernels.seconds),
            format_percent(kernels.seconds / total) if total > 0 else None,
            style.bar(kernels.seconds / total, BAR) if total > 0 else "",
        )
        for kernels in summary.kernels
    ]
    return style.table(rows, ("kernels", "count", "time", "share", ""), "lrrrl")


def _streams(summary: Summary, style: Style) -> str:
    ranks = len({use.rank for use in summary.streams}) > 1
    rows = [
        (
            f"rank {use.rank}, {use.stream}" if ranks else use.stream,
            use.count,
            format_time(use.busy_s),
            format_percent(use.share),
            style.bar(use.share, BAR),
        )
        for use in summary.streams[:STREAMS]
    ]
    text = style.table(rows, ("how busy each stream was", "count", "busy", "share", ""), "lrrrl")
    left_out = len(summary.streams) - STREAMS
    return text + (f"\nand {left_out} more" if left_out > 0 else "")


def _last(summary: Summary) -> list[str]:
    lines = []
    if summary.copying_s > 0:
        share = format_percent(summary.overlapped_s / summary.copying_s)
        copied = f"Copies between host and GPU ran for {format_time(summary.copying_s)}"
        lines.append(f"{copied}, {share} of it while kernels of the same GPU ran.")
    if (delays := summary.delays) is not None:
        of = f"median of {delays.count}; 90th percentile {format_time(delays.p90_s)}"
        lines.append(f"Kernels began {format_time(delays.median_s)} after their launch began ({of}).")
    return ["\n".join(map(wrapped, lines))] if lines else []


def replay_report(replay: Replay, style: Style) -> str:
    """How long a trace took, its replay, and the replay with changes."""
    changes = [f"{name} {factor:g} times as fast" for name, factor in replay.scales.items()]
    changes += [f"copies at the rates of {replay.profile}"] if replay.profile else []
    lines = {
        "trace": f"{replay.trace.path.name} ({replay.trace.tool})",
        "original": format_time(replay.original.makespan_s),
        "replayed": f"{format_time(replay.replayed.makespan_s)}, error {signed_percent(replay.error, 2)}; "
        f"busy time of each stream within {100 * replay.busy_error:.2f} %",
    }
    if replay.scaled is not None:
        taken = replay.scaled.makespan_s
        speedup = f", {replay.replayed.makespan_s / taken:.2f} times as fast" if taken > 0 else ""
        lines["scaled"] = f"{format_time(taken)}{speedup}, with {'; '.join(changes)}"
    text = "\n".join(labelled(*line) for line in lines.items())
    return f"{text}\n\n{wrapped(replay.sharing)}\n\n{_busy(replay, style)}"


def _busy(replay: Replay, style: Style) -> str:
    names = sorted(replay.original.busy_s, key=lambda name: (-replay.original.busy_s[name], name))
    timings = [replay.original, replay.replayed, *([replay.scaled] if replay.scaled else [])]
    rows = [(name, *(format_time(timing.busy_s[name]) for timing in timings)) for name in names[:STREAMS]]
    head = ("busy time", "original", "replayed", "scaled")[: 1 + len(timings)]
    text = style.table(rows, head)
    return text + (f"\nand {len(names) - STREAMS} more" if len(names) > STREAMS else "")
