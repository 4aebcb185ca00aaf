"""Activation rules against what the systems' code and papers say: bytes freed, who waits for what, what stays."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import Case, last, node

from offsim import simulate
from offsim.activations import available_rules
from offsim.activations.registry import BUILT_IN
from offsim.engine import Operation
from offsim.inputs.errors import InputError
from offsim.programs.run import Run
from offsim.scenario import load_scenario

LAYERS = 12
LONG = {"layers": LAYERS, "sequence": 4096}
"""Inputs of layers of 4 MiB."""


def run_of(rule: str, profile: Any = None, tier: str = "host", recompute: int = LAYERS, **options: Any) -> Run:
    placement = {"tier": tier, "recompute": recompute, **({"rule": rule} if rule else {}), **options}
    case = Case("no_offload", placement={"activations": placement}, training={"data_parallel": 1}, model=LONG)
    return case.simulate(profile or node()).run


def measured(run: Run, kind: str) -> dict[int, Operation]:
    """Layer -> the operation of that kind, or kernels of that name, in the last iteration."""
    found = [o for o in last(run) if o.layer >= 0]
    return {o.layer: o for o in found if o.kind == kind or (o.kind == "compute" and o.name.endswith(kind))}


def on_gpu(run: Run) -> float:
    """Bytes of activations in GPU memory when backward begins."""
    begin = next(p.start for p in run.phases if p.name == "backward" and p.iteration == run.last)
    return [held for at, name, held, _ in run.ranks[0].gpu_memory.series if name == "activations" and at <= begin][-1]


def seconds(run: Run, phase: str) -> float:
    (found,) = (p.end - p.start for p in run.phases if p.name == phase and p.iteration == run.last)
    return found


QUICK = node(
    link={f"{name}_bytes_per_s": 1e15 for name in ("h2d", "d2h", "duplex", "pageable_h2d", "pageable_d2h")},
    host={"memory_bytes_per_s": 1e16},
)
SPARE = node(gpu={"hbm_bytes_per_s": 1e18})
"""Gradients take nothing of the GPU: elsewhere they use what copies leave idle."""


@pytest.mark.parametrize(
    ("rule", "options", "staying"),
    [
        ("alst", {}, 0),
        ("deepspeed", {}, 1),
        ("unsloth", {"variant": "basic"}, 0),
        ("unsloth", {}, 1),
        ("torchtune", {}, 5),
        ("torchtune", {"max_fwd_stash_size": 3}, 3),
        ("trl", {}, 5),
        ("", {}, 1),
    ],
)
def test_inputs_of_layers_are_two_bytes_a_token_and_hidden_unit(
    rule: str, options: dict[str, Any], staying: int
) -> None:
    """2 s b h B leave the GPU for each layer that moves, and take as much room in host memory."""
    checkpoint = 2 * 4096 * 1 * 512
    moved, unmoved = run_of(rule, QUICK, **options), run_of("", tier="gpu")
    assert on_gpu(unmoved) - on_gpu(moved) == (LAYERS - staying) * checkpoint
    held = max(held for _, name, held, _ in moved.ranks[0].host_memory.series if name == "activations of layers")
    leave = LAYERS if rule in ("torchtune", "trl") else LAYERS - staying
    assert held == leave * checkpoint


def test_torchtunes_compute_waits_for_the_copy_of_the_fifth_tensor_before() -> None:
    run = run_of("torchtune", node(link={"d2h_bytes_per_s": 1e8}))
    forward, out = measured(run, "forward"), measured(run, "d2h")
    for layer in range(5, LAYERS):
        assert forward[layer].started_at == pytest.approx(out[layer - 5].ended_at)
    for layer in range(1, 5):
        assert forward[layer].started_at == pytest.approx(forward[layer - 1].ended_at)


@pytest.mark.parametrize(("rule", "options"), [("torchtune", {}), ("trl", {}), ("unsloth", {}), ("", {})])
def test_copies_come_back_while_the_layer_before_runs(rule: str, options: dict[str, Any]) -> None:
    run = run_of(rule, **options)
    backward, back = measured(run, "backward"), measured(run, "h2d")
    assert len(back) == LAYERS - 1
    for layer in range(LAYERS - 2):
        assert backward[layer + 2].ended_at <= back[layer].started_at < backward[layer + 1].ended_at
        assert back[layer].ended_at <= backward[layer].started_at


def test_with_one_slot_unsloths_copies_are_exposed() -> None:
    one, two = run_of("unsloth", SPARE, slots=1), run_of("unsloth", SPARE, slots=2)
    backward, back = measured(one, "backward"), measured(one, "h2d")
    for layer in range(LAYERS - 1):
        assert back[layer].started_at >= backward[layer + 1].ended_at
    copies = sum(copy.ended_at - copy.started_at for copy in back.values())
    assert seconds(one, "backward") - seconds(two, "backward") == pytest.approx(copies, rel=0.02)


def test_unsloths_next_layer_waits_for_the_copy_that_runs_under_the_one_before() -> None:
    slow = run_of("unsloth", node(link={"d2h_bytes_per_s": 1e8}))
    forward, out = measured(slow, "forward"), measured(slow, "d2h")
    for layer in range(1, LAYERS - 1):
        assert out[layer].started_at == pytest.approx(forward[layer].started_at)
        assert forward[layer + 1].started_at == pytest.approx(out[layer].ended_at)


def test_unsloth_leaves_small_inputs_where_they_are() -> None:
    placement = {"activations": {"tier": "host", "rule": "unsloth"}}
    run = Case("no_offload", placement=placement, model={"sequence": 2048}).simulate().run  # of 2 MiB
    assert measured(run, "d2h") == {}


@pytest.mark.parametrize("rule", ["alst", "unsloth"])
def test_copies_on_the_compute_stream_add_their_time(rule: str) -> None:
    options = {"variant": "basic"} if rule == "unsloth" else {}
    moved, unmoved = run_of(rule, SPARE, **options), run_of("", SPARE, tier="gpu")
    rates = {"alst": (4e9, 5e9), "unsloth": (2e10, 2e10)}[rule]  # pageable, pinned
    for phase, rate in zip(("forward", "backward"), rates, strict=True):
        added = seconds(moved, phase) - seconds(unmoved, phase)
        # Where the host blocks, each launch is exposed too; recomputed layers are launched twice.
        assert added == pytest.approx(LAYERS * (2 * 4096 * 512 / rate + 1e-6), abs=3 * LAYERS * 1e-6)


def test_deepspeeds_forward_never_stalls_and_a_quick_link_hides_all() -> None:
    unmoved = run_of("", tier="gpu")
    slow = run_of("deepspeed", node(link={"d2h_bytes_per_s": 1e8}))
    assert seconds(slow, "forward") == pytest.approx(seconds(unmoved, "forward"))
    quick = run_of("deepspeed", QUICK)
    assert quick.ended_at - quick.started_at == pytest.approx(unmoved.ended_at - unmoved.started_at, rel=1e-3)


@pytest.mark.parametrize(
    ("rule", "options", "moving"),
    [
        ("megatron", {}, LAYERS - 1),
        ("megatron", {"num_layers": 4}, 4),
        ("megatron_fine_grained", {}, LAYERS - 1),
        ("megatron_fine_grained", {"fraction": 0.5}, LAYERS // 2),
    ],
)
def test_megatron_moves_whole_layers(rule: str, options: dict[str, Any], moving: int) -> None:
    run, unmoved = run_of(rule, QUICK, recompute=0, **options), run_of("", tier="gpu", recompute=0)
    assert sorted(measured(run, "d2h")) == list(range(moving))
    assert on_gpu(unmoved) - on_gpu(run) == moving * run.workload.layer_activation_bytes


def test_small_tensors_stay() -> None:
    """Of 4096 x 512 elements and 4096 x 1024; the attention scores have 4 x 4096 x 4096."""
    run = run_of("megatron_fine_grained", recompute=0, min_tensor_size=4096 * 512 + 1)
    assert {o.bytes for o in measured(run, "d2h").values()} == {2 * 4096 * (4 * 1024 + 4 * 4096)}


def test_what_is_saved_twice_moves_twice_but_under_trl() -> None:
    """Two norms, of whose three and two uses one is counted; the context, a result of attention and an input."""
    runs = {rule: run_of(rule, recompute=0) for rule in ("torchtune", "trl")}
    more = {rule: sum(o.bytes for o in measured(run, "d2h").values()) for rule, run in runs.items()}
    assert more["torchtune"] - more["trl"] == LAYERS * (2 + 1 + 1) * 2 * 4096 * 512


# SSDTrain


RATES = (2e8, 1e9, 2e9, 1e10)


def on_ssd(rate: float) -> Run:
    """Writes at `rate`, with no reads in their way."""
    return run_of("ssdtrain", node(nvme={"write_bytes_per_s": rate, "read_bytes_per_s": 1e15}), "nvme")


@pytest.mark.parametrize("rate", RATES)
def test_ssdtrain_keeps_the_layers_that_would_not_be_written_in_time(rate: float) -> None:
    """The first layer l with (sum of A before l + 2 A) / (3 T - 2 sum of t before l) > B, and all later ones."""
    run = on_ssd(rate)
    nbytes = run.workload.hidden_bytes
    first = [o for o in run.operations if o.iteration == 1]
    written = next(o.duration for o in first if o.kind == "nvme write")
    layer = next(o.duration for o in first if o.name == "layer 0 forward")
    needed = [(n + 2) * nbytes / (3 * LAYERS * layer - 2 * n * layer) for n in range(LAYERS)]
    expected = next((n for n in range(LAYERS) if needed[n] > nbytes / written), LAYERS)
    assert sorted(measured(run, "nvme write")) == list(range(expected))


def test_the_rates_above_let_none_some_and_all_layers_leave() -> None:
    counts = [len(measured(on_ssd(rate), "nvme write")) for rate in RATES]
    assert counts[0] < counts[1] < counts[2] < counts[3] == LAYERS


def test_ssdtrain_uses_what_is_being_written_and_bypasses_host_memory() -> None:
    run = on_ssd(2e9)
    writes, reads, backward = (measured(run, kind) for kind in ("nvme write", "nvme read", "backward"))
    assert 0 < len(reads) < len(writes)
    for layer, write in writes.items():
        if layer in reads:
            assert write.ended_at <= reads[layer].enqueued_at
        else:
            assert write.ended_at > backward[layer].enqueued_at - 1e-3
    host = run.platform.host_memory[0]
    assert all(resource is not host for o in (*writes.values(), *reads.values()) for resource, _ in o.usage)
    assert run.ranks[0].host_memory.peak == 0


# Wrong input

WRONG = [
    ({"rule": "torchtun", "tier": "host"}, "unknown activation rule 'torchtun'; did you mean 'torchtune'?"),
    ({"rule": "unsloth", "tier": "host", "slot": 1}, "unknown key 'slot' in placement.activations; did you mean 's"),
    ({"rule": "unsloth", "tier": "host", "slots": 3}, "placement.activations.slots: found 3, expected 1 or 2"),
    ({"rule": "alst"}, "rule alst keeps activations in memory tiers"),
    ({"rule": "ssdtrain", "tier": "host"}, "rule ssdtrain keeps activations in storage tiers"),
    ({"rule": "megatron", "tier": "host"}, "placement.activations.recompute: found 5 layers, expected 0 with rule"),
    ({"tier": "host", "slots": 1}, "unknown key 'slots' in placement.activations"),
    ({"tier": "host", "recomputee": 1}, "unknown key 'recomputee' in placement.activations; did you mean 'recompute'"),
]


@pytest.mark.parametrize(("placement", "message"), WRONG, ids=lambda part: str(part)[:40])
def test_wrong_placements_are_one_message(placement: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Case("no_offload", placement={"activations": placement}).simulate()
    assert message in str(error.value)


def test_a_wrong_option_points_to_its_line(tmp_path: Any) -> None:
    source = tmp_path / "mine.yaml"
    text = "placement:\n  activations:\n    tier: host\n    rule: unsloth\n    slots: 7\n"
    shipped = load_scenario("no_offload_7b_dgx_h200")
    source.write_text(
        f"{text}hardware: dgx-h200\nmodel: {shipped.model.model_dump()}\ntraining: {{global_batch: 1}}\n"
        "scheduler: {name: no_offload}\n".replace("True", "true").replace("False", "false")
    )
    with pytest.raises(InputError, match=r"mine\.yaml:5: placement\.activations\.slots: found 7"):
        simulate(source)


def test_rules_are_known_by_their_names() -> None:
    assert [BUILT_IN[name].name for name in BUILT_IN] == list(BUILT_IN) == available_rules()


# Published figures


def test_alsts_longest_sequences() -> None:
    """Llama-3.1-8B on one H200: 65k tokens; 300k with a fused loss; 650k with checkpoints in host memory too."""

    def fits(sequence: int, fused: bool, offloaded: bool) -> bool:
        placement = [] if offloaded else ["placement.activations.tier=gpu", "placement.activations.rule=null"]
        tiles = [] if fused else ["training.loss_chunks=1"]
        return simulate("alst_8b_dgx_h200", [f"model.sequence={sequence}", *tiles, *placement]).fits

    assert fits(65_536, fused=False, offloaded=False)
    assert not fits(300_000, fused=False, offloaded=False)
    assert fits(300_000, fused=True, offloaded=False)
    assert not fits(650_000, fused=True, offloaded=False)
    assert not fits(650_000, fused=False, offloaded=True)
    assert fits(650_000, fused=True, offloaded=True)


def test_checkpoints_offloaded_leave_alst_127_gb() -> None:
    result = simulate("alst_8b_dgx_h200")
    assert result.peaks[0].bytes == pytest.approx(127e9, rel=0.1)
    checkpoints = result.peaks[1].occupants["activations of layers"]
    assert checkpoints == pytest.approx(32 * 2 * 650_000 * 4096)


WIDE = ["model.hidden=16384", "model.ffn_hidden=65536", "model.heads=128", "model.kv_heads=128", "model.layers=2"]


@pytest.mark.parametrize(("changes", "measured_bytes"), [([], 10.37e9), (WIDE, 10.75e9)], ids=["8192", "16384"])
def test_ssdtrain_writes_the_activations_of_bert(changes: list[str], measured_bytes: float) -> None:
    run = simulate("ssdtrain_bert_2xa100", changes).run
    layer = run.workload.layer_activation_bytes
    assert layer * run.workload.model.layers == pytest.approx(measured_bytes, rel=0.05)
    # The last layer stays as a whole or not at all.
    assert sum(o.bytes for o in measured(run, "nvme write").values()) == pytest.approx(measured_bytes, rel=0.25)


def test_ssdtrain_takes_no_time() -> None:
    moved = simulate("ssdtrain_bert_2xa100")
    unmoved = simulate("ssdtrain_bert_2xa100", ["placement.activations.tier=gpu", "placement.activations.rule=null"])
    assert moved.iteration_s == pytest.approx(unmoved.iteration_s, rel=0.01)
    assert unmoved.peaks[0].bytes - moved.peaks[0].bytes == moved.run.workload.layer_activation_bytes
