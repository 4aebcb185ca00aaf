"""All measurements and schedules that the folder does not have yet, and how long they are going to take."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch

from .background import background_work, running
from .copies import copies
from .folder import ResultFolder
from .gpu_kernels import elementwise_kernels, launches, matrix_products
from .host_kernels import host_kernels
from .measurement import IDLE, Bench, Measurement, key_of, repeat
from .reference import TOLERANCE, Mismatch
from .training import SCHEDULES, Plan, Schedule, train


def microbenchmarks(bench: Bench) -> list[Measurement]:
    """Return the measurements; none has begun."""
    found = list(host_kernels(bench))
    if bench.device.cuda:
        found += [*copies(bench), *elementwise_kernels(bench)]
    return [*found, *matrix_products(bench), *launches(bench)]


def measure_everything(folder: ResultFolder, bench: Bench, plan: Plan) -> bool:
    """Add what is missing to the folder; return whether all went well."""
    listed = microbenchmarks(bench)
    measured, trained = folder.measured(), folder.trained()
    to_measure = [measurement for measurement in listed if key_of(measurement.row([])) not in measured]
    to_train = [schedule for schedule in SCHEDULES if schedule.name not in trained]
    if folder.resumes:
        print(f"{len(listed) - len(to_measure)} measurements and {len(SCHEDULES) - len(to_train)} schedules are done")
    tasks: list[tuple[str, Callable[[], str]]] = [
        *((str(measurement), partial(_measure, folder, bench, measurement)) for measurement in to_measure),
        *((f"training, {schedule.name}", partial(_train, folder, bench, schedule, plan)) for schedule in to_train),
    ]
    estimates = [0.1 if bench.quick else 1.2] * len(to_measure) + [1.5 if bench.quick else 35.0] * len(to_train)
    total = len(listed) + len(SCHEDULES)
    well, start = True, time.perf_counter()
    for done, (name, task) in enumerate(tasks, 1):
        print(f"[{total - len(tasks) + done}/{total}] {name} ... ", end="", flush=True)
        try:
            found = task()
        except (torch.cuda.OutOfMemoryError, Mismatch) as error:
            well = False
            found = f"left out: {error if isinstance(error, Mismatch) else 'out of GPU memory'}"
        slower = (time.perf_counter() - start) / sum(estimates[:done])  # than estimated, all in all
        left_s = slower * sum(estimates[done:])
        print(f"{found}  (about {f'{left_s / 60:.0f} min' if left_s >= 90 else f'{left_s:.0f} s'} left)", flush=True)
    return well


def _measure(folder: ResultFolder, bench: Bench, measurement: Measurement) -> str:
    timer, condition = measurement.prepare(), measurement.condition
    with nullcontext() if condition == IDLE else running(background_work(bench, condition)):
        seconds = repeat(timer, *((0.02, 3, 5) if bench.quick else (0.4, 5, 50)))
    folder.add_measurement(measurement.row(seconds))
    return measurement.rate(seconds)


def _train(folder: ResultFolder, bench: Bench, schedule: Schedule, plan: Plan) -> str:
    gc.collect()  # the preceding model and its hooks refer to each other
    bench.let_go()
    row = train(schedule, plan, bench.device, bench.threads, folder.traces)
    folder.add_training(row)
    times = ", ".join(f"{phase} {row[f'{phase}_ms']:.4g} ms" for phase in ("fwd", "bwd", "step"))
    return f"{times}; equals plain AdamW within {row['parameter_difference']:.2g} (tolerance {TOLERANCE:g})"
