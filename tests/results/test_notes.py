"""Notes on how far to trust one result: iterations that never repeat are said in every place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_scenarios import SCHEDULERS, scenario, small_buckets

from offsim.api import Result, compare, simulate
from offsim.cli import main
from offsim.engine import Code
from offsim.programs.rank import Rank
from offsim.programs.run import MAX_PERIODS
from offsim.programs.schedule import TrainingSchedule
from offsim.programs.transformer import BF16, Bucket
from offsim.schedulers.registry import BUILT_IN


class Growing(TrainingSchedule):
    """Writes a log of all iterations so far before each update."""

    name = "growing"
    log_bytes = 2e8

    def place(self, rank: Rank) -> None:
        super().place(rank)
        self.iterations = 0

    def gradient(self, rank: Rank, bucket: Bucket, first: bool, last: bool) -> Code:
        yield rank.d2h(rank.reduce_stream, BF16 * self.elements(bucket), "gradients")

    def update(self, rank: Rank) -> Code:
        self.iterations += 1
        yield rank.move(self.iterations * self.log_bytes, "gpu", "host", "log")
        for subgroup in self.subgroups:
            yield rank.cpu_adam(subgroup.elements, subgroup.index)
            upload = rank.h2d(rank.stream("upload"), BF16 * subgroup.elements, "upload parameters", subgroup.index)
            self.written(rank, subgroup, upload)


class GrowingInTurn(Growing):
    """The same, with two iterations a period."""

    name = "growing_in_turn"
    period = 2


class Counting(Growing):
    """Counts iterations, which all take the same time."""

    name = "counting"
    log_bytes = 0.0


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for schedule in (Growing, GrowingInTurn, Counting):
        monkeypatch.setitem(BUILT_IN, schedule.name, schedule)


def small(scheduler: str) -> Result:
    with small_buckets():
        return simulate(scenario(scheduler))


def seconds(result: Result, last: int, iterations: int) -> float:
    """From begin to begin, of so many iterations up to `last`."""
    phases = [phase for phase in result.run.phases if last - iterations < phase.iteration <= last]
    return phases[-1].end - phases[0].start


@pytest.mark.parametrize(("scheduler", "period"), [("growing", 1), ("growing_in_turn", 2)])
def test_iterations_that_do_not_settle_have_a_note(scheduler: str, period: int) -> None:
    result = small(scheduler)
    simulated = MAX_PERIODS * period
    assert {phase.iteration for phase in result.run.phases} == set(range(1, simulated + 1))
    last, before = (seconds(result, end, period) for end in (simulated, simulated - period))
    grown = period * period * Growing.log_bytes / result.run.profile.link.d2h_bytes_per_s
    assert last - before == pytest.approx(grown, rel=1e-6)
    assert result.iteration_s == pytest.approx(last / period)
    (note,) = result.notes
    assert note.startswith(f"The {simulated} simulated iterations did not settle; ")
    assert f"({period} iteration{'s' * (period > 1)} each) differ by {100 * (last / before - 1):.1f} % in time." in note


def test_iterations_of_the_same_time_that_never_repeat_have_a_note() -> None:
    (note,) = small("counting").notes
    assert "differ by 0.0 % in time" in note


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_iterations_that_repeat_have_none(scheduler: dict[str, object]) -> None:
    with small_buckets():
        assert simulate(scenario(scheduler)).notes == ()


def test_what_does_not_fit_has_none() -> None:
    result = simulate(scenario("growing", model={"hidden": 2**20}))
    assert (result.fits, result.notes) == (False, ())


def said(text: str) -> str:
    return " ".join(text.split())


def test_a_note_is_said_in_every_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(scenario("growing")))
    (note,) = simulate(path).notes
    assert run(capsys, "run", str(path)).count(note) == 1
    assert json.loads(run(capsys, "run", str(path), "--json", "-"))["notes"] == [note]
    page = tmp_path / "page.html"
    assert note in run(capsys, "report", str(path), "--html", str(page))
    assert said(page.read_text()).count(note) == 1
    together = ["compare", str(path), "--scheduler", "zero3_offload", "--scheduler", "growing"]
    assert run(capsys, *together).count(f"growing: {note}") == 1
    results = json.loads(run(capsys, *together, "--json", "-"))["results"]
    assert [result["notes"] for result in results] == [[], [note]]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return said(capsys.readouterr().out)


def test_notebooks_say_notes() -> None:
    result = simulate(scenario("growing"))
    both = compare(scenario(), ["zero3_offload", "growing"])
    (note,) = result.notes
    for text in (repr(result), result._repr_html_()):
        assert text.count(note) == 1
    for text in (repr(both), both._repr_html_()):
        assert text.count(f"growing: {note}") == 1


@pytest.mark.parametrize(("micro_batch", "flash_attention", "noted"), [(1, False, 0), (16, False, 1), (16, True, 0)])
def test_large_attention_matrices_are_said(micro_batch: int, flash_attention: bool, noted: int) -> None:
    changes = [f"training.micro_batch={micro_batch}", f"training.global_batch={4 * micro_batch}"]
    notes = simulate("dos_20b_4xh100", [*changes, f"model.flash_attention={str(flash_attention).lower()}"]).notes
    assert sum("makes matrices of 8.00 GiB" in note for note in notes) == noted
