"""A sweep gives the same table however it is run."""

import pandas as pd
import pytest

import offsim
from offsim import InputError
from offsim.study import read_results
from tests.small_scenarios import scenario
from tests.study.sweeps import small_sweep


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept") / "results"
    return folder, offsim.sweep(small_sweep(), out=folder, jobs=1)


def test_rows_are_what_single_simulations_say(swept):
    _, table = swept
    assert list(table["scheduler.update_stride"].fillna(0)) == [0, 0, 2, 2, 3, 3]
    for row in table.to_dict("records"):
        scheduler = {"name": row["scheduler.name"]}
        if scheduler["name"] == "deep_optimizer_states":
            scheduler["update_stride"] = int(row["scheduler.update_stride"])
        changes = {"link": {"h2d_bytes_per_s": row["hardware_changes.link.h2d_bytes_per_s"]}}
        result = offsim.simulate({**scenario(scheduler), "hardware_changes": changes})
        figures = result.figures()
        assert {name: row[name] for name in figures} == figures
        assert row["forward_limited_by"] == next(iter(result.limits_s["forward"]))
        assert row["gpu_capacity_bytes"] == result.peaks[0].capacity_bytes


def test_the_number_of_processes_does_not_matter(swept, tmp_path):
    folder, table = swept
    again = offsim.sweep(small_sweep(), out=tmp_path / "other", jobs=2)
    pd.testing.assert_frame_equal(table, again)
    assert (folder / "results.parquet").read_bytes() == (tmp_path / "other" / "results.parquet").read_bytes()
    assert read_results(folder).attrs["axes"] == ["scenario", *small_sweep()["axes"]]


def test_results_are_not_overwritten(swept):
    folder, _ = swept
    before = (folder / "journal.jsonl").read_bytes()
    with pytest.raises(InputError, match="results of this sweep; --resume continues it"):
        offsim.sweep(small_sweep(), out=folder)
    assert (folder / "journal.jsonl").read_bytes() == before
