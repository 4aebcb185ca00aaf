"""Training logs of DeepSpeed and Megatron, read into rows of a table of measured runs.

What a log does not say stays blank: it is never guessed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from offsim.calibration.logs.lines import MemoryReport, Moment, Sample, Setting, facts
from offsim.inputs.errors import InputError, suggestion
from offsim.inputs.files import atomic_write
from offsim.inputs.reading import reading, unpacked
from offsim.schedulers.registry import known_options
from offsim.validation.names import short
from offsim.validation.run_table import REQUIRED, SHIPPED_RUNS, TIMES, read_rows

MAX_BYTES = 4_000_000_000
MAX_LINE = 200_000
"""Bytes of a line that are looked at: a configuration printed in one line has some thousands."""
WARM_UP = 2
"""Iterations at the start that are left out: caches, allocators and clocks settle in them."""

COLUMNS = tuple(next(read_rows(SHIPPED_RUNS)))
"""The columns of the table of measured runs that offsim comes with."""

_TIMERS = ("fwd", "bwd", "bwd_inner", "bwd_allreduce", "step", "optimizer_step")
_PLAIN = {
    "num_layers": "layers",
    "hidden_size": "hidden",
    "ffn_hidden_size": "ffn_hidden",
    "num_attention_heads": "heads",
    "seq_length": "seq",
    "padded_vocab_size": "vocab",
    "swiglu": "swiglu",
    "untie_embeddings_and_output_weights": "untied",
    "parameters": "params_per_tp_rank",
    "tensor_model_parallel_size": "tp",
    "subgroups": "subgroups",
}


@dataclass
class LoggedRun:
    """One run in a log."""

    series: str
    settings: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[int, list[Sample]]] = field(default_factory=dict)
    largest_subgroup: int = 0

    def add(self, sample: Sample) -> None:
        """Keep a sample, behind the earlier ones of its rank."""
        self.samples.setdefault(sample.name, {}).setdefault(sample.rank, []).append(sample)

    def first_rank(self, name: str) -> list[Sample]:
        """The samples of that name of the lowest rank that printed any."""
        ranks = self.samples.get(name, {})
        return ranks[min(ranks)] if ranks else []


def read_log(path: str | Path) -> list[dict[str, str]]:
    """Read a training log (also gzipped): one row of `COLUMNS` for each run with timings in it.

    A file to which several runs were appended has several. Raises InputError where there are none.
    """
    path = Path(path)
    runs = [run for run in _runs(path) if run.samples]
    if not runs:
        expected = "a training log of DeepSpeed (wall_clock_breakdown) or Megatron"
        raise InputError(f"found no timings or memory reports, expected {expected}", str(path))
    return [_row(run) for run in runs]


def missing(row: Mapping[str, str]) -> list[str]:
    """The columns without which a row cannot be predicted or scored, and that it leaves blank."""
    return [column for column in (*REQUIRED, *TIMES) if column != "model" and not row[column]]


def fill(rows: Sequence[dict[str, str]], assignments: Sequence[str]) -> None:
    """Set columns of all rows from `COLUMN=VALUE` texts: what logs cannot say, such as the hardware."""
    for text in assignments:
        column, separator, value = (part.strip() for part in text.partition("="))
        if not separator:
            raise InputError("found no '=', expected COLUMN=VALUE", f"--set '{text}'")
        if column not in COLUMNS:
            raise InputError(f"unknown column '{column}'{suggestion(column, COLUMNS)}", f"--set '{text}'")
        for row in rows:
            row[column] = value


def write_rows(path: str | Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table of measured runs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _runs(path: Path) -> Iterator[LoggedRun]:
    series = path.name.split(".")[0] or path.name
    run = LoggedRun(series)
    moments: dict[int, str] = {}
    for line in _lines(path):
        for fact in facts(line):
            if isinstance(fact, Setting):
                if run.samples and fact.name in ("num_layers", "train_batch_size"):
                    yield run  # the next run's configuration: this log was appended to
                    run, moments = LoggedRun(series), {}
                if fact.name == "subgroup_elements":
                    run.largest_subgroup = max(run.largest_subgroup, int(fact.value))
                else:
                    run.settings[fact.name] = fact.value
            elif isinstance(fact, Moment):
                moments[fact.rank] = fact.name
            elif isinstance(fact, MemoryReport):
                if moment := moments.pop(fact.rank, None):
                    run.add(Sample(fact.rank, f"mem_{moment}_gib", fact.allocated))
                    run.add(Sample(fact.rank, f"peak_{moment}_gib", fact.peak))
            else:
                run.add(fact)
    yield run


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, each as far as it is looked at; the last one only if it is complete."""
    with reading(path, "a training log") as file:
        yield from _decoded(unpacked(file), str(path))


def _decoded(file: IO[bytes], where: str) -> Iterator[str]:
    total = 0
    begins = True  # else this is the rest of a line too long to be looked at
    try:
        while raw := file.readline(MAX_LINE):
            total += len(raw)
            if total > MAX_BYTES:
                raise InputError(f"found more than {MAX_BYTES} bytes, expected a training log", where)
            ends = raw.endswith(b"\n")
            if begins and (ends or len(raw) == MAX_LINE):
                # Progress bars overwrite themselves with carriage returns, and share lines with what is logged.
                yield from raw.decode("utf-8", errors="replace").rstrip("\n").split("\r")
            begins = ends
    except EOFError:
        return  # the end of a gzip file is cut off: what came before it counts


def _row(run: LoggedRun) -> dict[str, str]:
    row = dict.fromkeys(COLUMNS, "")
    row["series"] = run.series
    row |= _configuration(run.settings)
    if run.largest_subgroup:
        row["largest_subgroup"] = str(run.largest_subgroup)
    steps = _micro_steps(row)
    for name in _TIMERS:
        values = [sample.value for sample in run.first_rank(name)] or _summed(run, f"{name}_microstep", steps)
        if name == "fwd" and values:
            row["iterations"] = str(len(values))
        _put(row, f"{name}_ms", values[WARM_UP:], 1)
    elapsed = run.first_rank("iteration")
    _put(row, "iteration_ms", _settled(elapsed), 1)
    if elapsed and not row["iterations"]:
        row["iterations"] = str(elapsed[-1].iteration or len(elapsed))
    for column in COLUMNS:
        if column.endswith("_gib"):
            reports = [sample.value for sample in run.first_rank(column)]
            each = steps if steps and not column.endswith("_step_gib") else 1
            _put(row, column, reports[WARM_UP * each :], 2)
    if not row["mem_after_step_gib"]:
        _put(row, "mem_after_step_gib", [sample.value for sample in run.first_rank("allocated")], 2)
    return row


def _put(row: dict[str, str], column: str, values: Sequence[float], digits: int) -> None:
    """Write the median, and how much the values vary where the table has a column for it."""
    if not values:
        return
    row[column] = f"{np.median(values):.{digits}f}"
    variation = column.removesuffix("_ms") + "_cv"
    if variation in COLUMNS and (mean := np.mean(values)) > 0:
        row[variation] = f"{np.std(values) / mean:.4f}"


def _micro_steps(row: Mapping[str, str]) -> int | None:
    """Micro-steps of an iteration, where the row says how many there are."""
    try:
        step = int(row["micro_batch"]) * int(row["dp"])
        return int(row["global_batch"]) // step
    except (ValueError, ZeroDivisionError):
        return None


def _summed(run: LoggedRun, name: str, steps: int | None) -> list[float]:
    """Times of iterations from those of their micro-steps; nothing where it is not known how many belong together."""
    values = [sample.value for sample in run.first_rank(name)]
    if not steps:
        return []
    return [math.fsum(values[i : i + steps]) for i in range(0, len(values) - steps + 1, steps)]


def _settled(elapsed: Sequence[Sample]) -> list[float]:
    """Means over iterations that begin after the warm-up; a line stands for all since the line before."""
    counts = [sample.iteration for sample in elapsed]
    numbers = [count for count in counts if count is not None]
    if len(numbers) < len(counts):
        return [sample.value for sample in elapsed[WARM_UP:]]
    # A run resumed from a checkpoint counts on from there: how far the first line goes back, the second one tells.
    before = 2 * numbers[0] - numbers[1] if len(numbers) > 1 else 0
    return [
        sample.value
        for sample, done in zip(elapsed[1:], numbers, strict=False)  # the first line has the warm-up in it
        if done - before >= WARM_UP
    ]


def _configuration(settings: Mapping[str, str]) -> dict[str, str]:
    """The configuration columns that the settings determine."""
    found = {column: settings[name] for name, column in _PLAIN.items() if settings.get(name, "None") != "None"}
    found |= _attention(settings)
    found |= _batches(settings)
    if size := settings.get("sub_group_size"):
        found["subgroup_size"] = f"{float(size):.0f}"
    if without := settings.get("stage") == "3" and settings.get("offload_device") == "none":
        found["scheduler"] = "no_offload"
    for option in known_options().values():
        key = option.deepspeed.rpartition(".")[2]
        if key and option.column in COLUMNS and (without or key in settings):
            found[option.column] = short(str(option.default if without else settings[key]))
    if "recompute_granularity" in settings or "checkpoint_activations" in settings:
        full = settings.get("recompute_granularity") == "full"
        found["checkpointing"] = str(full or settings.get("checkpoint_activations") == "True")
    return found


def _attention(settings: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    heads = settings.get("num_attention_heads", "")
    groups = settings.get("num_key_value_heads")
    if groups is None and "group_query_attention" in settings:
        groups = settings.get("num_query_groups") if settings["group_query_attention"] == "True" else "None"
    if groups is not None:
        found["kv_heads"] = heads if groups == "None" else groups
    flash = [value for name, value in settings.items() if name.startswith("use_flash_attn")]
    if flash:
        found["flash_attn"] = str("True" in flash)
    return found


def _batches(settings: Mapping[str, str]) -> dict[str, str]:
    """Batch sizes and ranks: Megatron prints all three, DeepSpeed the accumulation steps in place of the ranks."""
    micro = _count(settings, "micro_batch_size", "train_micro_batch_size_per_gpu")
    batch = _count(settings, "global_batch_size", "train_batch_size")
    ranks = _count(settings, "data_parallel_size")
    if not ranks and micro and batch and (steps := _count(settings, "gradient_accumulation_steps")):
        ranks = batch // (micro * steps)
    found = {"micro_batch": micro, "global_batch": batch, "dp": ranks}
    return {column: str(count) for column, count in found.items() if count}


def _count(settings: Mapping[str, str], *names: str) -> int:
    """The first of these settings that is a whole number; 0 where none is."""
    for name in names:
        try:
            return int(float(settings[name]))
        except (KeyError, ValueError, OverflowError):
            continue
    return 0
