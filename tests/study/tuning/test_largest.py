"""The largest model: it fits, and the next one does not."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.scenario import load_scenario
from offsim.simulation import workload_of
from offsim.study.tuning.largest import SHAPES, Largest, _sizes, largest_models
from offsim.study.tuning.space import Candidate
from offsim.study.tuning.tune import Question, simulated

SCENARIO = load_scenario("zero3_3b_rtx4090", ["training.global_batch=1"])
NAMES = ["no_offload", "zero3_offload", "l2l"]


@pytest.fixture(scope="module")
def found() -> Largest:
    return largest_models(SCENARIO, Question(over=(), values={"scheduler": NAMES}))


def test_the_largest_fits_and_one_layer_more_does_not(found: Largest) -> None:
    assert {one.scheduler for one in found.models} == set(NAMES)
    assert [one.parameters for one in found.models] == sorted((one.parameters for one in found.models), reverse=True)
    for one in found.models:
        scenario = one.outcome.scenario
        assert one.outcome.fits
        assert one.outcome.same == simulated(Candidate({}, scenario), 0.05).same
        deeper = scenario.model.model_copy(update={"layers": scenario.model.layers + 1})
        assert not simulated(Candidate({}, scenario.model_copy(update={"model": deeper})), 0.05).fits


def test_sizes_grow_and_have_all_shapes() -> None:
    sizes = _sizes(SCENARIO)
    counts = [workload_of(size, SCENARIO.training, False).parameters for size in sizes]
    assert all(one < other for one, other in pairwise(counts))
    assert max(other / one for one, other in pairwise(counts)) < 1.15
    assert {(size.layers, size.hidden, size.heads) for size in sizes} >= set(SHAPES)
    given = SCENARIO.model
    assert all(size.vocab == given.vocab and size.sequence == given.sequence for size in sizes)
    assert all(abs(size.ffn_hidden / size.hidden - given.ffn_hidden / given.hidden) < 0.05 for size in sizes)


def test_published_counts_of_the_shapes() -> None:
    """Narayanan et al. 2021, table 1, in billions: GPT-like models of vocabulary 51,200 and sequence 2,048."""
    gpt = {"hidden": 1024, "ffn_hidden": 4096, "heads": 16, "kv_heads": 16, "vocab": 51_200, "swiglu": False}
    scenario = load_scenario(
        {**SCENARIO.model_dump(), "model": {**SCENARIO.model.model_dump(), **gpt, "tied_embeddings": True}}
    )
    shapes = {(size.layers, size.hidden): size for size in _sizes(scenario)}
    published = [1.7, 3.6, 7.5, 18.4, 39.1, 76.1, 145.6, 310.1, 529.6, 1008.0]
    for (layers, hidden, _), count in zip(SHAPES[3:], published, strict=True):
        size = shapes[layers, hidden]
        assert workload_of(size, scenario.training, False).parameters / 1e9 == pytest.approx(count, rel=0.01, abs=0.06)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tune", "zero3_3b_rtx4090", "--set", "training.global_batch=1", "--largest-model", "--jobs", "1"]
    assert main([*command, "--try", "scheduler=l2l", "--over", "micro_batch", "--json", str(tmp_path / "a.json")]) == 0
    text = capsys.readouterr().out
    assert "the largest model that fits, by scheduler" in text
    assert max(map(len, text.splitlines())) <= 80
    (one,) = json.loads((tmp_path / "a.json").read_text())["models"]
    assert one["scheduler"] == "l2l"
    assert f"{one['parameters'] / 1e9:.3g}e9" in text
    hopeless = ["--try", "scheduler=no_offload", "--set", "hardware_changes.gpu.memory_bytes=1e9"]
    assert main([*command, *hopeless, "--over", "micro_batch", "--strict"]) == 1
    assert "not even the smallest shape" in capsys.readouterr().out
