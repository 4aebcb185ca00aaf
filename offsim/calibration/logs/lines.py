"""What one line of a training log says: timings, memory, settings, as DeepSpeed, Megatron and Hugging Face print them.

Lines may carry any prefix (time, host, `[Rank 0]`, `3:` of srun, `[default3]:` of torchrun), hold what two ranks
printed at once, or be cut off: what is not complete is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MEBIBYTES_PER_GIBIBYTE = 1024


class Setting(NamedTuple):
    """Part of the configuration, under the name that it is printed under."""

    name: str
    value: str


class Sample(NamedTuple):
    """A timer's milliseconds or a memory report's GiB; `iteration` where the line counts iterations."""

    rank: int
    name: str
    value: float
    iteration: int | None = None


class Moment(NamedTuple):
    """The line above a memory report: when it is taken; no name where that is not around a phase."""

    rank: int
    name: str


class MemoryReport(NamedTuple):
    """GiB allocated, now and at most since the last report."""

    rank: int
    allocated: float
    peak: float


class Whole(NamedTuple):
    """What the Trainer says at its end: seconds of all iterations, how many a second, and how many (0: not said)."""

    seconds: float
    per_second: float
    steps: int = 0


Fact = Setting | Sample | Moment | MemoryReport | Whole

_ARGUMENTS = (
    *("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_key_value_heads", "num_query_groups"),
    *("group_query_attention", "seq_length", "padded_vocab_size", "swiglu", "untie_embeddings_and_output_weights"),
    *("checkpoint_activations", "recompute_granularity", "use_flash_attn", "use_flash_attn_v1", "use_flash_attn_v2"),
    *("use_flash_attn_triton", "use_flash_attn_builder", "tensor_model_parallel_size", "data_parallel_size"),
    *("micro_batch_size", "global_batch_size", "train_batch_size", "train_micro_batch_size_per_gpu"),
    *("gradient_accumulation_steps", "zero_config"),
)
"""Settings that Megatron's dump of arguments and DeepSpeed's of its configuration may have."""

# Digits are bounded: a number of thousands of them is damage, not a value.
_NUMBER = r"(\d{1,18}(?:\.\d{1,18})?(?:[eE][-+]?\d{1,2})?)(?![\d.])"
_WHOLE = r"(\d{1,15})"
# "name ..... value"; DeepSpeed prints no dots behind names as long as its columns
_SETTING = re.compile(rf"(?:^|[\s\]])({'|'.join(_ARGUMENTS)}) \.* (\S.*)")
_JSON = re.compile(
    r'"(train_batch_size|train_micro_batch_size_per_gpu|gradient_accumulation_steps|sub_group_size)"\s*:\s*' + _NUMBER
)
_STAGE = re.compile(r"\bstage['\"]?\s*[=:]\s*(\d)")
_SUBGROUP_SIZE = re.compile(rf"\bsub_group_size['\"]?\s*[=:]\s*{_NUMBER}")
_OFFLOAD = re.compile(r"\boffload_optimizer['\"]?\s*[=:]\s*(None|[^)}]*)")
_DEVICE = re.compile(r"\bdevice['\"]?\s*[=:]\s*(?:<\w+\.)?['\"]?(cpu|nvme|none)")
_RATIO = re.compile(rf"\bratio['\"]?\s*[=:]\s*{_NUMBER}")

_PREFIX_RANK = re.compile(rf"^\s*(?:{_WHOLE}: |\[(?:default|rank){_WHOLE}\])")
_OWN_RANK = re.compile(rf"\[Rank {_WHOLE}\]|\brank={_WHOLE} ")
_PIECES = re.compile(r"(?=\[Rank \d+\]|\brank=\d+ |\btime \(ms\) \|)")
_TIMER = re.compile(rf"\|\s*(\w+): {_NUMBER}")
_ITERATION = re.compile(rf"\biteration\s+{_WHOLE}\s*/\s*\d+\s*\|")
_ELAPSED = re.compile(rf"elapsed time per iteration \((ms|s)\): {_NUMBER}")
_MEMORY = re.compile(rf"\bMA {_NUMBER} GB\s+Max_MA {_NUMBER} GB")
_MOMENT = re.compile(r"\b(before|after) (forward|backward|step)\b", re.IGNORECASE)
_MEGATRON_MEMORY = re.compile(rf"memory \(MB\) \| allocated: {_NUMBER}\s*\|")
_SUBGROUPS = re.compile(rf"\bAfter creating fp16 partitions: {_WHOLE}")
_SUBGROUP = re.compile(rf"\bInitialize optimizer states {_WHOLE} ?/ ?{_WHOLE} subgroups, num_elems: {_WHOLE}")
_PARAMETERS = re.compile(rf"number of parameters on \(tensor, pipeline\) model parallel rank \(0, 0\): {_WHOLE}")
_WHOLE_RUN = re.compile(rf"'train_runtime': '?{_NUMBER}'?,.*'train_steps_per_second': '?{_NUMBER}")
_TRAINER_NAMES = {
    "Instantaneous batch size per device": "train_micro_batch_size_per_gpu",
    "Total train batch size (w. parallel, distributed & accumulation)": "train_batch_size",
    "Gradient Accumulation steps": "gradient_accumulation_steps",
    "Total optimization steps": "optimization_steps",
    "Number of trainable parameters": "parameters",
}
"""What the Trainer calls settings as it begins -> the names of `_ARGUMENTS`."""
_TRAINER = re.compile(rf"  ({'|'.join(map(re.escape, _TRAINER_NAMES))}) = ([\d,]{{1,20}})(?![\d.])")
_VOCABULARY = re.compile(rf"padded vocab \(size: \d+\) with \d+ dummy tokens \(new size: {_WHOLE}\)")

WORDS = (
    *("time (ms) |", "elapsed time per iteration", "MA ", "memory (MB) |", "see_memory_usage]", "train_runtime"),
    *("efore ", "fter ", "_size", "num_", "seq_length", "swiglu", "untie_", "checkpoint_activations"),
    *("recompute_", "use_flash_attn", "group_query", "gradient_accumulation_steps", "zero_config"),
    *("number of parameters", "padded vocab", " batch size ", "Accumulation steps", "optimization steps"),
    "trainable parameters",
)
"""Every line that says something has one of these; most lines of a log have none."""


def facts(line: str) -> Iterator[Fact]:
    """What a line says, in its order; nothing for the many lines that say nothing of this."""
    prefix = _PREFIX_RANK.match(line)
    rank = int(prefix[1] or prefix[2]) if prefix else 0
    if "time (ms) |" not in line:
        yield from _settings(line)
    for piece in _PIECES.split(line) if "(ms)" in line or "ank" in line else (line,):
        if own := _OWN_RANK.match(piece):
            rank = int(own[1] or own[2])
        yield from _samples(piece, rank)


def _samples(piece: str, rank: int) -> Iterator[Fact]:
    # Words are looked for first: that takes a fraction of an expression's time.
    if piece.startswith("time (ms) |"):
        for name, value in _TIMER.findall(piece):
            yield Sample(rank, name, float(value))
    if "elapsed" in piece and (elapsed := _ELAPSED.search(piece)):
        count = _ITERATION.search(piece)
        milliseconds = float(elapsed[2]) * (1e3 if elapsed[1] == "s" else 1)
        yield Sample(rank, "iteration", milliseconds, int(count[1]) if count else None)
    if "MA " in piece and (memory := _MEMORY.search(piece)):
        yield MemoryReport(rank, float(memory[1]), float(memory[2]))
    elif ("efore " in piece or "fter " in piece) and (moment := _MOMENT.search(piece)):
        yield Moment(rank, f"{moment[1]}_{moment[2]}".lower())
    elif "see_memory_usage]" in piece:
        yield Moment(rank, "")
    if "memory (MB)" in piece and (memory := _MEGATRON_MEMORY.search(piece)):
        yield Sample(rank, "allocated", float(memory[1]) / MEBIBYTES_PER_GIBIBYTE)
    if "train_runtime" in piece and (whole := _WHOLE_RUN.search(piece)):
        yield Whole(float(whole[1]), float(whole[2]))


def _settings(line: str) -> Iterator[Setting]:
    if found := _SETTING.search(line):
        if found[1] == "zero_config":
            yield from _zero(found[2])
        else:
            yield Setting(found[1], found[2].rstrip())
    elif found := _JSON.search(line):
        yield Setting(found[1], found[2])
    elif found := _SUBGROUPS.search(line):
        yield Setting("subgroups", found[1])
    elif found := _SUBGROUP.search(line):
        yield Setting("subgroups", found[2])
        yield Setting("subgroup_elements", found[3])
    elif found := _PARAMETERS.search(line):
        yield Setting("parameters", found[1])
    elif found := _VOCABULARY.search(line):
        yield Setting("padded_vocab_size", found[1])
    elif found := _TRAINER.search(line):
        yield Setting(_TRAINER_NAMES[found[1]], found[2].replace(",", ""))


def _zero(text: str) -> Iterator[Setting]:
    """DeepSpeed's ZeRO section, printed as a dictionary or as pydantic's `name=value`."""
    if found := _STAGE.search(text):
        yield Setting("stage", found[1])
    if found := _SUBGROUP_SIZE.search(text):
        yield Setting("sub_group_size", found[1])
    if offload := _OFFLOAD.search(text):
        device = _DEVICE.search(offload[1])
        yield Setting("offload_device", device[1] if device else "none")
        if ratio := _RATIO.search(offload[1]):
            yield Setting("ratio", ratio[1])
