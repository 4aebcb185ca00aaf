"""Results: numbers, tables, verdicts, and what is imported for them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_scenarios import SCHEDULERS, profile, scenario, small_buckets

from offsim import DoesNotFit, Result, simulate
from offsim.programs.rank import ADAM_TRAFFIC, DOWNCAST_TRAFFIC, SCALE_TRAFFIC
from offsim.results.remedies import find_remedies
from offsim.scenario import load_scenario
from offsim.schedulers.registry import BUILT_IN, find_scheduler

TIMELINE = [
    "iteration", "phase", "rank", "stream", "activity", "name", "subgroup", "layer", "bytes", "enqueued_s", "start_s",
    "end_s", "alone_s", "waited_for", "limited_by",
]  # fmt: skip


def small(scheduler: str | dict[str, Any], *, all_ranks: bool = False, **changes: dict[str, Any]) -> Result:
    with small_buckets():
        return simulate(scenario(scheduler, **changes), profile=profile(), all_ranks=all_ranks)


@pytest.fixture(scope="module")
def dos() -> Result:
    return small("deep_optimizer_states")


def test_timeline_is_flat(dos: Result) -> None:
    table = dos.timeline
    assert list(table.columns) == TIMELINE
    assert table.index.is_unique
    assert table.index.is_monotonic_increasing
    assert set(table["phase"]) == {"forward", "backward", "update"}
    assert table["end_s"].ge(table["start_s"]).all()
    assert table["start_s"].ge(table["enqueued_s"]).all()
    assert table.dtypes[["bytes", "start_s", "alone_s"]].eq("float64").all()
    released = table[table["waited_for"] >= 0]
    before = table.loc[released["waited_for"], "end_s"].to_numpy()
    assert np.all(before <= released["start_s"].to_numpy())


def test_time_zero_is_the_start_of_the_measured_iteration(dos: Result) -> None:
    assert dos.run.started_at > 0
    table = dos.timeline
    assert table.loc[table["iteration"] == 1, "start_s"].min() == 0.0
    earlier = table[table["iteration"] == 0]
    assert earlier["end_s"].gt(0).all()
    assert len(earlier) < len(table) / 4
    assert dos.phases["start_s"].iloc[0] == 0.0


def test_phases_follow_one_another(dos: Result) -> None:
    phases = dos.phases
    assert phases["phase"].to_list() == ["forward", "backward"] * 2 + ["update"]
    assert phases["micro_step"].to_list() == [0, 0, 1, 1, 0]
    assert phases["start_s"].to_list()[1:] == phases["end_s"].to_list()[:-1]
    assert phases["duration_s"].sum() == pytest.approx(dos.iteration_s)
    assert dos.durations["forward"] == pytest.approx(phases.query("phase == 'forward'")["duration_s"].sum())
    assert list(dos.durations) == ["forward", "backward", "update"]


def test_rates(dos: Result) -> None:
    assert dos.tokens_per_s == pytest.approx(4 * 32 / dos.iteration_s)
    flops = dos.run.workload.model_flops() * 2  # micro-steps
    assert dos.tflops_per_gpu == pytest.approx(flops / dos.iteration_s / 1e12)


def test_utilization_of_the_datasheet_peak_and_costs() -> None:
    priced = simulate(scenario("zero3_offload"), ["price_per_gpu_hour=3.6"], profile=profile())
    free = small("zero3_offload")
    assert (free.cost_per_iteration, free.cost_per_1e9_tokens) == (None, None)
    work = free.run.workload
    model = work.model
    matrices = model.layers * (work.layer_elements - 2 * model.hidden) + work.vocab_elements
    flops = 6 * matrices + 12 * model.layers * model.hidden * model.sequence  # PaLM, appendix B
    assert free.mfu == pytest.approx(flops * free.tokens_per_s / free.gpus / free.run.profile.gpu.peak_flops_per_s)
    assert free.tokens_per_day == pytest.approx(86_400 * free.tokens_per_s)
    assert priced.cost_per_iteration == pytest.approx(1e-3 * priced.gpus * priced.iteration_s)
    assert priced.cost_per_1e9_tokens == pytest.approx(1e-3 * priced.gpus * 1e9 / priced.tokens_per_s)
    assert "at 3.6 per GPU hour" in repr(priced)
    assert "at 3.6 per GPU hour" in priced._repr_html_()
    assert priced.to_dict(series=False)["cost_per_iteration"] == priced.cost_per_iteration


def test_memory_starts_with_what_is_held_at_zero(dos: Result) -> None:
    memory = dos.memory
    assert memory["time_s"].min() == 0.0
    for tier in ("GPU 0", "host"):
        rows = memory[memory["tier"] == tier]
        assert rows["time_s"].is_monotonic_increasing
        held: dict[str, float] = {}
        for row in rows.to_dict("records"):
            held[row["occupant"]] = row["bytes"]
            assert row["used_bytes"] == pytest.approx(sum(held.values()))
    peak = next(peak for peak in dos.peaks if peak.tier == "GPU 0")
    assert peak.bytes == memory.loc[memory["tier"] == "GPU 0", "used_bytes"].max() == dos.gpu_peak_bytes
    assert sum(peak.occupants.values()) == pytest.approx(peak.bytes)


def test_host_memory_is_that_of_all_ranks_of_the_node() -> None:
    result = small("zero3_offload")
    owned = result.run.workload.partition
    ranks = 2
    assert result.host_peak_bytes == 18 * owned * ranks
    assert result.peaks[-1].capacity_bytes == 4e12
    assert result.memory.loc[result.memory["tier"] == "host", "used_bytes"].max() == 18 * owned * ranks
    assert small("zero3_offload", all_ranks=True).host_peak_bytes == pytest.approx(18 * owned * ranks)


def test_host_memory_bandwidth_is_that_of_the_whole_domain() -> None:
    one, every = (small("zero3_offload", all_ranks=all_ranks) for all_ranks in (False, True))
    for result in (one, every):
        assert result.utilization.loc["host memory", "capacity"] == 1e11
        assert result.utilization.loc["CPU cores", "capacity"] == 16
    most = [r.bandwidth.query("resource == 'host memory'")["bytes_per_s"].max() for r in (one, every)]
    assert most[0] == pytest.approx(most[1])
    assert most[0] > 28e9 * 1.9  # two ranks' Adam at once


def test_utilization_of_the_serial_update() -> None:
    result = simulate(scenario("zero3_offload"), profile=profile(link={"copy_latency_s": 0.0}))
    update = result.utilization["update"]
    per_s = result.run.workload.partition / result.durations["update"]
    assert update["D2H"] == 0
    assert update["H2D"] == pytest.approx(2 * per_s / 2e10)
    traffic = SCALE_TRAFFIC + ADAM_TRAFFIC + DOWNCAST_TRAFFIC + 3 * 2  # the last: 2 B, staged by the CPU
    assert update["host memory"] == pytest.approx(2 * traffic * per_s / 1e11)  # two ranks
    assert list(result.utilization.columns) == ["capacity", "unit", "iteration", "forward", "backward", "update"]


def test_contention_is_named(dos: Result) -> None:
    scarce = profile(host={"memory_bytes_per_s": 1e10})
    result = simulate(scenario("deep_optimizer_states"), profile=scarce)
    adam = result.timeline.query("activity == 'cpu_adam'")
    assert adam["limited_by"].eq("host memory bandwidth").all()
    assert (adam["end_s"] - adam["start_s"]).gt(2 * adam["alone_s"]).all()
    assert next(iter(result.limits_s["update"])) == "host memory bandwidth"
    assert "limited by: host memory bandwidth" in repr(result)


def test_summary_and_repr(dos: Result) -> None:
    summary = dos.summary()
    assert summary["iteration_s"] == dos.iteration_s
    assert summary["fits"] is True
    assert summary.name == "deep_optimizer_states"
    text = repr(dos)
    assert len(text.splitlines()) == 4
    assert text.startswith("deep_optimizer_states: deep_optimizer_states on 2 GPUs of made-up")
    html = dos._repr_html_()
    most = dos.limits.groupby("limited_by")["percent"].max()
    assert html.count("<tr>") == 1 + (most >= 0.05).sum()
    escaped = load_scenario(scenario() | {"name": "<b>"})
    assert "<b><b>" not in simulate(escaped, profile=profile())._repr_html_()


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=str)
def test_to_dict_is_plain_and_always_the_same(scheduler: dict[str, Any]) -> None:
    first, second = (json.dumps(small(scheduler).to_dict(), allow_nan=False) for _ in range(2))
    assert first == second
    document = json.loads(first)
    assert len(document["timeline"]["id"]) == len(document["timeline"]["start_s"])
    assert document["verdict"] is None
    assert "timeline" not in small(scheduler).to_dict(series=False)


def test_views_are_drawn_from_results(dos: Result, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for picture in (dos.plot_timeline(), dos.plot_memory(title="mine"), dos.plot_bandwidth()):
        assert picture.get_axes()
    dos.to_perfetto(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_bytes())
    assert trace["otherData"]["scenario"]["scheduler"]["name"] == "deep_optimizer_states"


@pytest.fixture(scope="module")
def on_gpu() -> Result:
    """Parameters and optimizer state fit, the activations don't."""
    source = scenario("no_offload", training={"micro_batch": 4, "global_batch": 16})
    with small_buckets():
        peak = simulate(source, profile=profile()).peaks[0].bytes
        result = simulate(source, profile=profile(gpu={"memory_bytes": 0.99 * peak}))
        assert result.verdict is not None
        assert result.verdict.remedies  # simulated now, with small buckets
        assert result.verdict.shortages
        return result


class TestDoesNotFit:
    """A scenario that runs out of memory has a verdict and no times."""

    def test_verdict(self, on_gpu: Result) -> None:
        verdict = on_gpu.verdict
        assert verdict is not None
        assert not on_gpu.fits
        assert verdict.tier == "GPU 0"
        assert verdict.phase in ("forward", "backward")
        assert verdict.time_s >= 0
        assert verdict.used_bytes <= verdict.capacity_bytes < verdict.used_bytes + verdict.asked_bytes
        assert sum(verdict.occupants.values()) == pytest.approx(verdict.used_bytes)
        assert verdict.occupant in str(verdict)

    def test_no_time_is_returned(self, on_gpu: Result) -> None:
        for name in ("iteration_s", "durations", "tokens_per_s", "tflops_per_gpu"):
            with pytest.raises(DoesNotFit, match="does not fit: GPU 0 memory"):
                getattr(on_gpu, name)
        assert on_gpu.summary()["iteration_s"] is None
        assert on_gpu.to_dict()["iteration_s"] is None

    def test_remedies_fit(self, on_gpu: Result) -> None:
        verdict = on_gpu.verdict
        assert verdict is not None
        assert verdict.remedies
        changes = [remedy.change for remedy in verdict.remedies]
        assert "scheduler.name=zero3_offload_async_grads" in changes
        with small_buckets():
            for remedy in verdict.remedies:
                again = simulate(on_gpu.scenario, remedy.change.split(", "), profile=on_gpu.run.profile)
                assert again.iteration_s == remedy.iteration_s
                assert again.gpus == remedy.gpus
        assert verdict.remedies == tuple(sorted(verdict.remedies, key=lambda r: (r.gpus, r.iteration_s)))
        assert f"would fit with --set {verdict.remedies[0].change}: " in repr(on_gpu)

    def test_what_happened_before_can_be_seen(self, on_gpu: Result) -> None:
        assert on_gpu.verdict is not None
        assert on_gpu.phases["phase"].to_list() == ["forward", "backward"]
        assert on_gpu.phases["end_s"].iloc[-1] == on_gpu.verdict.time_s
        assert on_gpu.plot_timeline().get_axes()
        assert on_gpu.plot_memory().get_axes()

    def test_host(self) -> None:
        with small_buckets():
            result = simulate(scenario("zero3_offload"), profile=profile(host={"memory_bytes": 1e6}))
            verdict = result.verdict
            assert verdict is not None
            assert verdict.remedies
        assert verdict.tier == "host"
        assert verdict.phase == "set-up"
        assert verdict.time_s == 0
        assert verdict.capacity_bytes == pytest.approx(1e6)
        assert result.phases.empty
        assert result.timeline.empty
        assert result.timeline.index.dtype == "int64"
        with pytest.raises(DoesNotFit):
            result.plot_timeline()
        assert any(remedy.change.startswith("scheduler.cpu_ratio=") for remedy in verdict.remedies)

    def test_all_shortages(self, on_gpu: Result) -> None:
        assert on_gpu.verdict is not None
        (short, *others) = on_gpu.verdict.shortages
        assert (short.tier, [other.tier for other in others]) == ("GPU 0", [])
        assert short.needed_bytes == pytest.approx(short.capacity_bytes / 0.99)  # the peak with enough memory
        both = profile(gpu={"memory_bytes": 1e4}, host={"memory_bytes": 1e5})
        with small_buckets():
            roomy, cramped = simulate(scenario("zero3_offload")), simulate(scenario("zero3_offload"), profile=both)
            assert cramped.verdict is not None
            found = {short.tier: short.needed_bytes for short in cramped.verdict.shortages}
        peaks = {peak.tier: peak.bytes for peak in roomy.peaks}
        assert found == {tier: pytest.approx(peaks[tier]) for tier in ("GPU 0", "host")}

    def test_hopeless(self) -> None:
        result = simulate(scenario("zero3_offload"), profile=profile(gpu={"memory_bytes": 1.0}))
        assert result.verdict is not None
        assert result.verdict.remedies == ()
        assert "no change tried" in repr(result)
        assert "no change tried" in result._repr_html_()


def test_remedies_compute_the_same_result() -> None:
    """No schedule that is stale or approximate makes fit what is neither; where the scenario is, it may."""

    def offered(own: str) -> set[str]:
        found = find_remedies(load_scenario(scenario(own)), lambda changed: 1.0)
        return {one.change.removeprefix("scheduler.name=") for one in found.changes}

    deviating = {name for name in BUILT_IN if (cls := find_scheduler(name)).deviates(cls.Options())}
    assert {"zenflow", "megatrain"} <= deviating
    assert not offered("zero3_offload") & deviating
    assert "megatrain" in offered("roundpipe")


def test_remedies_try_the_smallest_change_first() -> None:
    tried = []

    def attempt(changed: Any) -> float | None:
        tried.append(changed.training.micro_batch)
        return 1.0 if changed.training.micro_batch <= 2 else None

    source = load_scenario(scenario("zero3_offload", training={"micro_batch": 8, "global_batch": 16}))
    found = find_remedies(source, attempt)
    assert tried[:2] == [4, 2]
    assert found.changes[0].change == "training.micro_batch=2"
    assert "training.micro_batch=4" in found.in_vain


def test_several_changes_where_no_single_one_helps() -> None:
    """Of all that saves memory only what is needed is left."""
    source = load_scenario(scenario("zero3_offload", training={"micro_batch": 8, "global_batch": 16}))
    assert not source.model.flash_attention

    def attempt(changed: Any) -> float | None:
        return 1.0 if changed.training.micro_batch == 1 and changed.model.flash_attention else None

    found = find_remedies(source, attempt)
    assert [remedy.change for remedy in found.changes] == ["training.micro_batch=1, model.flash_attention=true"]
    assert "training.micro_batch=4, 2, 1" in found.in_vain
    assert found.machine is None


def test_the_nearest_machine_is_the_smallest_that_fits() -> None:
    settings = ["training.data_parallel=4", "model.layers=85"]
    small = simulate("no_offload_7b_dgx_h200", [*settings, "hardware=jlse-4xh100"])
    assert small.verdict is not None
    machine = small.verdict.machine
    assert machine is not None
    moved = simulate("no_offload_7b_dgx_h200", [*settings, machine.change])
    assert moved.iteration_s == machine.iteration_s
    assert moved.run.profile.gpu.memory_bytes > small.run.profile.gpu.memory_bytes
    assert f"--set {machine.change}" in repr(small)


def test_remedies_on_more_ranks_keep_the_global_batch() -> None:
    source = load_scenario(scenario("zero3_offload", training={"micro_batch": 2, "global_batch": 4}))

    def attempt(changed: Any) -> float | None:
        assert changed.training.global_batch == 4
        return 1.0 if changed.training.data_parallel > 2 else None

    (remedy,) = find_remedies(source, attempt).changes
    assert remedy.change == "training.data_parallel=4, training.micro_batch=1"
    assert remedy.gpus == 4


SIMULATE = """
import sys
import offsim
before = set(sys.modules)
assert not {"numpy", "pandas", "matplotlib", "simpy", "pydantic"} & before, before
result = offsim.simulate(SOURCE)
repr(result), result.limits_s, result.peaks, result.fits
loaded = {"numpy", "pandas", "matplotlib", "orjson"} & set(sys.modules)
assert not loaded, loaded
result.timeline
assert "matplotlib" not in sys.modules
"""


def test_nothing_is_imported_before_it_is_needed() -> None:
    subprocess.run([sys.executable, "-c", SIMULATE.replace("SOURCE", repr(scenario()))], check=True)


def test_result_is_made_lazily() -> None:
    result = small("zero3_offload")
    assert not {"timeline", "memory", "limits_s", "_operations"} & vars(result).keys()
    assert result.timeline is result.timeline
    assert math.isfinite(result.iteration_s)
