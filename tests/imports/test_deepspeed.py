"""DeepSpeed's configuration: what is taken, what is listed, what is refused; and the way back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsim.imports import deepspeed_keys as keys
from offsim.imports.deepspeed import read_deepspeed
from offsim.imports.draft import Draft
from offsim.imports.read import import_scenario
from offsim.imports.recommendation import recommendation
from offsim.inputs.document import document_from
from offsim.inputs.errors import InputError
from offsim.results.simulate import simulate
from offsim.scenario import load_scenario
from offsim.schedulers.base import ScheduleOptions, option
from offsim.schedulers.no_offload import NoOffload
from offsim.schedulers.registry import BUILT_IN, scenario_scheduler
from tests.imports.files import DS_CONFIG, LLAMA_2_7B, changed, write

OVERLAPS = {"overlap_comm": True}
"""DeepSpeed's default in stage 3."""


def read(config: dict[str, Any], gpus: int = 4, hidden: int = 1000) -> Draft:
    draft = Draft()
    read_deepspeed(document_from(config), draft, gpus=gpus, hidden=hidden)
    return draft


OPENED = (
    *("zero_optimization", "offload_optimizer", "offload_param", "aio"),
    *("activation_checkpointing", "bf16", "optimizer"),
)


def leaves(config: dict[str, Any], prefix: str = "") -> set[str]:
    """Keys as the lists name them: sections that are opened by their keys, others whole."""
    found = set()
    for key, value in config.items():
        found |= leaves(value, f"{prefix}{key}.") if key in OPENED else {f"{prefix}{key}"}
    return found


def test_what_is_taken() -> None:
    draft = read(DS_CONFIG)
    assert draft.data == {
        "training": {
            "zero_stage": 3,
            "micro_batch": 2,
            "global_batch": 16,
            "subgroup_size": 100_000_000,
            "reduce_bucket_size": 500_000_000,
            "activation_checkpointing": True,
        },
        "scheduler": {"name": "zero3_offload", "cpu_ratio": 0.8, "gradient_flush": "asynchronous", **OVERLAPS},
    }
    assert not draft.assumed
    assert not draft.not_modelled


def test_the_account_has_all_lists(tmp_path: Path) -> None:
    deepspeed, model = write(tmp_path)
    made = import_scenario(deepspeed, model, "jlse-4xh100")
    account = made.account
    assert leaves(DS_CONFIG) | {"--gpus"} <= set(account["key"])
    assert account.loc[account["list"] == "assumed", "key"].tolist() == [entry.key for entry in made.draft.assumed]


def test_defaults_are_deepspeeds() -> None:
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}}
    draft = read({"train_batch_size": 8, "fp16": {"enabled": True}, "zero_optimization": zero})
    assert draft.data["training"] == {
        "zero_stage": 3,
        "micro_batch": 2,
        "global_batch": 8,
        "subgroup_size": 1_000_000_000,
        "reduce_bucket_size": 500_000_000,
    }
    own = {"cpu_ratio": 1.0, "gradient_flush": "asynchronous"}
    assert draft.data["scheduler"] == {"name": "zero3_offload", **own, **OVERLAPS}
    assert len(draft.assumed) == 6  # the two sizes, the ratio, pinned memory and the optimizer


# Batch sizes


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.sampled_from([..., None, "auto"]))
def test_any_two_batch_sizes_determine_the_third(micro: int, steps: int, gpus: int, absent: Any) -> None:
    sizes = (micro * steps * gpus, micro, steps)
    for left_out in (None, 0, 1, 2):
        config = batches(*(absent if place == left_out else size for place, size in enumerate(sizes)))
        training = read(config, gpus=gpus).data["training"]
        assert (training["micro_batch"], training["global_batch"]) == (micro, micro * steps * gpus)


@pytest.mark.parametrize(
    ("train", "micro", "steps", "expected"),
    [
        (16, ..., ..., (4, 16)),  # DeepSpeed: one accumulation step
        (..., 4, ..., (4, 16)),
        (32, "auto", "auto", (8, 32)),
        ("auto", "auto", "auto", (8, 32)),  # Hugging Face: 8 a GPU
        ("auto", "auto", 4, (8, 128)),
    ],
)
def test_fewer_than_two_batch_sizes(train: Any, micro: Any, steps: Any, expected: tuple[int, int]) -> None:
    training = read(batches(train, micro, steps)).data["training"]
    assert (training["micro_batch"], training["global_batch"]) == expected


def batches(train: Any, micro: Any, steps: Any) -> dict[str, Any]:
    sizes = {"train_batch_size": train, "train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": steps}
    return changed(DS_CONFIG, **sizes)


@pytest.mark.parametrize(
    ("train", "micro", "steps", "message"),
    [
        (30, 2, 2, "train_batch_size: found 30, expected train_micro_.* x gradient_.* x GPUs \\(2 x 2 x 4 = 16\\)"),
        (30, 2, ..., "train_batch_size: found 30, expected a multiple of train_micro_batch_size_per_gpu x GPUs"),
        (30, ..., 2, "train_batch_size: found 30, expected a multiple of gradient_accumulation_steps x GPUs \\(2 x 4"),
        (3, ..., ..., "train_batch_size: found 3, expected a multiple of GPUs \\(4\\)"),
        (..., ..., 2, "missing key 'train_batch_size' or 'train_micro_batch_size_per_gpu'"),
    ],
)
def test_batch_sizes_that_contradict(train: Any, micro: Any, steps: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        read(batches(train, micro, steps))


# ZeRO stages and offload

OFFLOAD = "zero_optimization__offload_optimizer__"
SUPER = {"device": "cpu", "super_offload": True}
EVERY_KEY = {
    "zero_optimization": {
        **{key: value for key, (value, _) in keys.ONLY_ZERO.items()},
        **{key: value for key, (value, _) in keys.MODELLED_ZERO.items()},
        **{key: value for key, (value, _) in keys.MODELLED_STAGE_3.items()},
        **{key: value for key, (value, _) in keys.MODELLED_STAGES_1_2.items()},
        **dict.fromkeys(keys.IGNORED_ZERO),
        **{"sub_group_size": 1e8, "reduce_bucket_size": 5e8, "cpu_offload": False, "cpu_offload_param": False},
        "offload_optimizer": {"super_offload": False, "ratio": 1, "pin_memory": True, "nvme_path": "/nvme"}
        | {"fast_init": False, "cpuadam_cores_perc": 0.8, "pipeline": True, "buffer_count": 12}
        | {"pipeline_read": True, "pipeline_write": True},
        "offload_param": {"nvme_path": "/nvme", "pin_memory": True, "buffer_count": 6}
        | {"buffer_size": 2e8, "max_in_cpu": 0},
    },
    "aio": {key: 1 for key, (value, _) in keys.MODELLED_AIO.items() if value is None}
    | {"single_submit": False, "overlap_events": True, "use_gds": True},
}


def offloading(stage: int, optimizer: str, parameters: str) -> dict[str, Any]:
    """A configuration with every key of offload and ZeRO, whether it matters there or not."""
    config = changed(DS_CONFIG, **copy.deepcopy(EVERY_KEY))
    devices = {"optimizer": optimizer, "param": parameters}
    sections = {f"zero_optimization__offload_{name}__device": device for name, device in devices.items()}
    return changed(config, zero_optimization__stage=stage, **sections)


PLACES: list[tuple[int, str, str, str, dict[str, str]]] = [
    (3, "none", "none", "no_offload", {}),
    (3, "cpu", "none", "zero3_offload", {}),
    (3, "cpu", "cpu", "zero3_offload", {"parameters": "host"}),
    (3, "none", "cpu", "zero3_offload", {"optimizer": "gpu", "parameters": "host"}),
    (3, "nvme", "none", "zero_infinity", {}),
    (3, "nvme", "cpu", "zero_infinity", {"parameters": "host"}),
    (3, "nvme", "nvme", "zero_infinity", {"parameters": "nvme"}),
    (3, "cpu", "nvme", "zero_infinity", {"optimizer": "host", "parameters": "nvme"}),
    (3, "none", "nvme", "zero_infinity", {"optimizer": "gpu", "parameters": "nvme"}),
    (2, "cpu", "none", "zero2_offload", {}),
    (2, "nvme", "none", "zero2_offload", {}),
    (2, "none", "nvme", "no_offload", {}),
    (1, "cpu", "cpu", "zero1_offload", {}),
    (1, "none", "none", "no_offload", {}),
    (0, "none", "cpu", "no_offload", {}),
]


@pytest.mark.parametrize(("stage", "optimizer", "parameters", "scheduler", "placement"), PLACES)
def test_stage_and_devices_choose_scheduler_and_placement(
    stage: int, optimizer: str, parameters: str, scheduler: str, placement: dict[str, str]
) -> None:
    config = offloading(stage, optimizer, parameters)
    draft = read(config)
    assert draft.data["training"]["zero_stage"] == stage
    assert draft.data["scheduler"]["name"] == scheduler
    assert draft.data.get("placement", {}) == placement
    assert ("subgroup_size" in draft.data["training"]) == (stage == 3)
    listed = [entry.key for entries in draft.lists.values() for entry in entries]
    assert leaves(config) - {"zero_optimization.offload_optimizer", "zero_optimization.offload_param"} <= set(listed)
    unlike = [key for key in set(listed) if listed.count(key) > 1]
    several = {entry.key for entry in (*draft.used, *draft.assumed)}  # one key can decide two values of a scenario
    assert set(unlike) <= several


@pytest.mark.parametrize(
    ("optimizer", "parameters", "expected"),
    [
        ("cpu", "cpu", {"cpu_ratio": 1.0, "gradient_flush": "asynchronous", **OVERLAPS}),
        ("nvme", "none", {"pipeline_read": True, "pipeline_write": True, "buffer_count": 12, **OVERLAPS}),
        ("none", "nvme", {"parameter_buffer_count": 6, "parameter_buffer_size": 2e8, "max_in_cpu": 0, **OVERLAPS}),
    ],
)
def test_options_of_offload(optimizer: str, parameters: str, expected: dict[str, Any]) -> None:
    options = read(offloading(3, optimizer, parameters)).data["scheduler"]
    del options["name"]
    assert options == expected


def test_defaults_of_offload_to_nvme_are_deepspeeds() -> None:
    nvme = {"device": "nvme"}
    draft = read(
        changed(DS_CONFIG, zero_optimization__offload_optimizer=nvme, zero_optimization__offload_param=nvme, aio=...)
    )
    assert draft.data["scheduler"] == {
        "name": "zero_infinity",
        **{"pipeline_read": False, "pipeline_write": False, "buffer_count": 4},
        **{"parameter_buffer_count": 5, "parameter_buffer_size": 100_000_000, "max_in_cpu": 1_000_000_000, **OVERLAPS},
    }


def test_keys_of_aio_are_not_modelled_on_nvme_and_ignored_elsewhere() -> None:
    aio = {f"aio.{key}" for key in EVERY_KEY["aio"]}
    draft = read(offloading(3, "nvme", "none"))
    assert aio - {entry.key for entry in draft.not_modelled} == {"aio.single_submit", "aio.overlap_events"}
    assert aio <= {entry.key for entry in read(offloading(3, "cpu", "none")).ignored}


@pytest.mark.parametrize(("norm", "waits"), [(1.0, True), (0.5, True), (0.0, False), (..., False), ("auto", True)])
def test_super_offload_with_and_without_clipping(norm: Any, waits: bool) -> None:
    changes = {f"{OFFLOAD}super_offload": True, f"{OFFLOAD}cpuadam_cores_perc": 0.9, "gradient_clipping": norm}
    draft = read(changed(DS_CONFIG, **changes))
    options = {"cpu_ratio": 0.8, "cpuadam_cores_perc": 0.9, "gradient_clipping": waits, **OVERLAPS}
    assert draft.data["scheduler"] == {"name": "superoffload", **options}
    assert not draft.not_modelled


def test_super_offload_is_for_stage_3() -> None:
    config = changed(offloading(2, "cpu", "none"), **{f"{OFFLOAD}super_offload": True})
    draft = read(config)
    assert draft.data["scheduler"]["name"] == "zero2_offload"
    assert "zero_optimization.offload_optimizer.super_offload" in [entry.key for entry in draft.ignored]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zenflow(stage: int) -> None:
    """A step of ZenFlow, one micro-batch, is an iteration, whatever the accumulation steps."""
    section = {"topk_ratio": 0.05, "update_interval": 8, "overlap_step": True, "pt_reserved_cores_perc": 0.25}
    ignored = {"select_strategy": "epoch", "select_interval": 1, "full_warm_up_rounds": 2, "auto_ratio": 0.9}
    config = changed(DS_CONFIG, zero_optimization__zenflow=section | ignored, zero_optimization__stage=stage)
    draft = read(changed(config, **{f"{OFFLOAD}ratio": 1}))
    assert draft.data["scheduler"] == {"name": "zenflow", **section, **OVERLAPS}
    assert draft.data["training"]["micro_batch"] * 4 == draft.data["training"]["global_batch"]
    assert {f"zero_optimization.zenflow.{key}" for key in ignored} <= {entry.key for entry in draft.ignored}


def test_an_interval_that_deepspeed_chooses_is_assumed() -> None:
    config = changed(DS_CONFIG, **{f"{OFFLOAD}ratio": 1, "zero_optimization__zenflow": {"update_interval": "auto"}})
    draft = read(config)
    assert draft.data["scheduler"]["update_interval"] == 4
    assert "zero_optimization.zenflow.update_interval" in [entry.key for entry in draft.assumed]
    strategy = {"select_strategy": "step", "select_interval": 10}
    config["zero_optimization"]["zenflow"] = strategy
    assert [entry.key.rpartition(".")[2] for entry in read(config).not_modelled] == [*strategy]


@pytest.mark.parametrize("scenario", ["superoffload_8b_gh200", "zenflow_3b_2xa100"])
def test_their_keys_read_back_are_the_scenario(scenario: str) -> None:
    before = load_scenario(scenario)
    back = read(json.loads(recommendation(before).to_json()), gpus=before.training.data_parallel).data
    options = scenario_scheduler(before)[1].model_dump(exclude={"version"})
    assert back["scheduler"] == {"name": before.scheduler.name, **options}
    assert back["training"]["global_batch"] == before.training.global_batch


def test_the_account_says_that_stage_2_has_no_nvme() -> None:
    entries = {entry.key: entry.became for entry in read(offloading(2, "nvme", "none")).used}
    became = entries["zero_optimization.offload_optimizer.device"]
    assert became == "scheduler.name zero2_offload (DeepSpeed treats nvme as cpu in stages 1 and 2)"


def test_overlap_is_off_by_default_below_stage_3_and_can_be_off_in_it() -> None:
    draft = read(changed(offloading(2, "cpu", "none"), zero_optimization__overlap_comm=...))
    assert "zero_optimization.overlap_comm" in [entry.key for entry in draft.assumed]
    assert draft.data["scheduler"]["overlap_comm"] is False
    for optimizer in ("cpu", "nvme"):
        config = changed(offloading(3, optimizer, "none"), zero_optimization__overlap_comm=False)
        assert read(config).data["scheduler"]["overlap_comm"] is False


@pytest.mark.parametrize("offload", [{"pin_memory": True}, None, ...])
def test_the_optimizer_stays_on_the_gpus_without_a_device(offload: Any) -> None:
    draft = read(changed(DS_CONFIG, zero_optimization__offload_optimizer=offload))
    assert draft.data["scheduler"] == {"name": "no_offload"}


def test_pageable_gradients_block() -> None:
    draft = read(changed(DS_CONFIG, zero_optimization__offload_optimizer__pin_memory=False))
    assert draft.data["scheduler"]["gradient_flush"] == "blocking"


def test_no_section_of_zero_is_stage_0() -> None:
    draft = read(changed(DS_CONFIG, zero_optimization=...))
    assert (draft.data["training"]["zero_stage"], draft.data["scheduler"]) == (0, {"name": "no_offload"})


@pytest.mark.parametrize(("new", "old"), keys.OFFLOADED.values())
def test_the_old_keys_for_offload(new: str, old: str) -> None:
    config = changed(DS_CONFIG, **{f"zero_optimization__{new}": ..., f"zero_optimization__{old}": True})
    assert read(config).data["scheduler"]["name"] == "zero3_offload"
    with pytest.raises(InputError, match=rf"zero_optimization.{old}: found true, expected {new} alone"):
        read(changed(config, **{f"zero_optimization__{new}": {"device": "cpu"}}))


def test_automatic_sizes_are_hugging_faces() -> None:
    draft = read(changed(DS_CONFIG, zero_optimization__reduce_bucket_size="auto"), hidden=4096)
    assert draft.data["training"]["reduce_bucket_size"] == 4096**2
    draft = read(changed(DS_CONFIG, zero_optimization__stage3_prefetch_bucket_size="auto"))
    assert [entry.key for entry in draft.not_modelled] == ["zero_optimization.stage3_prefetch_bucket_size"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": 4}, "stage: found 4, expected 0, 1, 2 or 3"),
        ({"stage": "auto"}, "stage: found 'auto', expected 0, 1, 2 or 3"),
        ({"stage": 0}, "offload_optimizer.device: found 'cpu', expected none, or"),
        ({"stage": 2}, "offload_optimizer.ratio: found 0.8, expected 1: a part"),
        ({"offload_optimizer__device": "nvme"}, "offload_optimizer.ratio: found 0.8, expected 1: a part"),
        ({"offload_optimizer__device": "nvm"}, "offload_optimizer.device: found 'nvm', .*; did you mean 'nvme'?"),
        (
            {"offload_optimizer": SUPER | {"device": "nvme"}},
            "offload_optimizer.super_offload: .* expected false, or zero",
        ),
        (
            {"offload_optimizer": SUPER, "zenflow": {}},
            "offload_optimizer.super_offload: .* expected false, as zenflow is",
        ),
        ({"offload_param__device": "gpu"}, "offload_param.device: found 'gpu', expected .*; did you mean 'none'"),
        ({"zenflow": {}}, "offload_optimizer.ratio: found 0.8, expected 1: a part"),
        ({"zenflow": {}, "offload_optimizer__device": "none"}, "zenflow: .*, expected no such section, or zero_opt"),
        ({"zenflow__offload": True, "offload_optimizer__ratio": 1}, "zenflow.offload: found true, expected false: m"),
        ({"overlap_comm": False, "offload_optimizer": ...}, "overlap_comm: found false, expected true: gradients red"),
    ],
)
def test_what_is_refused_of_zero(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^zero_optimization.{message.replace('?', '[?]')}"):
        read(changed(DS_CONFIG, **{f"zero_optimization__{key}": value for key, value in changes.items()}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zero_optimization": True}, "zero_optimization: found true, expected a section of keys"),
        (
            {"zero_optimization__sub_group_sise": 1e8},
            "unknown key .* in zero_optimization; did you mean 'sub_group_size",
        ),
        (
            {"zero_optimization__offload_param__ratio": 1},
            "unknown key 'ratio' in zero_optimization.offload_param; offsim",
        ),
        ({"zero_optimization__zenflow": {"topk_ratoi": 0.1}, f"{OFFLOAD}ratio": 1}, "unknown .* mean 'topk_ratio'?"),
        ({"aio": {"queue_dept": 8}}, "unknown key 'queue_dept' in aio; did you mean 'queue_depth'?"),
        ({"xyzzy": 8}, "unknown key 'xyzzy'; offsim knows no such key"),
        ({"bf16__enabled": False}, "neither bf16.enabled nor fp16.enabled is true: fp32 training cannot be simulated"),
        ({"fp16": {"enabled": True}}, "fp16.enabled: found true, expected false, as bf16 is enabled"),
        ({"bf16__bf16_master_weights_and_grads": True}, "bf16.bf16_master_weights_and_grads: optimizer states of 16 b"),
        ({"optimizer__type": "Lion"}, "optimizer.type: found 'Lion', expected Adam or AdamW"),
        ({"optimizer__params__torch_adam": True}, "optimizer.params.torch_adam: found true, expected false"),
        ({"communication_data_type": "fp32"}, "communication_data_type: found 'fp32', expected bf16"),
        ({"data_types": {"grad_accum_dtype": "fp32"}}, "data_types.grad_accum_dtype: found 'fp32', expected bf16"),
        ({"activation_checkpointing__cpu_checkpointing": "yes"}, "activation_.*: found 'yes', expected true or false"),
        ({"pipeline": {"stages": 2}}, "pipeline: pipeline parallelism cannot be simulated"),
        ({"tensor_parallel": {"autotp_size": 2}}, "tensor_parallel: autotp_size 2 cannot be simulated"),
        ({"data_efficiency": {"data_routing": {"enabled": True}}}, "data_efficiency: a sequence length that changes"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message.replace('?', '[?]')}"):
        read(changed(DS_CONFIG, **changes))


@pytest.mark.parametrize("partition", [True, False])
def test_checkpoints_in_host_memory(partition: bool) -> None:
    section = {"cpu_checkpointing": True, "partition_activations": partition}
    draft = read(changed(DS_CONFIG, activation_checkpointing=section))
    assert draft.data["placement"] == {"activations": {"tier": "host"}}
    assert draft.data["training"]["activation_checkpointing"] is True
    blocking = ["activation_checkpointing.partition_activations"] if partition else []
    assert [entry.key for entry in draft.not_modelled] == blocking


@pytest.mark.parametrize("key", [key for key, (switch, _) in keys.SWITCHED.items() if switch])
def test_what_is_switched_off_is_ignored(key: str) -> None:
    switch, _ = keys.SWITCHED[key]
    assert key in [entry.key for entry in read(changed(DS_CONFIG, **{key: {switch: False}})).ignored]
    with pytest.raises(InputError, match=f"^{key}: .* cannot be simulated"):
        read(changed(DS_CONFIG, **{key: {switch: True}}))


@pytest.mark.parametrize("key", keys.ONLY)
def test_defaults_written_out_change_nothing(key: str) -> None:
    assert read(changed(DS_CONFIG, **{key: keys.ONLY[key][0]})).data == read(DS_CONFIG).data


# The way back

TRAINING = {
    "micro_batch": st.integers(1, 16),
    "data_parallel": st.integers(1, 16),
    "subgroup_size": st.integers(1, 10**10),
    "reduce_bucket_size": st.integers(1, 10**10),
}


MODEL = {"layers": 2, "hidden": 64, "ffn_hidden": 64, "heads": 4, "kv_heads": 4, "vocab": 64, "sequence": 16}
FLUSHES = {"zero3_offload": "blocking", "zero3_offload_async_grads": "asynchronous"}


@given(
    st.fixed_dictionaries(TRAINING),
    st.integers(1, 16),
    st.sampled_from(["no_offload", *FLUSHES]),
    st.sampled_from([0.0, 0.5, 1.0]) | st.floats(1e-30, 1),
)
def test_keys_of_a_scenario_read_back_are_the_scenario(
    training: dict[str, int], steps: int, scheduler: str, ratio: float
) -> None:
    gpus = training["data_parallel"]
    batch = training["micro_batch"] * steps * gpus
    choice = {"name": scheduler} | ({} if scheduler == "no_offload" else {"cpu_ratio": ratio})
    scenario = load_scenario(
        {"hardware": "gh200", "model": MODEL, "training": {**training, "global_batch": batch}, "scheduler": choice}
    )
    back = read(json.loads(recommendation(scenario).to_json()), gpus=gpus)
    expected = {key: value for key, value in training.items() if key != "data_parallel"}
    if scheduler in FLUSHES:
        choice |= {"name": "zero3_offload", "gradient_flush": FLUSHES[scheduler], **OVERLAPS}
    assert back.data == {"training": {"zero_stage": 3, **expected, "global_batch": batch}, "scheduler": choice}
    assert not back.not_modelled


class WithKeys(NoOffload):
    """A scheduler that says itself how DeepSpeed is told to run it."""

    name = "with_keys"

    @classmethod
    def deepspeed_keys(cls, options: ScheduleOptions) -> dict[str, object]:
        return {"zero_optimization.offload_param.device": "nvme", "aio.queue_depth": 32}

    @classmethod
    def deepspeed_notes(cls, options: ScheduleOptions) -> tuple[str, ...]:
        return ("a note of its own",)


class WithoutKeys(NoOffload):
    name = "without_keys"

    @classmethod
    def deepspeed_keys(cls, options: ScheduleOptions) -> None:
        return None


NEAREST = {"offload_optimizer": {"device": "cpu", "pin_memory": True}}


@pytest.mark.parametrize(
    ("scheduler", "offload", "note"),
    [
        (WithKeys, {"offload_param": {"device": "nvme", "nvme_path": "/local_nvme"}}, "a note of its own"),
        (WithoutKeys, NEAREST, "DeepSpeed does not have without_keys"),
    ],
)
def test_a_scheduler_says_its_own_keys(
    monkeypatch: pytest.MonkeyPatch, scheduler: type[NoOffload], offload: dict[str, Any], note: str
) -> None:
    monkeypatch.setitem(BUILT_IN, scheduler.name, scheduler)
    said = recommendation(load_scenario("dos_20b_4xh100", [f"scheduler={{name: {scheduler.name}}}"]))
    zero = said.keys["zero_optimization"]
    assert {key: value for key, value in zero.items() if key.startswith("offload")} == offload
    assert said.notes[0].startswith(note)
    assert said.nearest == (scheduler is WithoutKeys)
    assert said.keys.get("aio") == ({"queue_depth": 32} if scheduler is WithKeys else None)


def test_schedulers_that_deepspeed_does_not_have_need_a_note() -> None:
    scenario = load_scenario("dos_20b_4xh100", ["scheduler.update_stride=3", "training.tensor_parallel=2"])
    said = recommendation(scenario)
    assert any("update stride 3" in note and "10.1145/3652892.3700781" in note for note in said.notes)
    assert any("tensor" in note for note in said.notes)
    assert read(said.keys).data["scheduler"]["name"] == "zero3_offload"


class OwnKeys(ScheduleOptions):
    mode: str = option("near", "", deepspeed="lookahead_mode")
    share: float = option(
        1.0,
        "",
        deepspeed="zero_optimization.half",
        deepspeed_default=False,
        deepspeed_values={True: ([0.5, 0.6], "half"), False: ([1.0], "whole")},
    )


class WithOwnKeys(NoOffload):
    """A scheduler whose options are keys that no other scheduler has."""

    name = "with_own_keys"
    Options = OwnKeys


OWN = {"lookahead_mode": "far", "zero_optimization__half": True}


def test_options_declare_the_keys_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    none = {"zero_optimization__offload_optimizer": ...}
    with pytest.raises(InputError, match="unknown key 'lookahead_mode'"):
        read(changed(DS_CONFIG, **OWN, **none))
    monkeypatch.setitem(BUILT_IN, WithOwnKeys.name, WithOwnKeys)
    draft = read(changed(DS_CONFIG, **OWN, **none))
    assert draft.data["scheduler"] == {"name": "no_offload"}
    assert {"lookahead_mode", "zero_optimization.half"} <= {entry.key for entry in draft.ignored}


def test_the_first_scheduler_of_a_device_gets_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {WithOwnKeys.name: WithOwnKeys, **BUILT_IN}
    monkeypatch.setattr("offsim.imports.offload.BUILT_IN", own)
    monkeypatch.setattr("offsim.schedulers.registry.BUILT_IN", own)
    draft = read(changed(DS_CONFIG, **OWN, zero_optimization__offload_optimizer=...))
    assert draft.data["scheduler"] == {"name": "with_own_keys", "mode": "far", "share": 0.5}
    assert WithOwnKeys.deepspeed_keys(OwnKeys(mode="far", share=0.6)) == {
        "zero_optimization.offload_optimizer.device": "none",
        "lookahead_mode": "far",
        "zero_optimization.half": True,
    }


# From files to a scenario and back


@pytest.mark.parametrize(("stage", "optimizer", "parameters"), [place[:3] for place in PLACES])
def test_any_offload_is_simulated_and_said_in_the_same_keys(
    tmp_path: Path, stage: int, optimizer: str, parameters: str
) -> None:
    paths = write(tmp_path, offloading(stage, optimizer, parameters), changed(LLAMA_2_7B, num_hidden_layers=2))
    made = import_scenario(*paths, "jlse-4xh100-nvme")
    assert simulate(made.scenario).iteration_s > 0
    back = read(recommendation(made.scenario).keys)
    assert back.data["scheduler"] == made.draft.data["scheduler"]
    assert back.data.get("placement") == made.draft.data.get("placement")


ACTIVATIONS: list[tuple[dict[str, Any], bool, str]] = [
    ({"tier": "host"}, True, "on in the model's code, by deepspeed.checkpointing"),
    ({"tier": "host", "recompute": 2}, True, "on in the model's code, by deepspeed.checkpointing"),
    ({"tier": "host", "recompute": 1}, False, "no key of DeepSpeed says this placement of the activations"),
    ({"tier": "gpu", "recompute": 1}, False, "no key of DeepSpeed says this placement of the activations"),
    ({"tier": "gpu"}, False, "on in the model's code: no key"),
    ({"tier": "gpu", "recompute": 0}, False, "off in the model's code: no key"),
]


@pytest.mark.parametrize(("activations", "said", "note"), ACTIVATIONS)
def test_placement_of_activations_in_deepspeeds_words(activations: dict[str, Any], said: bool, note: str) -> None:
    choice = {"placement": {"activations": activations}, "scheduler": {"name": "zero3_offload"}}
    scenario = load_scenario({"hardware": "gh200", "model": MODEL, "training": {"global_batch": 1}, **choice})
    keys = recommendation(scenario)
    assert ("activation_checkpointing" in keys.keys) == said
    assert any(note in text for text in keys.notes)
    back = read(keys.keys, gpus=1).data
    assert back.get("placement") == ({"activations": {"tier": "host"}} if said else None)


def test_files_and_scenario(tmp_path: Path) -> None:
    deepspeed, model = write(tmp_path)
    made = import_scenario(deepspeed, model, "dgx-h200", gpus=4, sequence=1024, overrides=["training.micro_batch=1"])
    assert made.scenario.name == "Llama-2-7b-hf"
    assert made.scenario.hardware == "dgx-h200"
    assert made.scenario.model.sequence == 1024
    assert made.scenario.training.micro_batch == 1
    folder = import_scenario(deepspeed, tmp_path, "dgx-h200", gpus=4)
    assert folder.scenario.training.data_parallel == 4


def test_keys_of_the_same_name_in_both_files_are_listed_twice(tmp_path: Path) -> None:
    paths = write(tmp_path, model=changed(LLAMA_2_7B, scheduler="cosine"))
    account = import_scenario(*paths, "jlse-4xh100").account
    assert account["key"].tolist().count("scheduler") == 2


def test_gpus_are_those_of_a_node_where_none_are_given(tmp_path: Path) -> None:
    deepspeed, model = write(tmp_path, batches(..., 2, 2))
    assert import_scenario(deepspeed, model, "dgx-h200").scenario.training.data_parallel == 8


def test_a_model_that_the_simulated_one_is_far_from_is_refused(tmp_path: Path) -> None:
    deepspeed, model = write(tmp_path, model=changed(LLAMA_2_7B, head_dim=256, hidden_size=2048))
    with pytest.raises(InputError, match=r"parameters: counted .*, simulated .*% off"):
        import_scenario(deepspeed, model, "jlse-4xh100")
    import_scenario(deepspeed, model, "jlse-4xh100", overrides=["model.layers=33"])
