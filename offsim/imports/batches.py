"""Batch sizes as DeepSpeed completes them: train_batch_size = micro batch x accumulation steps x GPUs."""

from __future__ import annotations

from math import prod

from offsim.imports import trainer as huggingface
from offsim.imports.draft import Draft
from offsim.imports.keys import Section
from offsim.results.units import plural

TRAIN = "train_batch_size"
MICRO = "train_micro_batch_size_per_gpu"
STEPS = "gradient_accumulation_steps"
KEYS = (TRAIN, MICRO, STEPS)

ASSUMED = "the default of Hugging Face's TrainingArguments; --trainer or --set says otherwise"


def take_batches(top: Section, trainer: Section, draft: Draft, gpus: int, *, accumulates: bool = True) -> None:
    """Complete the sizes from those that are given; raise InputError where they contradict each other.

    Unless it `accumulates`, as with ZenFlow, which sets the accumulation steps itself, an iteration is a micro-step.
    """
    train, micro, steps = (top.count(key) for key in KEYS)
    if trainer.values:
        micro = _agreed(top, MICRO, trainer, huggingface.MICRO, draft)
        steps = _agreed(top, STEPS, trainer, huggingface.STEPS, draft)
    completed = "completed from the other sizes"
    of_micro, of_train = "" if micro else completed, "" if train else completed
    assumed = train is None and micro is None
    if assumed:
        if not top.is_auto(MICRO):
            raise top.document.error((), f"missing key '{TRAIN}' or '{MICRO}': expected at least one of them")
        micro, of_micro = huggingface.DEFAULTS[huggingface.MICRO], ASSUMED
    if train is not None:
        sizes = {MICRO: micro, STEPS: steps}
        _check_product(top, train, {key: size for key, size in sizes.items() if size is not None} | {"GPUs": gpus})
        if micro is None:
            micro = train // ((steps or 1) * gpus)
        steps = train // (micro * gpus)
    assert micro is not None
    if not accumulates:
        steps, of_train = 1, "of a step: ZenFlow sets the accumulation steps to its interval"
    steps = steps or 1
    draft.take(top, MICRO, "training.micro_batch", micro, of_micro, assumed=assumed)
    draft.take(top, TRAIN, "training.global_batch", micro * steps * gpus, of_train, assumed=False)
    if STEPS in top:
        draft.use(top, STEPS, f"{plural(steps, 'micro-step')} an iteration, by the batch sizes")


def take_trainer_batches(trainer: Section, draft: Draft, gpus: int) -> None:
    """Take the sizes of TrainingArguments, which have defaults."""
    micro, steps = (trainer.count(key) or default for key, default in huggingface.DEFAULTS.items())
    why = {key: "" if key in trainer else ASSUMED for key in huggingface.DEFAULTS}
    draft.take(trainer, huggingface.MICRO, "training.micro_batch", micro, why[huggingface.MICRO])
    of_steps = "; ".join(filter(None, (f"{plural(steps, 'micro-step')} an iteration", why[huggingface.STEPS])))
    draft.take(trainer, huggingface.STEPS, "training.global_batch", micro * steps * gpus, of_steps)


def _agreed(top: Section, key: str, trainer: Section, theirs: str, draft: Draft) -> int:
    """A size that DeepSpeed's file leaves to the Trainer, or has the same as TrainingArguments."""
    own, said = top.count(key), trainer.count(theirs) or huggingface.DEFAULTS[theirs]
    if own not in (None, said):
        raise top.unexpected(key, f"{said}, as {theirs} of TrainingArguments")
    draft.use(trainer, theirs, f"{key} {said}")
    return said


def _check_product(top: Section, train: int, sizes: dict[str, int]) -> None:
    words, numbers, product = " x ".join(sizes), " x ".join(map(str, sizes.values())), prod(sizes.values())
    if len(sizes) == 3 and train != product:
        raise top.unexpected(TRAIN, f"{words} ({numbers} = {product})")
    if train % product:
        raise top.unexpected(TRAIN, f"a multiple of {words} ({numbers})")
