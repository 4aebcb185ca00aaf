"""The command: what each prints and writes, plainly, deterministically and at once."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from offsim import __path__ as package
from offsim.activations import available_rules
from offsim.cli import main
from offsim.cli.terminal import Style, style_of
from offsim.inputs.units import unit_of
from offsim.platform.parts import catalogue
from offsim.platform.profiles import available_profiles, load_profile
from offsim.results.simulate import simulate
from offsim.results.units import format_memory
from offsim.scenario import available_scenarios
from offsim.schedulers.registry import available_schedulers

ROOT = Path(package[0]).parent
SCENARIO = "zero3_20b_4xh100"
TOO_LARGE = ["--set", "training.micro_batch=64", "--set", "training.global_batch=256"]
FAR_TOO_LARGE = ["--set", "model.layers=400"]


def text_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints; it must succeed, complain about nothing and name the files that it writes."""
    status = main(arguments)
    printed = capsys.readouterr()
    assert status == 0
    assert [line for line in printed.err.splitlines() if line.removeprefix("wrote ") not in arguments] == []
    return printed.out


def offsim(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-m", "offsim", *arguments], capture_output=True, check=False, env=variables)


def assert_plain(text: str) -> None:
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(line == line.rstrip() for line in text.splitlines())


def test_run_says_how_long_what_limits_and_where_memory_peaks(capsys: pytest.CaptureFixture[str]) -> None:
    text = text_of(capsys, "run", SCENARIO)
    assert_plain(text)
    for word in ("forward", "backward", "update", "iteration", "tokens/s", "TFLOP/s per GPU", "validated", "yes"):
        assert word in text
    limits, busy = text.split("what limits it")[1].split("how busy each resource is")
    result = simulate(SCENARIO)
    for name, share in result.limited_by.items():
        assert f"\n{name} " in limits or share < 0.001
    for name in result.utilization.index:
        assert f"\n{name} " in busy
    assert "each GPU" in text
    assert "optimizer state p, m, v (fp32)" in text.rsplit("\npeak of host memory", 1)[1]


def test_overrides_and_schedulers_replace_what_the_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = text_of(
        capsys, "run", "dos_20b_4xh100", "--set", "scheduler.update_stride=3", "--set", "scheduler.cpu_ratio=.5"
    )
    assert "cpu_ratio 0.5, update_stride 3" in text
    text = text_of(capsys, "run", "dos_20b_4xh100", "--scheduler", "zero3_offload:cpu_ratio=0.5")
    assert "zero3_offload (cpu_ratio 0.5, " in text


def test_what_does_not_fit_is_an_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    text = text_of(capsys, "run", SCENARIO, *TOO_LARGE, "--json", str(out))
    assert_plain(text)
    assert "does not fit: GPU 0 memory runs out at" in text
    assert "attention score buffer" in text
    verdict = json.loads(out.read_bytes())["verdict"]
    assert verdict["tier"] == "GPU 0"
    change = verdict["remedies"][0]["change"]
    assert f"--set {change}" in text
    # What is said to help does help, as it is printed.
    assert "does not fit" not in text_of(capsys, "run", SCENARIO, *TOO_LARGE, "--set", change)


def test_all_that_is_missing_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    text = text_of(capsys, "run", SCENARIO, *FAR_TOO_LARGE, "--json", str(out))
    assert_plain(text)
    verdict = json.loads(out.read_bytes())["verdict"]
    assert [short["tier"] for short in verdict["shortages"]] == ["GPU 0", "host"]
    for short in verdict["shortages"]:
        assert short["missing_bytes"] == short["needed_bytes"] - short["capacity_bytes"] > 0
        assert format_memory(short["missing_bytes"]) in text
    assert any("scheduler.name=" in tried for tried in verdict["tried"])
    assert "does not fit with" in text


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["run", SCENARIO], 0),
        (["run", SCENARIO, *TOO_LARGE], 1),
        (["compare", SCENARIO, *TOO_LARGE, "--scheduler", "zero3_offload"], 1),
        (["report", SCENARIO, *TOO_LARGE, "--html", "page.html"], 1),
        (["tune", SCENARIO, *TOO_LARGE, "--over", "cpu_ratio", "--jobs", "1"], 1),
    ],
)
def test_strict_is_an_exit_status(
    command: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--strict"]) == status
    assert main(command) == 0


def test_costs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    price = ["--price-per-gpu-hour", "2.5"]
    run = simulate(SCENARIO, ["price_per_gpu_hour=2.5"])
    assert run.cost_per_1e9_tokens is not None
    cost = f"{run.cost_per_1e9_tokens:,.2f}"
    assert f"{cost} per 1e9 tokens at 2.5 per GPU hour" in " ".join(text_of(capsys, "run", SCENARIO, *price).split())
    text = text_of(capsys, "compare", SCENARIO, "--scheduler", "zero3_offload", *price)
    assert_plain(text)
    assert cost in text
    text = text_of(
        capsys, "tune", SCENARIO, *price, "--try", "scheduler=zero3_offload", "--over", "scheduler", "--no-upgrades"
    )
    assert cost in text
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"base: {SCENARIO}\naxes: {{training.zero_stage: [3]}}\n")
    assert main(["sweep", str(sweep), "--out", str(tmp_path / "out"), "--jobs", "1", *price]) == 0
    assert cost in capsys.readouterr().out
    assert main(["run", SCENARIO, "--price-per-gpu-hour", "-1"]) == 2


def test_another_scheduler_as_a_remedy_is_printed_as_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    text = text_of(capsys, "run", "no_offload_7b_dgx_h200", "--set", "model.layers=300")
    assert "\n--scheduler deep_optimizer_states " in text
    arguments = ["--set", "model.layers=300", "--scheduler", "deep_optimizer_states"]
    assert "does not fit" not in text_of(capsys, "run", "no_offload_7b_dgx_h200", *arguments)


def test_a_picture_of_what_ran_out_of_memory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text_of(capsys, "run", SCENARIO, *TOO_LARGE, "--plot", str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["run", SCENARIO, *FAR_TOO_LARGE, "--plot", str(tmp_path / "b.png")]) == 0
    printed = capsys.readouterr()
    assert "does not fit: host memory runs out in set-up" in printed.out
    assert "nothing to draw" in printed.err
    assert not (tmp_path / "b.png").exists()


def test_run_writes_what_it_is_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot, trace, document = tmp_path / "page.svg", tmp_path / "trace.json.gz", tmp_path / "result.json"
    text = text_of(capsys, "run", SCENARIO, "--plot", str(plot), "--trace", str(trace), "--json", str(document))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.svg", "result.json", "trace.json.gz"]
    for word in ("host thread", "H2D", "GPU 0", "host", "limited by"):
        assert word.replace(" ", "").encode() in plot.read_bytes().replace(b" ", b"") or word in text
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    result = json.loads(document.read_bytes())
    assert result["scenario"]["hardware"] == "jlse-4xh100"
    assert result["timeline"]["start_s"]


WRITTEN = {"run.json": "--json", "page.svg": "--plot", "page.png": "--plot", "page.pdf": "--plot"}
WRITTEN |= {"trace.json": "--trace", "trace.json.gz": "--trace", "report.html": "--html"}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_scenario_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    command = "report" if name == "report.html" else "run"
    written = []
    for seed in ("1", "2"):
        path = tmp_path / seed / name
        path.parent.mkdir()
        run = offsim(command, "dos_20b_4xh100", WRITTEN[name], str(path), PYTHONHASHSEED=seed)
        assert run.returncode == 0, run.stderr
        written.append((run.stdout, path.read_bytes()))
    assert written[0] == written[1]


def test_compare_is_side_by_side(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot, document = tmp_path / "page.png", tmp_path / "result.json"
    chosen = ["zero3_offload", "deep_optimizer_states:update_stride=4,cpu_ratio=0.8", "deep_optimizer_states"]
    options = [part for name in chosen for part in ("--scheduler", name)]
    text = text_of(capsys, "compare", SCENARIO, *options, "--plot", str(plot), "--json", str(document))
    assert_plain(text)
    results = json.loads(document.read_bytes())["results"]
    assert [result["scenario"]["scheduler"] for result in results] == [
        {"name": "zero3_offload"},
        {"name": "deep_optimizer_states", "update_stride": 4, "cpu_ratio": 0.8},
        {"name": "deep_optimizer_states"},
    ]
    assert results[0]["speedup"] == 1.0
    for result in results[1:]:
        assert f"{results[0]['iteration_s'] / result['iteration_s']:.2f}x" in text
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_compare_takes_all_that_apply(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", SCENARIO]) == 0
    printed = capsys.readouterr()
    for name in available_schedulers():
        assert f"  {name} (" in printed.out or f"left out {name}: " in printed.err
    stages = "training.zero_stage: found 3, expected 1 or 2 with scheduler zero2_offload"
    assert f"left out zero2_offload: {stages}\n" in printed.err


def test_compare_shows_what_does_not_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot = tmp_path / "page.png"
    arguments = ["no_offload_7b_dgx_h200", "--set", "model.layers=300", "--plot", str(plot)]
    assert main(["compare", *arguments]) == 0
    text = capsys.readouterr().out.rstrip("\n")
    assert_plain(text)
    assert "does not fit: GPU 0 memory runs out at" in text
    assert "1.00x" in text
    assert plot.exists()


def test_compare_where_nothing_fits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot, document = tmp_path / "page.png", tmp_path / "result.json"
    arguments = ["compare", SCENARIO, "--set", "model.layers=1000", "--plot", str(plot), "--json", str(document)]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    compared = json.loads(document.read_bytes())["results"]
    assert len(compared) > 2
    assert printed.out.count("does not fit: ") == len(compared)
    assert "nothing to draw" in printed.err
    assert not plot.exists()
    assert all(result["speedup"] is None for result in compared)


def test_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    listed = text_of(capsys, "scenarios")
    for name, path in available_scenarios().items():
        text = path.read_text(encoding="utf-8")
        assert text_of(capsys, "scenarios", name) == text.rstrip() + "\n"
        assert f"{name}\n  {text.partition(chr(10))[0].removeprefix('# ')[:40]}" in listed
    assert main(["scenarios", "dos_20b_4xh10"]) == 2
    assert "did you mean 'dos_20b_4xh100'?" in capsys.readouterr().err


def test_a_profile_as_yaml(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = text_of(capsys, "profiles", "azure-nc96ads-a100", "--yaml")
    path = tmp_path / "azure-nc96ads-a100.yaml"
    path.write_text(text)
    assert load_profile(path) == load_profile("azure-nc96ads-a100")
    assert 'note: "inherited from polaris-4xa100, not of this machine; DOS runs; ' in text
    assert main(["profiles", "--yaml"]) == 2
    assert "--yaml: found no profile to print" in capsys.readouterr().err


def test_parts(capsys: pytest.CaptureFixture[str]) -> None:
    listed = text_of(capsys, "profiles", "parts")
    known = catalogue()
    assert [name for name in (*known.gpus, *known.cpus, *known.links, *known.nvme) if f"  {name} " not in listed] == []


def test_profiles(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    listed = text_of(capsys, "profiles")
    assert_plain(listed)
    for name, path in available_profiles().items():
        profile = load_profile(name)
        assert name in listed
        text = text_of(capsys, "profiles", name)
        assert_plain(text)
        for key, origin in profile.provenance.items():
            section, field = key.split(".")
            lines = text.split(f"\n\n{section}\n")[1].split("\n\n")[0].splitlines()
            row = next(line for line in lines if line.startswith(f"  {field} "))
            assert row.endswith(origin.source)
            assert unit_of(field) in row.split() or unit_of(field) == "1"
            for known in (origin.note, origin.error):
                assert known.replace(" ", "") in "".join(text.split())
        assert text_of(capsys, "profiles", str(path)) == text


def test_schedulers(capsys: pytest.CaptureFixture[str]) -> None:
    listed = text_of(capsys, "schedulers")
    assert_plain(listed)
    assert [name for name in available_schedulers() if name in listed] == available_schedulers()
    text = text_of(capsys, "schedulers", "deep_optimizer_states")
    assert_plain(text)
    assert "update_stride: whole number, at least 2, default 2" in text
    assert "cpu_ratio: number, at least 0, at most 1, default 1" in text
    assert "transfers: three_streams or one_stream, default three_streams" in text
    assert "Of each block of `update_stride` sub-groups" in text
    assert "no options" in text_of(capsys, "schedulers", "no_offload")


def test_activation_rules_are_listed_with_the_schedulers(capsys: pytest.CaptureFixture[str]) -> None:
    listed = text_of(capsys, "schedulers")
    rules = listed[listed.index("Activation rules") :]
    assert [name for name in available_rules() if f"\n{name}\n" in rules] == available_rules()
    text = text_of(capsys, "schedulers", "unsloth")
    assert_plain(text)
    assert "slots: 1 or 2, default 2" in text
    assert "Activations in tiers of kind memory." in text
    assert "no layer may be recomputed" in text_of(capsys, "schedulers", "megatron")
    assert main(["schedulers", "torchtun"]) == 2
    assert "unknown activation rule 'torchtun'; did you mean 'torchtune'?" in capsys.readouterr().err


def test_validate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = (ROOT / "offsim/validation/measured_runs.csv").read_text().splitlines()
    table, plot, document = tmp_path / "runs.csv", tmp_path / "page.png", tmp_path / "result.json"
    table.write_text("\n".join(rows[:6]) + "\n")
    text = text_of(capsys, "validate", str(table), "--plot", str(plot), "--json", str(document))
    assert text.startswith("5 runs of runs.csv")
    assert len(json.loads(document.read_bytes())["runs"]) == 5
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["run", "compare", "profiles", "schedulers", "validate"])
def test_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert command in text_of(capsys, "-h")
    text = text_of(capsys, command, "--help")
    assert_plain(text)
    assert "--help" in text


def test_commands_come_in_the_order_of_a_newcomers_questions(capsys: pytest.CaptureFixture[str]) -> None:
    listed = text_of(capsys, "-h").partition("Commands:")[2].splitlines()
    names = [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "]
    assert names[:6] == ["run", "compare", "sweep", "tune", "sensitivity", "report"]
    assert names[-3:] == ["validate", "logs", "calibrate"]
    assert not any(line.endswith("...") for line in listed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "expected SCENARIO"),
        (["run", SCENARIO, "--plto", "x.png"], "--plot"),
        (["rnu", SCENARIO], "run"),
        (["run", SCENARIO, "more"], "more"),
        ([], "Usage"),
    ],
)
def test_usage_errors(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def __init__(self, encoding: str = "utf-8", tty: bool = True) -> None:
        super().__init__()
        self._encoding, self._tty = encoding, tty

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._tty


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert style_of(Terminal()) == Style(ansi=True)
    assert style_of(Terminal(tty=False)) == Style(ansi=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert style_of(Terminal()) == Style(ansi=False)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert style_of(Terminal()) == Style(ansi=False)


def test_a_terminal_gets_bold_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["run", SCENARIO]) == 0
    assert "\x1b[1miteration" in terminal.getvalue()


@pytest.mark.parametrize("arguments", [["run", "no_offload_7b_dgx_h200"], ["compare", SCENARIO], ["profiles", "gh200"]])
def test_ascii_where_nothing_else_can_be_written(arguments: list[str]) -> None:
    run = offsim(*arguments, PYTHONIOENCODING="ascii")
    assert run.returncode == 0, run.stderr
    assert run.stdout.isascii()
    assert b"\\x" not in run.stdout


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "offsim", "run", SCENARIO, "--json", str(out)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, env=variables)
    os.close(write)
    assert (run.returncode, run.stderr) == (0, f"wrote {out}\n".encode())
    assert json.loads(out.read_bytes())["fits"] is True


@pytest.mark.parametrize("function", ["offsim.api.simulate", "offsim.views.text.result_text"])
def test_an_interrupt_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], function: str
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupted)
    assert main(["run", SCENARIO]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_run_loads_nothing_slow() -> None:
    script = (
        "import sys; from offsim.cli import main; assert main(['run', sys.argv[1]]) == 0; "
        "slow = {'numpy', 'pandas', 'matplotlib', 'jinja2', 'scipy', 'pyarrow'}; "
        "unasked = {'offsim.schedulers.l2l'}; "
        "print((slow | unasked) & sys.modules.keys(), file=sys.stderr)"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, SCENARIO]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert run.returncode == 0, run.stderr
    assert run.stderr == "set()\n"
