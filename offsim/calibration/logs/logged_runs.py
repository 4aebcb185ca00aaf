"""Training logs of DeepSpeed, Megatron and Hugging Face's Trainer, read into rows of a table of measured runs.

What a log does not say stays blank: it is never guessed.
"""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from offsim.calibration.logs.lines import MemoryReport, Moment, Sample, Setting, Whole, facts
from offsim.calibration.logs.log_file import log_lines
from offsim.calibration.logs.trainer_state import state_facts
from offsim.inputs.errors import InputError, suggestion
from offsim.inputs.fields import parsed_number
from offsim.inputs.files import atomic_write
from offsim.schedulers.registry import known_options
from offsim.validation.names import short
from offsim.validation.run_table import OPTIONAL_KEYS, REQUIRED, SHIPPED_RUNS, TIMES, read_rows

MAX_RUNS = 1_000
WARM_UP = 2
"""Iterations at the start that are left out: caches, allocators and clocks settle in them."""

COLUMNS = tuple(next(read_rows(SHIPPED_RUNS)))
"""The columns of the table of measured runs that offsim comes with."""

_TIMERS = ("fwd", "bwd", "bwd_inner", "bwd_allreduce", "step", "optimizer_step")
_MEMORY = tuple(column for column in COLUMNS if column.endswith("_gib"))
NAMES = frozenset((*_TIMERS, *(f"{name}_microstep" for name in _TIMERS), "iteration", "allocated", *_MEMORY))
"""Of samples that are kept."""
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


@dataclass(slots=True)
class Series:
    """The values of one name, of the lowest rank that printed any, and the iteration of each, -1 for none."""

    rank: int
    values: array[float] = field(default_factory=lambda: array("d"))
    iterations: array[int] = field(default_factory=lambda: array("q"))


@dataclass
class LoggedRun:
    """One run in a log."""

    series: str
    settings: dict[str, str] = field(default_factory=dict)
    samples: dict[str, Series] = field(default_factory=dict)
    whole: Whole | None = None
    largest_subgroup: int = 0

    def add(self, sample: Sample) -> None:
        """Keep a sample, behind the earlier ones of its rank, if no lower rank printed any."""
        if sample.name not in NAMES:
            return
        series = self.samples.get(sample.name)
        if series is None or sample.rank < series.rank:
            series = self.samples[sample.name] = Series(sample.rank)
        if sample.rank == series.rank:
            series.values.append(sample.value)
            series.iterations.append(-1 if sample.iteration is None else sample.iteration)

    def values(self, name: str) -> Sequence[float]:
        """The values of that name."""
        return self.samples[name].values if name in self.samples else ()


def read_log(path: str | Path, known: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Read a training log (also gzipped): one row of `COLUMNS` for each run with timings in it.

    A file to which several runs were appended has several. `known` are columns of which the log may say nothing.
    Raises InputError where there are no timings, and for a file beyond the limits of `log_file`.
    """
    path = Path(path)
    rows = []
    for run in _runs(path):
        if run.samples or run.whole:
            rows.append(_row(run, known or {}))
            if len(rows) > MAX_RUNS:
                raise InputError(f"found more than {MAX_RUNS:,} runs, expected a log of fewer", str(path))
    if not rows:
        expected = "a training log of DeepSpeed (wall_clock_breakdown), Megatron or Hugging Face's Trainer"
        raise InputError(f"found no timings or memory reports, expected {expected}", str(path))
    return rows


def missing(row: Mapping[str, str]) -> list[str]:
    """The columns without which a row cannot be predicted or scored, and that it leaves blank."""
    return [column for column in (*REQUIRED, *TIMES) if column != "model" and not row[column]]


def fill(rows: Sequence[dict[str, str]], assignments: Sequence[str]) -> None:
    """Set columns of all rows from `COLUMN=VALUE` texts: what logs cannot say, such as the hardware.

    Beside `COLUMNS` those of schedulers' options are known. Raises InputError for others, and for values that no
    measurement has.
    """
    known = dict.fromkeys((*COLUMNS, *OPTIONAL_KEYS, *(option.column for option in known_options().values())))
    for text in assignments:
        column, separator, value = (part.strip() for part in text.partition("="))
        where = f"--set '{text}'"
        if not separator:
            raise InputError("found no '=', expected COLUMN=VALUE", where)
        if column not in known:
            raise InputError(f"unknown column '{column}'{suggestion(column, known)}", where)
        if not value.isprintable():
            raise InputError(f"found {value!r}, expected text of one line", where)
        if column.endswith(("_ms", "_gib", "_cv")) and not 0 < (parsed_number(value) or 0) < math.inf:
            raise InputError(f"found {value!r}, expected a number above 0", where)
        for row in rows:
            row[column] = value


def write_rows(path: str | Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table of measured runs: `COLUMNS`, and others that any row has."""
    text = io.StringIO()
    columns = dict.fromkeys((*COLUMNS, *(column for row in rows for column in row)))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _runs(path: Path) -> Iterator[LoggedRun]:
    series = path.name.split(".")[0] or path.name
    run = LoggedRun(series)
    moments: dict[int, str] = {}
    state = path.name.endswith((".json", ".json.gz"))
    for found in [state_facts(path)] if state else map(facts, log_lines(path)):
        for fact in found:
            if isinstance(fact, Setting):
                if (run.samples or run.whole) and fact.name in ("num_layers", "train_batch_size"):
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
            elif isinstance(fact, Whole):
                run.whole = fact
            else:
                run.add(fact)
    yield run


def _row(run: LoggedRun, known: Mapping[str, str]) -> dict[str, str]:
    row = dict.fromkeys(COLUMNS, "")
    row["series"] = run.series
    row |= _configuration(run.settings)
    row |= {column: value for column, value in known.items() if not row.get(column)}
    if run.largest_subgroup:
        row["largest_subgroup"] = str(run.largest_subgroup)
    steps = _micro_steps(row)
    for name in _TIMERS:
        values = run.values(name) or _summed(run, f"{name}_microstep", steps)
        if name == "fwd" and values:
            row["iterations"] = str(len(values))
        _put(row, f"{name}_ms", values[WARM_UP:], 1)
    _put_iterations(row, run)
    for column in _MEMORY:
        each = steps if steps and not column.endswith("_step_gib") else 1
        _put(row, column, run.values(column)[WARM_UP * each :], 2)
    if not row["mem_after_step_gib"]:
        _put(row, "mem_after_step_gib", run.values("allocated"), 2)
    return row


def _put_iterations(row: dict[str, str], run: LoggedRun) -> None:
    """Write the time of an iteration: of those after the warm-up; else of all, where the Trainer says no other."""
    elapsed = run.samples.get("iteration")
    if elapsed:
        _put(row, "iteration_ms", _settled(elapsed), 1)
        if not row["iterations"]:
            row["iterations"] = str(max(elapsed.iterations[-1], 0) or len(elapsed.values))
    if run.whole and not row["iteration_ms"]:
        counted = run.whole.steps or int(run.settings.get("optimization_steps", 0))
        estimate = run.whole.seconds * run.whole.per_second
        # The rate has three decimals. A run that was resumed, or stopped early, has fewer steps than were announced.
        steps = counted if abs(counted - estimate) <= 1 + 0.001 * run.whole.seconds else round(estimate)
        if steps > 0:
            _put(row, "iteration_ms", [1e3 * run.whole.seconds / steps], 1)
            row["iterations"] = row["iterations"] or str(steps)


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
    values = run.values(name)
    if not steps:
        return []
    return [math.fsum(values[i : i + steps]) for i in range(0, len(values) - steps + 1, steps)]


def _settled(elapsed: Series) -> Sequence[float]:
    """Means over iterations that begin after the warm-up; a line stands for all since the line before."""
    values, numbers = elapsed.values, elapsed.iterations
    if min(numbers) < 0:
        return values[WARM_UP:]
    # A run resumed from a checkpoint counts on from there: how far the first line goes back, the second one tells.
    before = 2 * numbers[0] - numbers[1] if len(numbers) > 1 else 0
    # the first line has the warm-up in it
    return [value for value, done in zip(values[1:], numbers, strict=False) if done - before >= WARM_UP]


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
