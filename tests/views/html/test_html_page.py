"""The page says what the results say, is safe whatever scenarios are called, and loads nothing."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from offsim import __path__ as package
from offsim.api import Comparison, Result, compare, simulate
from offsim.cli import main
from offsim.inputs.units import unit_of
from offsim.platform.profiles import load_profile
from offsim.results.units import engineering, format_memory, format_time
from offsim.validation.accuracy import held_out
from offsim.validation.predictions import validate_runs
from offsim.validation.run_table import SHIPPED_RUNS, read_runs
from offsim.validation.score import comparisons, scores
from offsim.validation.trust import scored
from offsim.views.html.page import page

ROOT = Path(package[0]).parent
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"&amp;{{ 7*7 }}"


class Reader(HTMLParser):
    """Texts of the page by element, its rows of cells, and all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def data(self) -> Any:
        return json.loads(self.texts["script"][0])


def page_of(result: Result) -> str:
    return page(Comparison([result], [result.name]), scored=scored)


@pytest.fixture(scope="module")
def text(dos: Result) -> str:
    return page_of(dos)


def test_every_hardware_value_is_there_with_where_it_comes_from(dos: Result, text: str) -> None:
    profile = dos.run.profile
    for key, origin in profile.provenance.items():
        section, field = key.split(".")
        unit = unit_of(field)
        value = engineering(getattr(profile.sections()[section], field)) + ("" if unit == "1" else f" {unit}")
        # A name may be one of two sections.
        assert any(
            [cell.strip() for cell in row[1:3]] == [value, origin.source]
            and origin.note in row[3]
            and origin.error in row[3]
            for row in Reader(text).rows
            if row[0] == field
        ), key
    assert f"; {profile.gpus_per_node} GPUs a node" in text
    sections = profile.sections().values()
    assert f"All {sum(len(type(section).model_fields) for section in sections)} values: " in text


def test_intervals_are_shown() -> None:
    profile = load_profile("gh200")
    origin = profile.provenance["link.h2d_bytes_per_s"].model_copy(update={"low": 3e11, "high": 4e11})
    changed = profile.model_copy(update={"provenance": profile.provenance | {"link.h2d_bytes_per_s": origin}})
    text = page_of(simulate("zero3_13b_gh200", profile=changed))
    assert "95 % interval: 300e9 to 400e9 B/s" in text
    assert "95 % intervals are known of 1 of " in text
    assert "95 %" not in page_of(simulate("zero3_13b_gh200"))


def test_figures_are_the_results(dos: Result, text: str) -> None:
    reader = Reader(text)
    assert reader.texts["h1"] == [f"deep_optimizer_states takes {format_time(dos.iteration_s)} an iteration"]
    assert f"{dos.tokens_per_s:,.0f}" in reader.texts["b"]
    assert format_memory(dos.gpu_peak_bytes) in reader.texts["b"]
    times = next(row for row in reader.rows if row[0] == "time")
    assert times[1:] == [format_time(seconds) for seconds in (dos.iteration_s, *dos.durations.values())]
    for name, share in dos.limited_by.items():
        row = next((row for row in reader.rows if row[0] == name), None)
        assert (row is not None and row[1] == f"{100 * share:.1f} %") or share < 0.0005


def test_a_comparison_has_speedups_and_what_differs() -> None:
    schedulers = ["zero3_offload", "deep_optimizer_states"]
    comparison = compare("dos_20b_4xh100", schedulers)
    reader = Reader(page(comparison))
    assert reader.texts["title"] == ["dos_20b_4xh100: 2 scenarios compared - offsim"]
    for label, result, speedup in zip(comparison.labels, comparison, comparison.speedups, strict=True):
        row = next(row for row in reader.rows if row[0] == label)
        assert row[1:3] == [format_time(result.iteration_s), f"{speedup:.2f}x"]
    assert ["scheduler.name", *schedulers] in reader.rows
    assert ["scheduler.update_stride", "\N{EN DASH}", "2"] in reader.rows
    assert not any(row[0] == "scheduler.cpu_ratio" for row in reader.rows), "the same by default"
    assert [figure["label"] for figure in reader.data["figures"]] == comparison.labels


def test_what_does_not_fit_has_a_verdict_and_remedies_instead_of_times(baseline: Result, too_large: Result) -> None:
    assert too_large.verdict is not None
    remedy = f"--set {too_large.verdict.remedies[0].change}"
    alone = page_of(too_large)
    assert Reader(alone).texts["h1"][0].startswith("zero3_offload does not fit: GPU 0 memory runs out")
    assert "tokens/s" not in alone.split("<script")[0]
    assert Reader(alone).data["figures"][0]["timeline"] is None
    together = page(Comparison([too_large, baseline], ["large", "small"]))
    for text in (alone, together):
        rows = Reader(text).rows
        assert any(row[0] == remedy for row in rows)
        assert any(row[:1] == ["attention score buffer"] for row in rows)
    assert [figure["label"] for figure in Reader(together).data["figures"]] == ["small"]
    in_set_up = simulate("zero3_20b_4xh100", ["model.layers=400"])
    assert Reader(page_of(in_set_up)).data["figures"] == []


def test_errors_are_those_of_the_validation(text: str) -> None:
    rows = Reader(text).rows
    table = read_runs(SHIPPED_RUNS)
    runs = tuple(run for run in table.runs if run.cell("hardware") == "jlse-4xh100")
    found = scores(comparisons(validate_runs(replace(table, runs=runs))))["jlse-4xh100"]
    for phase in ("forward", "backward", "step", "sum", "peak after backward"):
        score = found[phase]
        errors = [f"{100 * size:.1f} %" for size in (score.median, score.p90, score.worst)]
        assert [phase, str(score.n), *errors] in rows
    assert "The 12 measured runs are of 13B, 20B, 7B under deep_optimizer_states, zero3_offload" in text
    for model, errors in held_out()["jlse-4xh100"].items():
        row = next(row for row in rows if row[0] == model)
        assert row[-1] == f"{errors['sum'].median:.1f} / {errors['sum'].p90:.1f} %"


def test_errors_are_not_claimed_for_other_hardware(tmp_path: Path, text: str) -> None:
    fitted_to = "Absolute error of the predictions on the measured runs"
    assert fitted_to in text
    assert fitted_to not in page_of(simulate("zero3_13b_gh200"))
    changed = page_of(simulate("dos_20b_4xh100", ["hardware_changes.link.h2d_bytes_per_s=x2"]))
    assert fitted_to in changed
    assert "The errors below are those of jlse-4xh100; what the changes to it do was not compared." in changed
    assert "The errors below" not in text
    # Another machine's profile of the same name
    own = tmp_path / "jlse-4xh100.yaml"
    shipped = (ROOT / "hardware_profiles" / own.name).read_text(encoding="utf-8")
    own.write_text(shipped.replace("memory_bytes: {value: 8.49e10", "memory_bytes: {value: 8.48e10"), encoding="utf-8")
    assert load_profile(own).gpu.memory_bytes == 8.48e10
    assert fitted_to not in page_of(simulate("dos_20b_4xh100", [f"hardware={own}"]))


def test_names_are_text_whatever_is_in_them(baseline: Result) -> None:
    scenario = baseline.scenario.model_copy(update={"name": EVIL})
    text = page_of(simulate(scenario))
    reader = Reader(text)
    assert reader.tags.count("script") == 2
    assert "img" not in reader.tags
    assert reader.texts["p"][0].endswith(EVIL)
    assert reader.data["figures"][0]["label"] == EVIL
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert not set("<>&\u2028\u2029") & set(data.group(1))


def test_nothing_is_loaded_and_only_our_script_may_run(text: str) -> None:
    reader = Reader(text)
    assert not {"link", "img", "iframe", "object", "base", "a"} & set(reader.tags)
    assert not {name for _, name, _ in reader.attributes} & {"src", "href", "srcset", "onclick", "onload"}
    style, script = reader.texts["style"][0], reader.texts["script"][1]
    for source in (style, script):
        assert not re.search(r"https?:|//\w+\.\w|@import|url\(|\bfetch\(|XMLHttp|import\(|innerHTML", source)
    policy = next(value for _, name, value in reader.attributes if name == "content" and "default-src" in value)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}';")


def test_all_ranks_are_told_apart(dos: Result) -> None:
    every = simulate("dos_20b_4xh100", all_ranks=True)
    text = page(Comparison([every], ["all"]), rank=2)
    assert "What each stream of rank 2 did</h3>" in text
    (figure,) = Reader(text).data["figures"]
    assert [tier["tier"] for tier in figure["memory"]] == ["GPU 2", "host"]
    assert figure["timeline"]["count"] == Reader(page_of(dos)).data["figures"][0]["timeline"]["count"]


def test_the_page_is_well_formed_and_has_a_language(text: str) -> None:
    reader = Reader(text)
    assert reader.open == []
    assert text.startswith("<!DOCTYPE html>\n")
    assert ("html", "lang", "en") in reader.attributes
    places = [value for _, name, value in reader.attributes if name == "id"]
    assert len(places) == len(set(places))
    named = {value for _, name, value in reader.attributes if name in ("aria-labelledby", "aria-describedby")}
    assert named <= set(places)


def test_the_command_takes_names_paths_and_schedulers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.html"
    path = str(ROOT / "scenarios" / "zero3_20b_4xh100.yaml")
    assert main(["report", path, "dos_20b_4xh100", "--html", str(target), "--set", "training.global_batch=8"]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"wrote {target}\n"
    assert max(map(len, printed.out.splitlines())) <= 80
    assert drawn(target) == ["zero3_20b_4xh100", "dos_20b_4xh100"]
    options = ["--scheduler", "zero3_offload", "--scheduler", "deep_optimizer_states:update_stride=4"]
    assert main(["report", "dos_20b_4xh100", "--html", str(target), *options]) == 0
    assert drawn(target) == ["zero3_offload", "deep_optimizer_states"]


def drawn(page: Path) -> list[str]:
    return [figure["label"] for figure in Reader(page.read_text(encoding="utf-8")).data["figures"]]


def test_bad_input_is_one_message_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html").write_text("old")
    for arguments, complaint in {
        "zero3_20b_4xh10 --html report.html": "did you mean 'zero3_20b_4xh100'",
        "zero3_20b_4xh100 --html report.txt": "expected .html or .htm",
        "zero3_20b_4xh100 --html report.html --scheduler zero": "--scheduler 'zero'",
        "zero3_20b_4xh100": "--html",
        "--html report.html": "SCENARIO",
    }.items():
        assert main(["report", *arguments.split()]) == 2
        printed = capsys.readouterr()
        assert complaint in printed.err
        assert printed.out == ""
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "old")]
