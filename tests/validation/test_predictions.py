import pytest

from offsim import simulate
from offsim.inputs.errors import InputError
from offsim.results.limits import PhaseSpan
from offsim.validation.names import run_names
from offsim.validation.predictions import GIB, _within, predict, validate_runs
from offsim.validation.run_table import MEASURED, read_runs
from tests.validation.conftest import TOO_BIG

OUTCOMES = {**dict.fromkeys(MEASURED, "1.0"), "bwd_cv": "9", "params_per_tp_rank": "9", "largest_subgroup": "9"}


def test_times_are_those_of_the_simulation(make_table):
    run = read_runs(make_table({"global_batch": "16"})).runs[0]
    prediction = predict(run)
    result = simulate(run.scenario)
    forward, backward, update = (result.durations[phase] for phase in ("forward", "backward", "update"))
    assert prediction.values["fwd_ms"] == 1e3 * forward
    assert prediction.values["bwd_ms"] == 1e3 * backward
    assert prediction.values["step_ms"] == 1e3 * update
    overhead = result.run.profile.measurement.iteration_overhead_s
    assert prediction.values["iteration_ms"] == pytest.approx(1e3 * (forward + backward + update + overhead))
    assert prediction.time_s() == pytest.approx(forward + backward + update)
    assert set(prediction.values) == set(MEASURED)
    assert prediction.fits


def test_a_prediction_uses_the_configuration_only(make_table):
    plain = predict(read_runs(make_table()).runs[0]).values
    assert predict(read_runs(make_table(OUTCOMES)).runs[0]).values == plain


def test_a_run_that_does_not_fit_has_a_verdict_and_no_values(make_table):
    prediction = predict(read_runs(make_table(TOO_BIG)).runs[0])
    assert not prediction.fits
    assert prediction.values == {}
    assert prediction.time_s() is None
    assert prediction.verdict.tier == "GPU 0"


def test_a_run_that_cannot_be_simulated_is_named(make_table):
    table = read_runs(make_table({}, {"hardware": "jlse-4xh100", "dp": "8", "global_batch": "16"}))
    with pytest.raises(InputError, match=r"runs\.csv:3: data_parallel x tensor_parallel = 8 GPUs are 2 nodes of 4"):
        validate_runs(table)


def test_memory_at_an_instant_that_ends_a_phase_is_divided_between_the_phases():
    # at 1 s forward gives 5 back, then backward takes 9; at 2 s backward gives 6 back and nobody takes anything
    series = [(0.0, 8.0), (0.5, 12.0), (1.0, 7.0), (1.0, 16.0), (1.5, 14.0), (2.0, 8.0), (3.0, 8.5)]
    forward, backward = PhaseSpan(1, "forward", 0, 0.0, 1.0, 0), PhaseSpan(1, "backward", 0, 1.0, 2.0, 0)
    assert _within(series, forward) == [8.0, 12.0, 7.0]
    assert _within(series, backward) == [7.0, 16.0, 14.0, 8.0]
    assert _within(series, PhaseSpan(1, "update", 0, 2.25, 2.5, 0)) == [8.0]  # nothing changes: what was there before


def test_memory_without_offload_is_what_the_simulation_held(make_table):
    run = read_runs(make_table({"scheduler": "no_offload"})).runs[0]
    result, values = simulate(run.scenario), predict(run).values
    most = max(values["peak_after_forward_gib"], values["peak_after_backward_gib"])
    assert most == pytest.approx(result.gpu_peak_bytes / GIB)
    assert values["mem_before_forward_gib"] <= values["mem_after_forward_gib"] <= values["peak_after_forward_gib"]


def test_names_tell_runs_apart_and_no_more(make_table):
    rows = [
        {},
        {"scheduler": "deep_optimizer_states", "update_stride": "2"},
        {"scheduler": "deep_optimizer_states", "update_stride": "4.0", "series": ""},
        {"subgroup_size": "200000000"},
        {"subgroup_size": "200000000", "global_batch": "16"},
        {"subgroup_size": "200000000", "global_batch": "16"},
    ]
    table = read_runs(make_table(*rows))
    base = "polaris-4xa100 made-up tiny dp4 tp1"
    assert list(run_names(table.runs).values()) == [
        f"{base} zero3_offload ratio 1, sub-groups of 1e6",
        f"{base} deep_optimizer_states stride 2 ratio 1",
        "polaris-4xa100 tiny dp4 tp1 deep_optimizer_states stride 4 ratio 1",
        f"{base} zero3_offload ratio 1, sub-groups of 2e8, global batch 8",
        f"{base} zero3_offload ratio 1, sub-groups of 2e8, global batch 16, line 6",
        f"{base} zero3_offload ratio 1, sub-groups of 2e8, global batch 16, line 7",
    ]
