"""Threads: code that waits for operations, spawned and joined, and the tags that it gives what it enqueues."""

from __future__ import annotations

import pytest
from programs import times, work

from offsim.engine import Code, Deadlock, Engine, Operation, Stream, Thread
from offsim.engine.engine import NotAwaitable


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def host() -> Thread:
    return Thread("host thread")


# Waiting


def test_yielding_an_operation_waits_for_its_end(engine: Engine, host: Thread) -> None:
    seen: list[float] = []

    def code() -> Code:
        copy = engine.enqueue(work(Stream("copies"), 2.0), thread=host)
        seen.append(engine.env.now)
        yield copy
        seen.append(engine.env.now)
        yield copy  # has ended
        yield None
        yield engine.enqueue(work(host, 0.0), thread=host)  # ends at once
        seen.append(engine.env.now)
        yield engine.enqueue(work(host, 3.0), thread=host)
        seen.append(engine.env.now)

    end = engine.spawn(host, code())
    engine.env.run()
    assert seen == [0.0, 2.0, 2.0, 5.0]
    assert end.ended_at == 5.0


def test_code_that_waits_for_nothing_ends_at_once(engine: Engine, host: Thread) -> None:
    def code() -> Code:
        yield from ()

    end = engine.spawn(host, code())
    engine.env.run()
    assert (end.done, end.ended_at) == (True, 0.0)


def test_several_threads_wait_for_one_operation(engine: Engine) -> None:
    kernel = engine.enqueue(work(Stream("compute"), 2.0))
    seen: list[tuple[int, float]] = []

    def code(number: int) -> Code:
        yield kernel
        seen.append((number, engine.env.now))

    for number in range(3):
        engine.spawn(Thread(f"thread {number}"), code(number))
    engine.env.run()
    assert seen == [(0, 2.0), (1, 2.0), (2, 2.0)]


def test_what_a_thread_waited_for_last_is_what_its_next_work_waited_for(engine: Engine, host: Thread) -> None:
    found: list[Operation] = []

    def code() -> Code:
        copy = engine.enqueue(work(Stream("copies"), 2.0), thread=host)
        yield copy
        found.extend([copy, engine.enqueue(work(Stream("compute"), 1.0), thread=host)])

    engine.spawn(host, code())
    engine.env.run()
    copy, kernel = found
    assert kernel.waited_for is copy


@pytest.mark.parametrize("wrong", [3.0, "copy", [], Stream("compute")], ids=repr)
def test_only_operations_can_be_waited_for(engine: Engine, host: Thread, wrong: object) -> None:
    def code() -> Code:
        yield wrong  # type: ignore[misc]

    engine.spawn(host, code())
    with pytest.raises(NotAwaitable, match=r"found `yield` of .*, expected an operation"):
        engine.env.run()


def test_what_goes_wrong_in_a_thread_ends_the_run(engine: Engine, host: Thread) -> None:
    def code() -> Code:
        yield engine.enqueue(work(host, 1.0), thread=host)
        raise KeyError("nvme")

    engine.spawn(host, code())
    with pytest.raises(KeyError, match="nvme"):
        engine.env.run()


# Spawning and joining


def test_a_spawned_thread_runs_beside_the_one_that_joins_it(engine: Engine, host: Thread) -> None:
    worker = Thread("worker")
    seen: list[tuple[str, float]] = []

    def background() -> Code:
        yield engine.enqueue(work(worker, 5.0), thread=worker)
        seen.append(("worker", engine.env.now))

    def code() -> Code:
        end = engine.spawn(worker, background(), host)
        yield engine.enqueue(work(host, 2.0), thread=host)
        seen.append(("host", engine.env.now))
        yield end
        seen.append(("joined", engine.env.now))
        yield end  # a thread that has ended
        seen.append(("again", engine.env.now))

    engine.spawn(host, code())
    engine.env.run()
    assert seen == [("host", 2.0), ("worker", 5.0), ("joined", 5.0), ("again", 5.0)]


def test_the_end_of_code_orders_operations_behind_it(engine: Engine, host: Thread) -> None:
    def background(worker: Thread) -> Code:
        yield engine.enqueue(work(worker, 3.0), thread=worker)

    end = engine.spawn(worker := Thread("worker"), background(worker))
    upload = engine.enqueue(work(Stream("upload"), 1.0), after=[end], thread=host)
    engine.env.run()
    assert times(upload) == [(3, 4)]
    assert upload.waited_for is end
    assert end.waited_for is engine.operations[1]  # and so on to what the thread did


def test_code_queues_behind_what_the_thread_was_given_before(engine: Engine, host: Thread) -> None:
    worker = Thread("worker")
    seen: list[tuple[str, float]] = []

    def background(name: str, seconds: float) -> Code:
        seen.append((f"{name} begins", engine.env.now))
        yield engine.enqueue(work(worker, seconds), thread=worker)
        seen.append((f"{name} ends", engine.env.now))

    def code() -> Code:
        engine.spawn(worker, background("first", 4.0), host)
        yield engine.enqueue(work(host, 1.0), thread=host)
        yield engine.spawn(worker, background("second", 2.0), host)
        yield engine.spawn(worker, background("third", 1.0), host)

    engine.spawn(host, code())
    engine.env.run()
    assert seen == [
        ("first begins", 0.0),
        ("first ends", 4.0),
        ("second begins", 4.0),
        ("second ends", 6.0),
        ("third begins", 6.0),
        ("third ends", 7.0),
    ]


def test_a_thread_may_give_itself_work_without_waiting_for_it(engine: Engine, host: Thread) -> None:
    seen: list[str] = []

    def later() -> Code:
        seen.append("later")
        yield from ()

    def code() -> Code:
        engine.spawn(host, later(), host)
        yield engine.enqueue(work(host, 1.0), thread=host)
        seen.append("first")

    engine.spawn(host, code())
    engine.env.run()
    assert seen == ["first", "later"]


# Tags


def test_operations_have_the_tags_of_the_thread_that_enqueues_them(engine: Engine) -> None:
    threads = [Thread("a"), Thread("b")]
    threads[0].phase, threads[0].iteration = "forward", 3
    threads[1].phase, threads[1].iteration = "update", 2
    compute = Stream("compute")
    for thread in (threads[0], threads[1], threads[0]):
        engine.enqueue(work(compute, 1.0), thread=thread)
    engine.enqueue(work(compute, 1.0))
    assert [(o.phase, o.iteration) for o in engine.operations] == [
        ("forward", 3),
        ("update", 2),
        ("forward", 3),
        ("", 0),
    ]


def test_a_spawned_thread_keeps_the_tags_of_the_iteration_that_spawned_it(engine: Engine, host: Thread) -> None:
    """Even for code that begins in the next iteration, since the thread still runs that of the one before."""
    worker = Thread("worker")

    def background(seconds: float) -> Code:
        yield engine.enqueue(work(worker, seconds), thread=worker)
        engine.enqueue(work(Stream("upload"), 1.0, name="upload"), thread=worker)

    def code() -> Code:
        for iteration in (1, 2):
            host.iteration = iteration
            for phase in ("forward", "update"):
                host.phase = phase
                yield engine.enqueue(work(host, 1.0), thread=host)
                engine.spawn(worker, background(5.0), host)

    engine.spawn(host, code())
    engine.env.run()
    by_worker = [(o.phase, o.iteration, o.started_at) for o in engine.operations if o.stream is worker]
    assert by_worker == [("forward", 1, 1.0), ("update", 1, 6.0), ("forward", 2, 11.0), ("update", 2, 16.0)]
    uploads = [(o.phase, o.iteration) for o in engine.operations if o.name == "upload"]
    assert uploads == [("forward", 1), ("update", 1), ("forward", 2), ("update", 2)]
    assert engine.env.now == 22.0


def test_a_thread_without_an_issuer_has_its_own_tags(engine: Engine, host: Thread) -> None:
    host.phase, host.iteration = "update", 7

    def code() -> Code:
        yield engine.enqueue(work(host, 1.0), thread=host)

    engine.spawn(host, code())
    engine.env.run()
    assert [(o.phase, o.iteration) for o in engine.operations] == [("update", 7)]


# One instant


def test_at_one_instant_a_thread_goes_on_before_what_starts_then_ends(engine: Engine, host: Thread) -> None:
    """Though that takes so little time that it ends at the same instant."""
    compute = Stream("compute")
    seen: list[bool] = []

    def code() -> Code:
        first, behind = engine.enqueue(work(compute, 1.0)), engine.enqueue(work(compute, 1e-20))
        yield first
        seen.append(behind.done)
        yield behind
        seen.append(engine.env.now == 1.0)

    engine.spawn(host, code())
    engine.env.run()
    assert seen == [False, True]


# What never ends


def test_waiting_for_what_was_never_enqueued_is_a_deadlock(engine: Engine, host: Thread) -> None:
    def code() -> Code:
        yield work(Stream("copies"), 1.0, name="upload parameters 3")

    engine.spawn(host, code())
    engine.env.run()
    with pytest.raises(Deadlock, match=r": host thread of rank 0 waits for 'upload parameters 3', which never ends$"):
        engine.check_ended()


def test_threads_that_wait_for_each_other_are_a_deadlock(engine: Engine) -> None:
    one, other = Thread("one", rank=2), Thread("other", rank=2)
    ends: dict[str, Operation] = {}

    def code(awaited: str) -> Code:
        yield ends[awaited]

    ends["one"] = engine.spawn(one, code("other"))
    ends["other"] = engine.spawn(other, code("one"))
    engine.env.run()
    with pytest.raises(Deadlock, match=r"one of rank 2 waits for 'end of other', which never ends"):
        engine.check_ended()


def test_threads_that_have_ended_are_no_deadlock(engine: Engine, host: Thread) -> None:
    def code() -> Code:
        yield engine.enqueue(work(host, 1.0), thread=host)

    engine.spawn(host, code())
    engine.env.run()
    engine.check_ended()
    assert engine.unfinished() == []


def test_unfinished_operations_are_those_not_ended_in_order(engine: Engine) -> None:
    stream = Stream("compute")
    operations = [engine.enqueue(work(stream, 1.0)) for _ in range(4)]
    other = engine.enqueue(work(Stream("copies"), 2.5))
    engine.env.run(until=1.5)
    assert engine.unfinished() == [*operations[1:], other]


def test_a_pause_ends_after_all_else_at_its_instant(engine: Engine) -> None:
    seen: list[str] = []

    def patient(thread: Thread) -> Code:
        yield engine.enqueue(work(thread, 1.0), thread=thread)
        yield engine.pause(thread)
        seen.append(f"{thread.name} at {engine.env.now:g}")

    def busy(thread: Thread) -> Code:
        yield engine.enqueue(work(thread, 1.0), thread=thread)
        for _ in range(3):
            yield engine.enqueue(work(thread, 0.0), thread=thread)
            yield engine.spawn(Thread("inner"), iter(()))  # type: ignore[arg-type]
        seen.append(f"{thread.name} at {engine.env.now:g}")

    engine.spawn(Thread("patient"), patient(Thread("patient")))
    engine.spawn(Thread("busy"), busy(Thread("busy")))
    engine.env.run()
    assert seen == ["busy at 1", "patient at 1"]
