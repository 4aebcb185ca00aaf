"""Logs in the formats of DeepSpeed (0.9 and later) and Megatron-DeepSpeed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

STAMP = "[2024-03-05 10:11:12,345] [INFO] "

ARGUMENTS = {
    "checkpoint_activations": True, "data_parallel_size": 4, "ffn_hidden_size": 13632, "global_batch_size": 4,
    "hidden_size": 5120, "micro_batch_size": 1, "num_attention_heads": 40, "num_key_value_heads": 4, "num_layers": 40,
    "seq_length": 2048, "swiglu": True, "tensor_model_parallel_size": 1, "untie_embeddings_and_output_weights": True,
    "use_flash_attn": False, "use_flash_attn_v2": False, "world_size": 4,
}  # fmt: skip
ZERO = (
    "stage=3 contiguous_gradients=True reduce_scatter=True reduce_bucket_size=500000000 allgather_partitions=True "
    "overlap_comm=True load_from_fp32_weights=True offload_param=None "
    "offload_optimizer=DeepSpeedZeroOffloadOptimizerConfig(device='cpu', nvme_path=None, buffer_count=4, "
    "pin_memory=False, pipeline=False, pipeline_read=False, pipeline_write=False, fast_init=False, ratio=0.8) "
    "sub_group_size=100000000 cpu_offload=None prefetch_bucket_size=50,000,000"
)
ZERO_AS_DICTIONARY = (
    "{'stage': 3, 'reduce_bucket_size': 5e8, 'sub_group_size': 1e8, 'offload_optimizer': {'device': 'cpu', "
    "'nvme_path': None, 'ratio': 0.8}, 'overlap_comm': True}"
)


def megatron_arguments(arguments: Mapping[str, object] = ARGUMENTS) -> list[str]:
    """Megatron's dump."""
    lines = [f"  {name} {'.' * (48 - len(name))} {value}" for name, value in arguments.items()]
    return [
        "------------------------ arguments ------------------------",
        *lines,
        "-------------------- end of arguments ---------------------",
        " > padded vocab (size: 50257) with 47 dummy tokens (new size: 50304)",
        " > number of parameters on (tensor, pipeline) model parallel rank (0, 0): 11197895680",
    ]


def deepspeed_configuration(zero: str = ZERO, batch: int = 4, steps: int = 1) -> list[str]:
    """DeepSpeed's dump, and the number of sub-groups that ZeRO prints."""
    values = {
        "gradient_accumulation_steps": steps, "train_batch_size": batch, "train_micro_batch_size_per_gpu": 1,
        "world_size": 4, "zero_config": zero, "zero_enabled": True,
    }  # fmt: skip
    return [
        f"{STAMP}[config.py:988:print] DeepSpeedEngine configuration:",
        *(f"{STAMP}[config.py:992:print]   {k} {'.' * (29 - len(k))} {v}" for k, v in values.items()),
        f"{STAMP}[utils.py:803:see_memory_usage] After creating fp16 partitions: 81",
        *memory(10.0, 10.0),
    ]


def memory(allocated: float, peak: float) -> list[str]:
    """What see_memory_usage prints below its message."""
    return [
        f"{STAMP}[utils.py:804:see_memory_usage] MA {allocated} GB         Max_MA {peak} GB         "
        f"CA {peak} GB         Max_CA {round(peak)} GB ",
        f"{STAMP}[utils.py:811:see_memory_usage] CPU Virtual Memory:  used = 80.1 GB, percent = 15.9%",
    ]


def timers(values: Mapping[str, float], rank: int = 0) -> str:
    """A line of wall_clock_breakdown."""
    fields = " | ".join(f"{name}: {value:.2f}" for name, value in values.items())
    return f"{STAMP}[logging.py:96:log_dist] [Rank {rank}] time (ms) | {fields}"


def iteration(
    number: int, forward: float = 1256.0, backward: float = 11038.7, step: float = 7920.3, extra: Sequence[str] = ()
) -> list[str]:
    """All that an iteration without accumulation prints."""
    whole = {"fwd": forward, "bwd": backward, "bwd_inner": backward - 160, "bwd_allreduce": 160.0, "step": step}
    lines = []
    for phase, allocated, peak in (("forward", 27.88, 30.18), ("backward", 23.06, 30.99), ("step", 23.06, 23.06)):
        lines.append(f"{STAMP}[utils.py:803:see_memory_usage] Engine before {phase}")
        lines += memory(23.06, 23.06)
        lines.append(f"{STAMP}[utils.py:803:see_memory_usage] Engine after {phase}")
        lines += memory(allocated, peak)
    return [
        *lines,
        timers({"optimizer_step": step - 30}),
        timers({f"{name}_microstep": value for name, value in whole.items()}),
        timers(whole),
        *extra,
        f" iteration {number:8d}/     100 | consumed samples: {4 * number:12d} | consumed tokens: "
        f"{8192 * number:12d} | elapsed time per iteration (ms): {forward + backward + step + 365:.1f} | "
        "learning rate: 1.500E-04 | global batch size:     4 | lm loss: 1.1E+01 | loss scale: 1.0 | grad norm: 2.2 |",
    ]


def whole_log(iterations: int = 10, zero: str = ZERO, **times: float) -> list[str]:
    """A run: slow in its first two iterations, then at 0.1 % below and above its times by turns."""
    lines = [*megatron_arguments(), *deepspeed_configuration(zero)]
    base = {"forward": 1256.0, "backward": 11038.7, "step": 7920.3} | times
    for number in range(1, iterations + 1):
        factor = 3.0 if number <= 2 else 1 + 0.001 * (-1) ** number
        lines += iteration(number, **{name: factor * value for name, value in base.items()})
        if number == 3:
            lines.append(
                "[Rank 0] (after 3 iterations) memory (MB) | allocated: 23613.4 | max allocated: 31733.8 | "
                "reserved: 35000.0 | max reserved: 35000.0"
            )
    return lines
