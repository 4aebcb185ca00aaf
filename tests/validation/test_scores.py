import pytest

from offsim.validation.predictions import Prediction, Validation
from offsim.validation.ranking import rankings
from offsim.validation.reasons import reasons
from offsim.validation.run_table import read_runs
from offsim.validation.score import Comparison, comparisons, score, scores, worst_runs


def made_up(make_table, rows, predicted):
    """Predictions of these times (forward, backward, step; None: does not fit) for rows of a table."""
    table = read_runs(make_table(*rows))
    values = [{} if p is None else dict(zip(("fwd_ms", "bwd_ms", "step_ms"), p, strict=True)) for p in predicted]
    verdict = object()
    predictions = tuple(
        Prediction(run, v, None if v else verdict)  # type: ignore[arg-type]
        for run, v in zip(table.runs, values, strict=True)
    )
    return Validation(table, predictions)


def times(forward, backward, step):
    return {"fwd_ms": str(forward), "bwd_ms": str(backward), "step_ms": str(step)}


def test_comparisons_are_of_what_was_measured_and_fits(make_table):
    rows = [times(100, 200, 300), times(100, "", 300), times(1, 2, 3)]
    validation = made_up(make_table, rows, [(110, 190, 300), (90, 200, 330), None])
    found = [(c.line, c.phase, c.measured, c.predicted, c.unit) for c in comparisons(validation)]
    assert found == [
        (2, "forward", 100, 110, "ms"),
        (2, "backward", 200, 190, "ms"),
        (2, "step", 300, 300, "ms"),
        (2, "sum", 600, 600, "ms"),
        (3, "forward", 100, 90, "ms"),
        (3, "step", 300, 330, "ms"),
    ]


def test_scores_of_made_up_numbers():
    compared = [Comparison(i, f"run {i}", "a", "step", "ms", 100.0, 100.0 + d) for i, d in enumerate([1, -2, -3, 10])]
    found = score(compared)
    assert (found.n, found.worst_run) == (4, "run 3")
    assert found.median == pytest.approx(0.025)
    assert found.p90 == pytest.approx(0.03 + 0.7 * 0.07)
    assert found.worst == pytest.approx(0.10)
    assert found.bias == pytest.approx(-0.005)


def test_scores_are_per_hardware_and_phase_in_order(make_table):
    rows = [times(1, 2, 3), {**times(1, 2, 3), "hardware": "jlse-4xh100"}]
    found = scores(comparisons(made_up(make_table, rows, [(1, 2, 3), (2, 2, 3)])))
    assert list(found) == ["jlse-4xh100", "polaris-4xa100"]
    assert list(found["jlse-4xh100"]) == ["forward", "backward", "step", "sum"]
    assert found["jlse-4xh100"]["forward"].worst == 1.0
    assert found["polaris-4xa100"]["sum"].worst == 0.0


def test_the_worst_runs_are_named_once_with_their_worst_phase():
    compared = [
        Comparison(2, "a", "hw", "forward", "ms", 100, 120),
        Comparison(2, "a", "hw", "backward", "ms", 100, 70),
        Comparison(2, "a", "hw", "sum", "ms", 100, 1),
        Comparison(3, "b", "hw", "step", "ms", 100, 125),
        Comparison(4, "c", "hw", "step", "ms", 100, 101),
    ]
    assert [(w.name, w.phase) for w in worst_runs(compared, 2)] == [("a", "backward"), ("b", "step")]


def test_the_best_scheduler_of_a_series(make_table):
    dos = {"scheduler": "deep_optimizer_states", "update_stride": "2"}
    rows = [
        {"scheduler": "zero3_offload", **times(10, 50, 40), "cpu_ratio": "1.0"},
        {"scheduler": "zero3_offload_async_grads", **times(10, 20, 40)},
        {**dos, **times(10, 20, 30)},
        {**dos, "update_stride": "4", **times(10, 20, 50)},
        {"scheduler": "zero3_offload", "series": "alone", **times(1, 1, 1)},
    ]
    (found,) = rankings(
        made_up(make_table, rows, [(10, 50, 40), (10, 20, 25), (10, 20, 45), (10, 20, 30), (1, 1, 1)]).predictions
    )["scheduler"]
    assert found.name == "polaris-4xa100 made-up tiny dp4 tp1 ratio 1 global batch 8"
    # Deep Optimizer States counts at its best stride: measured 2, predicted 4
    assert found.measured_s == pytest.approx(
        {"zero3_offload": 0.1, "zero3_offload_async_grads": 0.07, "deep_optimizer_states": 0.06}
    )
    assert found.predicted_s["deep_optimizer_states"] == pytest.approx(0.06)
    assert (found.best, found.predicted_best) == ("deep_optimizer_states", "zero3_offload_async_grads")
    assert not found.agrees
    assert found.loss == pytest.approx(0.01 / 0.06)
    assert found.pairs == (3, 2)


def test_the_best_stride_of_a_series(make_table):
    dos = {"scheduler": "deep_optimizer_states"}
    rows = [
        {**dos, "update_stride": "2", **times(1, 1, 8)},
        {**dos, "update_stride": "2", **times(1, 1, 10)},  # repeated: the mean counts
        {**dos, "update_stride": "3", **times(1, 1, 7)},
        {**dos, "update_stride": "4", **times(1, 1, 5)},
        {**dos, "update_stride": "2", "dp": "2", **times(1, 1, 1)},
        {"scheduler": "zero3_offload", **times(1, 1, 1)},
    ]
    (found,) = rankings(
        made_up(make_table, rows, [(1, 1, 7), (1, 1, 7), (1, 1, 6), None, (1, 1, 1), (1, 1, 1)]).predictions
    )["stride"]
    assert found.measured_s == pytest.approx({"2": 0.011, "3": 0.009, "4": 0.007})
    assert found.predicted_best == "3"  # 4 does not fit
    assert found.loss == pytest.approx(2 / 7)
    assert found.name.endswith("deep_optimizer_states")


def test_runs_of_another_ratio_are_another_series(make_table):
    rows = [
        {"scheduler": scheduler, "cpu_ratio": ratio, **times(1, 1, 1)}
        for scheduler, ratio in [
            *(("zero3_offload", "0.5"), ("zero3_offload_async_grads", "0.5")),
            *(("zero3_offload", "1"), ("no_offload", "")),  # all of it on one device, be it the GPU
        ]
    ]
    found = rankings(made_up(make_table, rows, [(1, 1, 1)] * 4).predictions)["scheduler"]
    assert [(ranking.name.split(" ratio ")[1], list(ranking.measured_s)) for ranking in found] == [
        ("0.5 global batch 8", ["zero3_offload", "zero3_offload_async_grads"]),
        ("1 global batch 8", ["zero3_offload", "no_offload"]),
    ]


def test_series_that_cannot_be_ranked_are_left_out(make_table):
    rows = [
        {"scheduler": "zero3_offload", **times(1, "", 1)},
        {"scheduler": "zero3_offload_async_grads", **times(1, 1, 1)},
        {"scheduler": "zero3_offload", "series": "too big", **times(1, 1, 1)},
        {"scheduler": "zero3_offload_async_grads", "series": "too big", **times(1, 1, 1)},
    ]
    predictions = made_up(make_table, rows, [(1, 1, 1), (1, 1, 1), None, None]).predictions
    assert rankings(predictions) == {"scheduler": [], "stride": []}


def test_what_the_table_tells_of_an_error(make_table):
    dos = {"scheduler": "deep_optimizer_states", "update_stride": "2", "dos_build": "B", "fwd_cv": "0.2"}
    rows = [
        {**times(100, 200, 300), "fwd_cv": "0.01", "nodes": "2"},
        {**times(101, 250, 300), "series": "again"},
        {**times(500, 900, 390), "series": "longer", "global_batch": "32"},
        {**times(100, 200, 300), **dos},
    ]
    validation = made_up(make_table, rows, [(200, 400, 600)] * 4)
    told = {(c.line, c.phase): reasons(validation, c) for c in comparisons(validation) if c.phase != "sum"}
    assert told[2, "forward"] == "2 nodes: the network is shared with other jobs"
    assert told[2, "backward"].startswith("the same backward took 250 ms in again; 2 nodes: the network is shared")
    assert told[2, "step"] == "the same step took 390 ms in longer"
    assert told[3, "forward"] == ""
    assert told[5, "step"] == ""
    assert told[5, "forward"].startswith("its iterations vary by 20 %; the update's last uploads end in forward")
