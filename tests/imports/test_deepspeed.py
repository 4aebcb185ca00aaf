"""DeepSpeed's configuration: what is taken, what is listed, what is refused; and the way back."""

from __future__ import annotations

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
from offsim.inputs.errors import InputError
from offsim.inputs.yaml_input import document_from
from offsim.scenario import load_scenario
from tests.imports.files import DS_CONFIG, LLAMA_2_7B, changed, write


def read(config: dict[str, Any], gpus: int = 4, hidden: int = 1000) -> Draft:
    draft = Draft()
    read_deepspeed(document_from(config), draft, gpus=gpus, hidden=hidden)
    return draft


def leaves(config: dict[str, Any], prefix: str = "") -> set[str]:
    """Keys as the lists name them: sections that are opened by their keys, others whole."""
    found = set()
    for key, value in config.items():
        opened = key in ("zero_optimization", "offload_optimizer", "activation_checkpointing", "bf16", "optimizer")
        found |= leaves(value, f"{prefix}{key}.") if opened else {f"{prefix}{key}"}
    return found


def test_what_is_taken() -> None:
    draft = read(DS_CONFIG)
    assert draft.data == {
        "training": {
            "micro_batch": 2,
            "global_batch": 16,
            "subgroup_size": 100_000_000,
            "reduce_bucket_size": 500_000_000,
            "activation_checkpointing": True,
        },
        "scheduler": {"name": "zero3_offload_async_grads", "cpu_ratio": 0.8},
    }
    assert not draft.assumed
    assert not draft.not_modelled


def test_every_key_is_in_one_of_the_lists() -> None:
    draft = read(DS_CONFIG)
    listed = {entry.key for entry in (*draft.used, *draft.assumed, *draft.ignored, *draft.not_modelled)}
    assert leaves(DS_CONFIG) <= listed


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
        "micro_batch": 2,
        "global_batch": 8,
        "subgroup_size": 1_000_000_000,
        "reduce_bucket_size": 500_000_000,
    }
    assert draft.data["scheduler"] == {"name": "zero3_offload_async_grads", "cpu_ratio": 1.0}
    assert len(draft.assumed) == 5  # the two sizes, the ratio, pinned memory and the optimizer


# Batch sizes


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.sampled_from([..., None, "auto"]))
def test_any_two_batch_sizes_determine_the_third(micro: int, steps: int, gpus: int, absent: Any) -> None:
    sizes = {
        "train_batch_size": micro * steps * gpus,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": steps,
    }
    for left_out in (None, *sizes):
        config = changed(DS_CONFIG, **(sizes | ({left_out: absent} if left_out else {})))
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
        (0, 2, 2, "train_batch_size: found 0, expected at least 1"),
        ("16", 2, 2, "train_batch_size: found '16', expected a number"),
    ],
)
def test_batch_sizes_that_contradict(train: Any, micro: Any, steps: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        read(batches(train, micro, steps))


# Sections


@pytest.mark.parametrize(
    ("offload", "scheduler"),
    [
        ({"device": "cpu"}, {"name": "zero3_offload_async_grads", "cpu_ratio": 1.0}),
        ({"device": "cpu", "pin_memory": False}, {"name": "zero3_offload", "cpu_ratio": 1.0}),
        ({"device": "cpu", "ratio": 0.3}, {"name": "zero3_offload_async_grads", "cpu_ratio": 0.3}),
        ({"device": "none", "ratio": 0.3}, {"name": "no_offload"}),
        ({"pin_memory": True}, {"name": "no_offload"}),
        (None, {"name": "no_offload"}),
        (..., {"name": "no_offload"}),
    ],
)
def test_where_the_optimizer_is(offload: Any, scheduler: dict[str, Any]) -> None:
    assert read(changed(DS_CONFIG, zero_optimization__offload_optimizer=offload)).data["scheduler"] == scheduler


def test_the_old_key_for_offload() -> None:
    old = changed(DS_CONFIG, zero_optimization__offload_optimizer=..., zero_optimization__cpu_offload=True)
    assert read(old).data["scheduler"]["name"] == "zero3_offload_async_grads"
    with pytest.raises(InputError, match=r"zero_optimization.cpu_offload: found true, expected offload_optimizer"):
        read(changed(DS_CONFIG, zero_optimization__cpu_offload=True))


def test_automatic_sizes_are_hugging_faces() -> None:
    draft = read(changed(DS_CONFIG, zero_optimization__reduce_bucket_size="auto"), hidden=4096)
    assert draft.data["training"]["reduce_bucket_size"] == 4096**2
    draft = read(changed(DS_CONFIG, zero_optimization__stage3_prefetch_bucket_size="auto"))
    assert [entry.key for entry in draft.not_modelled] == ["zero_optimization.stage3_prefetch_bucket_size"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zero_optimization__stage": 2}, "zero_optimization.stage: found 2, expected 3, the only ZeRO stage"),
        ({"zero_optimization__stage": ...}, "missing key 'zero_optimization.stage': expected 3"),
        ({"zero_optimization": ...}, "missing key 'zero_optimization.stage': expected 3"),
        ({"zero_optimization": True}, "zero_optimization: found true, expected a section of keys"),
        (
            {"zero_optimization__sub_group_sise": 1e8},
            "unknown key 'sub_group_sise' in zero_optimization; did you mean 'sub_group_size'?",
        ),
        ({"train_batch": 8}, "unknown key 'train_batch'; did you mean 'train_batch_size'?"),
        ({"xyzzy": 8}, "unknown key 'xyzzy'; offsim knows no such key"),
        ({"zero_optimization__sub_group_size": "1e8"}, "zero_optimization.sub_group_size: found '1e8', expected a n"),
        ({"zero_optimization__sub_group_size": -1}, "zero_optimization.sub_group_size: found -1, expected at least 1"),
        ({"zero_optimization__sub_group_size": 1.5}, "zero_optimization.sub_group_size: found 1.5, expected a whole"),
        (
            {"zero_optimization__offload_optimizer__device": "nvme"},
            "zero_optimization.offload_optimizer.device: found 'nvme', expected cpu or none: an optimizer on NVMe",
        ),
        (
            {"zero_optimization__offload_optimizer__device": "cuda"},
            "zero_optimization.offload_optimizer.device: found 'cuda', expected one of none, cpu, nvme",
        ),
        (
            {"zero_optimization__offload_optimizer__ratio": 1.2},
            "zero_optimization.offload_optimizer.ratio: found 1.2, expected at most 1",
        ),
        (
            {"zero_optimization__offload_optimizer__pin_memory": "true"},
            "zero_optimization.offload_optimizer.pin_memory: found 'true', expected true or false",
        ),
        (
            {"zero_optimization__offload_optimizer__super_offload": True},
            "zero_optimization.offload_optimizer.super_offload: SuperOffload cannot be simulated",
        ),
        (
            {"zero_optimization__offload_param__device": "cpu"},
            "zero_optimization.offload_param.device: found 'cpu', expected none: parameters on cpu cannot",
        ),
        ({"zero_optimization__zenflow": {"topk_ratio": 0.1}}, "zero_optimization.zenflow: ZenFlow cannot be simulated"),
        ({"zero_optimization__overlap_comm": False}, "zero_optimization.overlap_comm: found false, expected true: gra"),
        ({"zero_optimization__zero_hpz_partition_size": 8}, "zero_optimization.zero_hpz_partition_size: found 8, exp"),
        ({"bf16__enabled": False}, "neither bf16.enabled nor fp16.enabled is true: fp32 training cannot be simulated"),
        ({"fp16": {"enabled": True}}, "fp16.enabled: found true, expected false, as bf16 is enabled"),
        ({"bf16__enabled": 1}, "bf16.enabled: found 1, expected true or false"),
        ({"bf16__bf16_master_weights_and_grads": True}, "bf16.bf16_master_weights_and_grads: optimizer states of 16 b"),
        ({"optimizer__type": "Lion"}, "optimizer.type: found 'Lion', expected Adam or AdamW"),
        ({"optimizer__params__torch_adam": True}, "optimizer.params.torch_adam: found true, expected false"),
        ({"communication_data_type": "fp32"}, "communication_data_type: found 'fp32', expected bf16"),
        ({"data_types": {"grad_accum_dtype": "fp32"}}, "data_types.grad_accum_dtype: found 'fp32', expected bf16"),
        ({"activation_checkpointing__cpu_checkpointing": True}, "activation_checkpointing.cpu_checkpointing: checkp"),
        ({"pipeline": {"stages": 2}}, "pipeline: pipeline parallelism cannot be simulated"),
        ({"tensor_parallel": {"autotp_size": 2}}, "tensor_parallel: autotp_size 2 cannot be simulated"),
        ({"data_efficiency": {"data_routing": {"enabled": True}}}, "data_efficiency: a sequence length that changes"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message.replace('?', '[?]')}"):
        read(changed(DS_CONFIG, **changes))


@pytest.mark.parametrize("key", [key for key, (switch, _) in keys.SWITCHED.items() if switch])
def test_what_is_switched_off_is_ignored(key: str) -> None:
    switch, _ = keys.SWITCHED[key]
    assert key in [entry.key for entry in read(changed(DS_CONFIG, **{key: {switch: False}})).ignored]
    with pytest.raises(InputError, match=f"^{key}: .* cannot be simulated"):
        read(changed(DS_CONFIG, **{key: {switch: True}}))


@pytest.mark.parametrize("key", keys.ONLY | keys.ONLY_ZERO)
def test_defaults_written_out_change_nothing(key: str) -> None:
    section = "zero_optimization__" if key in keys.ONLY_ZERO else ""
    value = (keys.ONLY | keys.ONLY_ZERO)[key].value
    assert read(changed(DS_CONFIG, **{f"{section}{key}": value})).data == read(DS_CONFIG).data


# The way back

TRAINING = {
    "micro_batch": st.integers(1, 16),
    "data_parallel": st.integers(1, 16),
    "subgroup_size": st.integers(1, 10**10),
    "reduce_bucket_size": st.integers(1, 10**10),
}


@given(
    st.fixed_dictionaries(TRAINING),
    st.integers(1, 16),
    st.sampled_from(["no_offload", "zero3_offload", "zero3_offload_async_grads"]),
    st.sampled_from([0.0, 0.5, 1.0]) | st.floats(1e-30, 1),
)
def test_keys_of_a_scenario_read_back_are_the_scenario(
    training: dict[str, int], steps: int, scheduler: str, ratio: float
) -> None:
    gpus = training["data_parallel"]
    batch = training["micro_batch"] * steps * gpus
    model = {"layers": 2, "hidden": 64, "ffn_hidden": 64, "heads": 4, "kv_heads": 4, "vocab": 64, "sequence": 16}
    choice = {"name": scheduler} | ({} if scheduler == "no_offload" else {"cpu_ratio": ratio})
    scenario = load_scenario(
        {
            "hardware": "gh200",
            "model": model,
            "training": {**training, "global_batch": batch},
            "scheduler": choice,
        }
    )
    said = recommendation(scenario)
    back = read(json.loads(said.to_json()), gpus=gpus)
    expected = {key: value for key, value in training.items() if key != "data_parallel"}
    assert back.data == {"training": {**expected, "global_batch": batch}, "scheduler": choice}
    assert not back.not_modelled


def test_schedulers_that_deepspeed_does_not_have_need_a_note() -> None:
    scenario = load_scenario("dos_20b_4xh100", ["scheduler.update_stride=3", "training.tensor_parallel=2"])
    said = recommendation(scenario)
    assert any("update stride 3" in note and "10.1145/3652892.3700781" in note for note in said.notes)
    assert any("tensor" in note for note in said.notes)
    assert read(said.keys).data["scheduler"] == {"name": "zero3_offload_async_grads", "cpu_ratio": 1.0}


def test_files_and_scenario(tmp_path: Path) -> None:
    deepspeed, model = write(tmp_path)
    made = import_scenario(deepspeed, model, "dgx-h200", gpus=4, sequence=1024, overrides=["training.micro_batch=1"])
    assert made.scenario.name == "Llama-2-7b-hf"
    assert made.scenario.hardware == "dgx-h200"
    assert made.scenario.model.sequence == 1024
    assert made.scenario.training.micro_batch == 1
    folder = import_scenario(deepspeed, tmp_path, "dgx-h200", gpus=4)
    assert folder.scenario.training.data_parallel == 4


def test_gpus_are_those_of_a_node_where_none_are_given(tmp_path: Path) -> None:
    deepspeed, model = write(tmp_path, batches(..., 2, 2))
    assert import_scenario(deepspeed, model, "dgx-h200").scenario.training.data_parallel == 8


def test_a_model_that_the_simulated_one_is_far_from_is_refused(tmp_path: Path) -> None:
    deepspeed, model = write(tmp_path, model=changed(LLAMA_2_7B, head_dim=256, hidden_size=2048))
    with pytest.raises(InputError, match=r"parameters: counted .*, simulated .*% off"):
        import_scenario(deepspeed, model, "jlse-4xh100")
    import_scenario(deepspeed, model, "jlse-4xh100", overrides=["model.layers=33"])
