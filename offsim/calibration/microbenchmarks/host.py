"""Rates of CPU work with a rank's threads, and host memory bandwidth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from offsim.calibration.microbenchmarks.estimate import Estimate, large, median_rates, of, samples
from offsim.calibration.microbenchmarks.rows import ADAM_RUNS, COPIES_RUN, IDLE, Timed
from offsim.calibration.robust import Interval
from offsim.programs.rank import ADAM_TRAFFIC, DOWNCAST_TRAFFIC, SCALE_TRAFFIC

ONE_PASS_DOWNCAST = 6
"""Bytes that fp32 to bf16 reads plus writes for a parameter; the schedules' scales in a second pass."""
RATES = {
    "host.adam_params_per_s": "cpu_adam",
    "host.scale_params_per_s": "cpu_scale",
    "host.fresh_downcast_params_per_s": "cpu_downcast_fresh",
    "host.upcast_params_per_s": "cpu_upcast",
}
STREAMS = {"host_copy": 8.0, "host_add": 12.0, "cpu_scale": SCALE_TRAFFIC, "cpu_adam": ADAM_TRAFFIC}
"""Bytes of host memory that CPU work reads plus writes for an element, as simulated."""
FEWER_THREADS, SAME_RATE = 0.75, 0.9
"""Host memory limits the rate where this share of the threads reaches this share of it."""
SLOWED = 0.95
"""CPU Adam that keeps more of its rate than this while copies run does not fill the host's memory bandwidth."""


def cpu_rates(timed: Sequence[Timed], threads: float) -> Iterator[Estimate]:
    """Rates of a rank's CPU work: those of large arrays, with as many threads as it has, or the most measured.

    In the second case those are the threads that a rank has: the rate and the cores that it takes belong together.
    """
    for field, quantity in RATES.items():
        if cases := _by_threads(timed, quantity):
            yield _with_threads(field, cases, threads)
    if cases := _by_threads(timed, "cpu_downcast"):
        one_pass = _with_threads("host.downcast_params_per_s", cases, threads)
        factor = ONE_PASS_DOWNCAST / DOWNCAST_TRAFFIC
        note = f"{factor:g} of one pass, since a second one scales; {one_pass.note}"
        yield replace(one_pass, interval=one_pass.interval.times(factor), note=note, source="derived")
    adam = _by_threads(timed, "cpu_adam")
    if adam and (most := max(adam)) < threads:
        yield Estimate("host.cores_per_rank", Interval(most, most, most), samples(adam[most]), "threads of CPU Adam")


def _by_threads(timed: Sequence[Timed], quantity: str, condition: str = IDLE) -> dict[float, Timed]:
    """The largest arrays by threads, the fewest first, where no cache holds them."""
    ordered = sorted(large(of(timed, quantity, condition)), key=lambda case: (case.threads, case.amount))
    return {case.threads: case for case in ordered}


def _rates(cases: dict[float, Timed], traffic: float = 1.0) -> dict[float, Interval]:
    return dict(zip(cases, median_rates(list(cases.values()), traffic), strict=True))


def _with_threads(field: str, cases: dict[float, Timed], threads: float) -> Estimate:
    counts, rates = list(cases), _rates(cases)
    if not counts[0] < threads < counts[-1] or threads in cases:
        count = min(max(threads, counts[0]), counts[-1])
        note = f"{count:g} threads" + (f", where the base's ranks have {threads:g}" if count < threads else "")
        return Estimate(field, rates[count], samples(cases[count]), note)
    below, above = max(c for c in counts if c < threads), min(c for c in counts if c > threads)
    interval = _between(rates[below], rates[above], threads / below, above / below)
    return Estimate(field, interval, samples(cases[below], cases[above]), f"between {below:g} and {above:g} threads")


def _between(below: Interval, above: Interval, times: float, most: float) -> Interval:
    """The rate with `times` the threads of `below`, of which `above` has `most` times as many.

    A further thread never brings more than one before it: the rate is no less than on the straight line between both,
    no more than in proportion to the threads, and no more than the higher of both.
    """
    share = (times - 1) / (most - 1)
    low, straight = (a + share * (b - a) for a, b in ((below.low, above.low), (below.value, above.value)))
    proportional, high = (min(max(a, b), times * a) for a, b in ((below.value, above.value), (below.high, above.high)))
    return Interval(float((straight * proportional) ** 0.5), low, high)


def host_memory(timed: Sequence[Timed]) -> Iterator[Estimate]:
    """Host memory bandwidth: the most that any CPU work reached, alone or together with copies.

    Where neither fewer threads reach as much nor copies slow CPU Adam, it is only known to be no less.
    """
    shared = list(_with_copies(timed))
    found = [*_streams(timed), *shared]
    if found:
        most = max(found, key=lambda estimate: estimate.interval.value)
        yield replace(most, at_least=all(estimate.at_least for estimate in (most, *shared)))


def _streams(timed: Sequence[Timed]) -> Iterator[Estimate]:
    for quantity, traffic in STREAMS.items():
        if not (cases := _by_threads(timed, quantity)):
            continue
        reached = _rates(cases, traffic)
        most = max(reached)
        fewer = [rate.value for count, rate in reached.items() if count <= FEWER_THREADS * most]
        full = max(fewer, default=0.0) >= SAME_RATE * reached[most].value
        yield _memory(reached[most], samples(cases[most]), f"{quantity} with {most:g} threads", full)


def _with_copies(timed: Sequence[Timed]) -> Iterator[Estimate]:
    slowed, idle = (_by_threads(timed, "cpu_adam", condition) for condition in (COPIES_RUN, IDLE))
    copies = large(of(timed, "duplex_pinned", ADAM_RUNS))
    both = slowed.keys() & idle.keys()
    if not both or not copies:
        return
    most = max(both)
    adam, alone = median_rates([slowed[most], idle[most]], ADAM_TRAFFIC)
    full = adam.value < SLOWED * alone.value
    largest = max(copies, key=lambda case: case.amount)
    copied = median_rates(copies, 2)[copies.index(largest)]
    together = Interval(*(a + b for a, b in zip(adam, copied, strict=True)))
    yield _memory(together, samples(slowed[most], largest), f"cpu_adam with {most:g} threads, and copies", full)


def _memory(interval: Interval, count: int, note: str, full: bool) -> Estimate:
    return Estimate("host.memory_bytes_per_s", interval, count, note, at_least=not full)
