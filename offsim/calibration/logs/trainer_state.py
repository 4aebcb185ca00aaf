"""Hugging Face's trainer_state.json: the history of what its Trainer logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from offsim.calibration.logs.lines import Fact, Sample, Setting, Whole
from offsim.inputs.errors import InputError
from offsim.inputs.reading import read_at_most, reading, unpacked

MAX_BYTES = 64_000_000
RUNTIME, RATE = "train_runtime", "train_steps_per_second"


def state_facts(path: Path) -> Iterator[Fact]:
    """What a trainer_state.json says; raise InputError where it is none, or has no times.

    The last entry has the seconds of the run. Every entry has those so far, and so the time of the steps in between,
    where TrainingArguments say `include_num_input_tokens_seen`.
    """
    import orjson

    with reading(path, "a trainer_state.json") as file:
        text = read_at_most(unpacked(file), MAX_BYTES, "a trainer_state.json", path)
    try:
        state = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error}", str(path)) from None
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise InputError(
            "missing key 'log_history': expected a trainer_state.json of Hugging Face's Trainer", str(path)
        )
    times = [
        entry for entry in history if isinstance(entry, dict) and _positive(entry, RUNTIME) and _positive(entry, "step")
    ]
    if not times:
        problem = f"found no {RUNTIME} in log_history, expected the file of a run that has ended"
        raise InputError(f"{problem}, or that logs tokens (include_num_input_tokens_seen)", str(path))
    if _positive(state, "train_batch_size"):
        yield Setting("train_micro_batch_size_per_gpu", str(state["train_batch_size"]))
    last = times[-1]
    if _positive(last, RATE):
        yield Whole(last[RUNTIME], last[RATE], int(last["step"]))
    sofar = [{"step": 0, RUNTIME: 0.0}, *(entry for entry in times if RATE not in entry)]
    for before, entry in pairwise(sofar):
        steps = entry["step"] - before["step"]
        seconds = entry[RUNTIME] - before[RUNTIME]
        if steps > 0 and seconds > 0:
            yield Sample(0, "iteration", 1e3 * seconds / steps, int(entry["step"]))


def _positive(entry: Mapping[str, Any], key: str) -> bool:
    value = entry.get(key)
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15
