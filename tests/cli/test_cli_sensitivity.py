"""`offsim sensitivity` and `offsim run --interval`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.platform.profiles import available_profiles
from offsim.results.simulate import simulate

SCENARIO = "zero3_20b_4xh100"


@pytest.fixture
def uncertain(tmp_path: Path) -> str:
    """The option that takes a copy of the scenario's profile in which rates of the host are known to 5 %."""
    text = available_profiles()["jlse-4xh100"].read_text(encoding="utf-8").replace("jlse-4xh100", "uncertain")
    text = re.sub(r" (low|high): [^,}]*,", "", text)

    def known(match: re.Match[str]) -> str:
        value = float(match[2])
        return f"{match[0]} low: {value * 0.95}, high: {value * 1.05},"

    text, count = re.subn(r"  (\w+_params_per_s): \{value: ([\d.e+]+),", known, text)
    assert count == 5
    path = tmp_path / "uncertain.yaml"
    path.write_text(text, encoding="utf-8")
    return f"--set=hardware={path}"


def text_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert all(line.startswith("wrote ") for line in printed.err.splitlines())
    assert max(map(len, printed.out.splitlines())) <= 80
    return printed.out


def test_what_the_time_follows_and_how_sure_it_is(
    capsys: pytest.CaptureFixture[str], uncertain: str, tmp_path: Path
) -> None:
    document, picture = tmp_path / "s.json", tmp_path / "s.png"
    text = text_of(capsys, "sensitivity", SCENARIO, uncertain, "--json", str(document), "--plot", str(picture))
    found = json.loads(document.read_bytes())
    assert "interval   none: no measured runs of uncertain were held out of its fit" in text
    assert found["interval"] is None
    assert "errors " not in text  # a copy of a measured machine's profile is not that machine's
    for row in found["values"]:
        cells = next((line.split() for line in text.splitlines() if line.startswith(f"{row['name']} ")), None)
        if abs(row["iteration"]) >= 0.0005:
            assert cells is not None
            assert float(cells[1]) == pytest.approx(row["iteration"], abs=0.0006)
    assert sum(row["low"] is not None for row in found["values"]) == 5
    assert picture.stat().st_size > 10_000


def test_of_measured_hardware_the_errors_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = text_of(capsys, "run", SCENARIO, "--interval")
    assert re.search(r"errors +\d\.\d % \(median\) and \d\.\d % \(90th percentile\) on 12 measured runs", text)
    assert "errors " not in text_of(capsys, "run", "zero3_13b_gh200", "--interval")


def test_run_with_interval(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = tmp_path / "run.json"
    text = text_of(capsys, "run", SCENARIO, "--interval", "--json", str(document))
    assert re.search(r"^iteration  6\.\d* ± 0\.\d* s, ", text, re.MULTILINE)
    flowing = re.sub(r"\s+", " ", text)
    assert "(92 %): 12 of 12 held-out runs on this hardware were within ± 8.2 % of their prediction" in flowing
    assert "(left out of the fit: 13B, 20B, 7B) forward " in flowing
    interval = json.loads(document.read_bytes())["interval"]
    low, high = interval["seconds"]["iteration"]
    assert low < simulate(SCENARIO).iteration_s < high
    assert (interval["runs"], interval["coverage"]) == (12, pytest.approx(12 / 13))
    plain = text_of(capsys, "run", SCENARIO)
    assert "±" not in plain
    assert plain.splitlines()[-20:] == text.splitlines()[-20:]


@pytest.mark.parametrize("command", [["run", "--interval"], ["sensitivity"]])
def test_without_held_out_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]) -> None:
    document = tmp_path / "run.json"
    text = text_of(capsys, *command, "zero3_3b_rtx4090", "--json", str(document))
    assert "interval   none: no measured runs of workstation-rtx4090 were held out of" in text
    found = json.loads(document.read_bytes())
    assert found["interval"] is None
    assert found["no_interval"].startswith("no measured runs of ")


def test_what_does_not_fit_has_a_verdict_instead(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document, picture = tmp_path / "s.json", tmp_path / "s.png"
    too_large = ["--set", "training.micro_batch=64", "--set", "training.global_batch=256"]
    assert main(["sensitivity", SCENARIO, *too_large, "--json", str(document), "--plot", str(picture)]) == 0
    printed = capsys.readouterr()
    assert "does not fit" in printed.out
    assert "not written" in printed.err
    assert not picture.exists()
    assert json.loads(document.read_bytes())["fits"] is False
