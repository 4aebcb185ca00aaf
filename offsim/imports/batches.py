"""Batch sizes as DeepSpeed completes them: train_batch_size = micro batch x accumulation steps x GPUs."""

from __future__ import annotations

from math import prod

from offsim.imports.draft import Draft
from offsim.imports.keys import Section

TRAIN = "train_batch_size"
MICRO = "train_micro_batch_size_per_gpu"
STEPS = "gradient_accumulation_steps"
KEYS = (TRAIN, MICRO, STEPS)

TRAINER_MICRO = 8
"""TrainingArguments.per_device_train_batch_size of Hugging Face, which fills "auto", where nothing else is set."""


def take_batches(top: Section, draft: Draft, gpus: int) -> None:
    """Complete the sizes from those that are given; raise InputError where they contradict each other."""
    train, micro, steps = (top.count(key) for key in KEYS)
    completed = "completed from the other sizes"
    of_micro, of_train = "" if micro else completed, "" if train else completed
    assumed = train is None and micro is None
    if assumed:
        if not top.is_auto(MICRO):
            raise top.document.error((), f"missing key '{TRAIN}' or '{MICRO}': expected at least one of them")
        micro = TRAINER_MICRO
        of_micro = "the default of Hugging Face's TrainingArguments; --set does"
    if train is not None:
        _check_product(top, train, gpus)
        if micro is None:
            micro = train // ((steps or 1) * gpus)
        steps = train // (micro * gpus)
    assert micro is not None
    steps = steps or 1
    draft.take(top, MICRO, "training.micro_batch", micro, of_micro, assumed=assumed)
    draft.take(top, TRAIN, "training.global_batch", micro * steps * gpus, of_train, assumed=False)
    if STEPS in top:
        draft.use(top, STEPS, f"{steps} micro-steps an iteration, by the batch sizes")


def _check_product(top: Section, train: int, gpus: int) -> None:
    sizes = {key: size for key in (MICRO, STEPS) if (size := top.count(key)) is not None} | {"GPUs": gpus}
    words, numbers, product = " x ".join(sizes), " x ".join(map(str, sizes.values())), prod(sizes.values())
    if len(sizes) == 3 and train != product:
        raise top.unexpected(TRAIN, f"{words} ({numbers} = {product})")
    if train % product:
        raise top.unexpected(TRAIN, f"a multiple of {words} ({numbers})")
