"""What is said of a trace, and how it is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offsim.cli import main
from offsim.traces import picture, read_trace
from offsim.traces.classes import kernel_class
from offsim.traces.picture import plot_trace, timeline_of
from offsim.traces.summary import Summary, summarize
from tests.calibration.trace_files import REAL, call, needs_real_traces, on_gpu, write_kineto, write_nsight
from tests.conftest import Complaint


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    return summarize(read_trace(write_kineto(tmp_path / "a.json")))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ampere_sgemm_128x64_nn", "gemm"),
        ("Cijk_Ailk_Bljk_B_BS_BH_Bias_HA_S_SAV_UserArgs_MT64x288x64", "gemm"),
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNN", "gemm"),
        ("void cudnn::cnn::wgrad_alg0_engine<float, 128>(int)", "gemm"),
        ("sm80_xmma_fprop_implicit_gemm_tf32_nhwckrsc_nchw", "gemm"),
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgs)", "collective"),
        ("void multi_tensor_apply_kernel<TensorListMetadata<4>, AdamFunctor<float> >", "adam"),
        ("void pytorch_flash::flash_fwd_kernel<>", "attention"),
        # "lambda" is no LAMB, "fbgemm" no GEMM.
        ("void at::native::elementwise_kernel<128, 2, gpu_kernel_impl::{lambda(int)#1}>", "elementwise"),
        ("void fbgemm_gpu::permute_2D_lengths_kernel<int>(int)", "elementwise"),
        ("triton_poi_fused_add_0", "elementwise"),
        ("void probe_GPU2<128, 4>(int*)", "other"),
    ],
)
def test_kernels_are_classed_by_name(name: str, kind: str) -> None:
    assert kernel_class(name) == kind


def test_copies_add_up_over_their_sizes(summary: Summary) -> None:
    found = {(c.direction, c.size): (c.memory, c.count, c.bytes) for c in summary.copies}
    assert found == {
        ("H2D", "all"): ("pinned", 1, 5_000_000),
        ("H2D", "1 - 16 MB"): ("pinned", 1, 5_000_000),
        ("D2H", "all"): ("pinned", 1, 2_000_000),
        ("D2H", "1 - 16 MB"): ("pinned", 1, 2_000_000),
    }
    assert summary.copies[0].bytes_per_s == pytest.approx(25e9)


def test_kernels_streams_and_launches(summary: Summary) -> None:
    assert [(k.kind, k.count, round(k.seconds * 1e6)) for k in summary.kernels] == [("adam", 1, 100), ("gemm", 1, 178)]
    busy = {use.stream: (use.count, round(use.busy_s * 1e6), round(use.share, 3)) for use in summary.streams}
    assert busy == {
        "GPU 0 stream 7": (3, 376, 0.313),
        "GPU 0 stream 20": (1, 200, 0.167),
        "thread 10": (9, 599, 0.499),
    }
    assert summary.delays.median_s == pytest.approx((192e-6 + 15e-6) / 2)
    assert summary.copying_s == pytest.approx(298e-6)
    assert summary.overlapped_s == 0


def test_overlap_is_of_the_same_gpu_only(tmp_path: Path) -> None:
    events = [
        on_gpu("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 0, 100, 1, bytes=1000),
        on_gpu("kernel", "k", 50, 100, 2, 8),
        on_gpu("kernel", "k", 20, 20, 3, 9, device=1),
    ]
    found = summarize(read_trace(write_kineto(tmp_path / "a.json", events)))
    assert found.overlapped_s == pytest.approx(50e-6)


def test_a_trace_is_drawn_as_a_timeline(tmp_path: Path) -> None:
    trace = read_trace(write_kineto(tmp_path / "a.json"))
    rows = timeline_of(trace)
    assert list(dict.fromkeys(rows["stream"])) == ["GPU 0 stream 20", "GPU 0 stream 7", "thread 10"]
    drawn = {kind: round(1e6 * (r["end_s"] - r["start_s"]).sum()) for kind, r in rows.groupby("activity")}
    assert drawn == {
        "h2d": 200, "compute": 178, "d2h": 98, "gpu_adam": 100, "cpu_adam": 480, "launch": 39, "wait": 550,
    }  # fmt: skip
    figure = plot_trace(trace, title="a")
    assert {text.get_text() for text in figure.axes[0].texts} == {"step 3", "1.20 ms"}


def test_an_optimizer_that_launches_kernels_is_not_drawn_as_cpu_adam(tmp_path: Path) -> None:
    step = {"ph": "X", "cat": "user_annotation", "name": "Optimizer.step#AdamW.step", "tid": 10, "ts": 0, "dur": 100}
    launch = call("cudaLaunchKernel", 10, 5, 1)
    rows = timeline_of(read_trace(write_kineto(tmp_path / "a.json", [step, launch, on_gpu("kernel", "k", 20, 5, 1)])))
    assert set(rows["activity"]) == {"launch", "compute"}


def test_the_number_of_bars_and_streams_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_RESOLUTION", 100)
    events = [on_gpu("kernel", "k", 2 * i, 1, i, i % 40) for i in range(20_000)]
    rows = timeline_of(read_trace(write_kineto(tmp_path / "a.json", events)))
    assert rows["stream"].nunique() == picture.MAX_STREAMS
    assert rows.groupby("stream").size().max() <= 101


def test_trace_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot, document = tmp_path / "a.png", tmp_path / "out.json"
    path = write_kineto(tmp_path / "a.json.gz")
    assert main(["trace", str(path), "--plot", str(plot), "--json", str(document)]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"wrote {document}\nwrote {plot}\n"
    assert max(map(len, printed.out.splitlines())) <= 80
    for words in ("1 x NVIDIA H100 80GB HBM3", "H2D pinned", "25.0 GB/s", "1.20 ms", "Copies between host and GPU"):
        assert words in printed.out
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = json.loads(document.read_bytes())
    assert found["copies"][0]["bytes_per_s"] == pytest.approx(25e9)
    assert found["events"]["kernel"] == 2


def test_trace_command_on_wrong_input(tmp_path: Path, complaint: Complaint) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"traceEvents": [')
    complaint("trace", path)
    complaint("trace", write_kineto(path), "--plot", path)


@pytest.mark.parametrize(
    "events",
    [
        [{"ph": "X", "cat": "cpu_op", "name": "aten::add", "tid": 1, "ts": 5, "dur": 3}],
        [on_gpu("gpu_memcpy", "copy", 5, 0, 1)],
        [on_gpu("kernel", "k", 5, 0, 1)],
        [{"ph": "X", "cat": "unheard_of", "name": "x", "tid": 1, "ts": 5, "dur": 3}],
    ],
)
def test_traces_with_next_to_nothing_in_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], events: list[dict[str, object]]
) -> None:
    path = write_kineto(tmp_path / "a.json", events)
    assert main(["trace", str(path), "--plot", str(tmp_path / "a.png")]) == 0
    assert "span" in capsys.readouterr().out


def test_two_ranks_of_one_file_stand_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", "shortName")
    rows = [(0, 500, 0, 7, 1, 5 << 24, "a"), (100, 500, 1, 7, 1, 6 << 24, "a")]
    path = write_nsight(tmp_path / "a.sqlite", CUPTI_ACTIVITY_KIND_KERNEL=(columns, rows))
    assert main(["trace", str(path)]) == 0
    text = capsys.readouterr().out
    assert "ranks 0 to 1" in text
    assert "rank 1, GPU 1 stream 7" in text
    assert "rank 1: GPU 1 stream 7" in set(timeline_of(read_trace(path))["stream"])


@needs_real_traces
@pytest.mark.parametrize("path", sorted(REAL.glob("*.gz")), ids=lambda path: path.name)
def test_recorded_traces_are_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(path)]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    if path.name.startswith("nsysai"):
        assert "H2D pinned    all          446  51.0 GB   1.84 s  27.7 GB/s" in text
    if path.name.startswith("hta_a100-40g"):
        assert "68.3 % of it while kernels" in text
