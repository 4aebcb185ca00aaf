"""One scenario on many machines: from tapes where that pays, and as the engine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from small_scenarios import profile, scenario

from offsim.engine import Code
from offsim.inputs.errors import InputError
from offsim.platform.hardware import HardwareProfile
from offsim.programs.rank import Rank
from offsim.programs.run import Run
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import BF16, Bucket
from offsim.results import machines
from offsim.results.machines import COMPILES_S, LOADS_S, Machines
from offsim.results.simulate import simulate
from offsim.scenario import load_scenario
from offsim.schedulers.registry import BUILT_IN
from offsim.schedulers.zero3_offload import Zero3Offload
from offsim.simulation import run_scenario

NODE = profile()


class Chosen(Machines):
    """A scenario on machines, and on which of them the engine ran."""

    def __init__(self, source: Mapping[str, Any], many: bool = True) -> None:
        super().__init__(load_scenario(source), many=many)
        self.on_engine: list[HardwareProfile] = []

    def _simulate(self, profile: HardwareProfile) -> Run:
        self.on_engine.append(profile)
        return super()._simulate(profile)

    def check(self, node: HardwareProfile) -> bool:
        """Whether it ran from a tape on this machine; it takes as long there as on the engine."""
        before = len(self.on_engine)
        seconds = self.on(node).ended_at
        assert seconds == pytest.approx(run_scenario(self._scenario, node, False, None).ended_at, rel=1e-9)
        return len(self.on_engine) == before


def faster_link(times: float) -> HardwareProfile:
    return NODE.with_values({"link": {"h2d_bytes_per_s": times * NODE.link.h2d_bytes_per_s}})


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float, bool], None]:
    """Set what the engine has cost so far, and whether the loop has been compiled before."""

    def given(engine_s: float, compiled: bool) -> None:
        monkeypatch.setattr(machines, "_engine_s", engine_s)
        monkeypatch.setattr("offsim.tape.compiled.kept", lambda: tmp_path if compiled else None)
        monkeypatch.setattr("offsim.tape.compiled.ready", lambda: True)
        monkeypatch.setattr("offsim.tape.compiled._FOLDERS", (tmp_path,))

    return given


@pytest.mark.parametrize(
    ("engine_s", "compiled", "many", "pays"),
    [
        (0.0, True, False, False),
        (0.9 * LOADS_S, True, False, False),
        (LOADS_S, True, False, True),
        (0.0, True, True, True),
        (0.0, False, True, False),
        (0.9 * COMPILES_S, False, True, False),
        (COMPILES_S, False, False, True),
    ],
)
def test_the_engine_is_rented_until_that_has_cost_as_much_as_the_loop(
    loop: Callable[[float, bool], None], engine_s: float, compiled: bool, many: bool, pays: bool
) -> None:
    pytest.importorskip("numba")
    loop(engine_s, compiled)
    assert machines._loop_pays(many) == pays


def test_time_on_the_engine_adds_up_until_the_loop_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_engine_s", 0.0)
    monkeypatch.setattr(machines, "_loop_pays", lambda many: False)
    chosen = Chosen(scenario(), many=False)
    for count in range(1, 4):
        before = machines._engine_s
        assert not chosen.check(NODE)
        assert machines._engine_s > before
        assert len(chosen.on_engine) == count


def test_the_loop_is_compiled_for_many_processes_that_want_it(loop: Callable[[float, bool], None]) -> None:
    pytest.importorskip("numba")
    for share in (0.5, 0.3, 0.15, 0.1):
        loop(0.0, False)  # a new process
        assert not machines._loop_pays(True)
        machines._spend(share * COMPILES_S)
    loop(0.0, False)
    assert machines._loop_pays(True)


def test_nobody_wants_a_loop_that_is_there(loop: Callable[[float, bool], None], tmp_path: Path) -> None:
    pytest.importorskip("numba")
    loop(0.0, True)
    machines._spend(0.9 * COMPILES_S)
    assert not any(tmp_path.iterdir())


def test_without_numba_the_engine_runs_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsim.tape.compiled.available", lambda: False)
    monkeypatch.setattr(machines, "_engine_s", 1e9)
    chosen = Chosen(scenario())
    assert not any(chosen.check(node) for node in (NODE, faster_link(2.0)))


def test_with_a_numba_that_cannot_be_imported_the_engine_runs_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_engine_s", 1e9)
    monkeypatch.setattr("offsim.tape.compiled.ready", lambda: False)
    chosen = Chosen(scenario())
    assert not any(chosen.check(node) for node in (NODE, faster_link(2.0)))


class TestFromTapes:
    @pytest.fixture(autouse=True)
    def _compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("numba")
        monkeypatch.setattr(machines, "_loop_pays", lambda many: True)

    def test_one_tape_is_for_many_machines(self) -> None:
        chosen = Chosen(scenario())
        assert all(chosen.check(faster_link(times)) for times in (1.0, 1.1, 0.7, 1.0))
        assert len(chosen._tapes) == 1

    def test_another_course_is_another_tape_and_both_are_kept(self) -> None:
        """Kernels on other sides of the roofline, other counts of NUMA domains."""
        chosen = Chosen(scenario())
        slow = NODE.with_values({"gpu": {"hbm_bytes_per_s": 1e9}})
        domains = NODE.with_values({"host": {"numa_domains": 2}})
        assert all(chosen.check(node) for node in (NODE, slow, domains))
        kept = {id(tape) for tape in chosen._tapes}
        assert len(kept) > 1
        assert all(chosen.check(node) for node in (NODE, slow, domains))
        assert {id(tape) for tape in chosen._tapes} == kept

    def test_no_more_courses_are_kept_than_a_few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machines, "MOST_TAPES", 2)
        chosen = Chosen(scenario())
        assert all(chosen.check(NODE.model_copy(update={"gpus_per_node": gpus})) for gpus in (4, 2, 8, 4))
        assert len(chosen._tapes) == 2

    def test_more_iterations_are_recorded_where_one_is_too_few(self) -> None:
        chosen = Chosen(scenario("zo2", training={"data_parallel": 1, "zero_stage": 0}))
        assert chosen.check(NODE)
        assert chosen._tapes[0].iterations > 1

    def test_the_engine_tells_where_memory_runs_out_and_tapes_go_on(self) -> None:
        chosen = Chosen(scenario())
        assert chosen.check(NODE)
        small = NODE.with_values({"host": {"memory_bytes": 1e5}})
        assert chosen.on(small).out_of_memory is not None
        assert chosen.on_engine == [small]
        assert chosen.check(faster_link(2.0))

    def test_a_schedule_that_decides_at_run_time_stays_on_the_engine(self) -> None:
        chosen = Chosen(scenario("superoffload", training={"zero_stage": 3}))
        assert not chosen.check(NODE)
        with patch("offsim.programs.recording.Recording", side_effect=AssertionError):  # not tried again
            assert not chosen.check(faster_link(2.0))

    def test_result_on_another_machine_is_that_of_a_simulation_there(self) -> None:
        result, other = simulate(scenario(), profile=NODE), faster_link(1.7)
        expected, found = simulate(scenario(), profile=other), result.on(other)
        assert found.iteration_s == pytest.approx(expected.iteration_s, rel=1e-9)
        assert found.durations == pytest.approx(expected.durations, rel=1e-9)
        assert found.limited_by == pytest.approx(expected.limited_by, rel=1e-6)
        assert found.gpu_peak_bytes == expected.gpu_peak_bytes
        assert result.on(NODE).iteration_s == pytest.approx(result.iteration_s, rel=1e-9)

    def test_stretch_and_all_ranks_are_as_of_simulate(self) -> None:
        how: dict[str, Any] = {"all_ranks": True, "stretch": {"cpu_adam": 2.5}}
        found = Machines(load_scenario(scenario()), **how).on(NODE)
        expected = simulate(scenario(), profile=NODE, **how)
        assert len(found.ranks) == len(expected.run.ranks) == 2
        assert found.ended_at == pytest.approx(expected.run.ended_at, rel=1e-9)

    def test_a_bound_on_operations_is_the_engines_error(self) -> None:
        found = Machines(load_scenario(scenario()), max_operations=60, many=True)
        with pytest.raises(InputError, match="expected at most 60"):
            found.on(NODE)


class Own(Zero3Offload):
    """Somebody's own schedule, which does as the tape says."""

    name = "own"


class Racing(Own):
    """It asks its own clock, which a tape does not know of: what it does depends on when it is asked."""

    name = "racing"
    asked = 0

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        type(self).asked += 1
        yield from super().gradient(rank, bucket, first, last)
        if type(self).asked % 7 < 3:
            yield rank.d2h(rank.reduce_stream, BF16 * 10**6, "more")


class TestOwnSchedules:
    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        pytest.importorskip("numba")
        monkeypatch.setattr(machines, "_loop_pays", lambda many: True)
        own: list[type[TrainingSchedule]] = [Own, Racing]
        with patch.dict(BUILT_IN, {schedule.name: schedule for schedule in own}):
            yield

    def test_one_is_compared_with_the_engine_first(self) -> None:
        chosen = Chosen(scenario("own"))
        assert not chosen.check(NODE)  # the engine ran as well
        assert chosen.check(faster_link(2.0))
        assert len(chosen.on_engine) == 1

    def test_one_that_differs_from_the_engine_stays_there(self) -> None:
        chosen = Chosen(scenario("racing", training={"global_batch": 6}))
        for node in (NODE, faster_link(2.0)):
            chosen.on(node)
        assert chosen._on_tape is False
        assert chosen.on_engine[-1] == faster_link(2.0)
