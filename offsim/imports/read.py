"""Make a scenario from the configuration of DeepSpeed or FSDP, a model's config.json and a hardware profile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from offsim.imports.deepspeed import read_deepspeed
from offsim.imports.draft import CHECKPOINTING, Draft
from offsim.imports.fsdp import gpus_of, read_accelerate, read_trainers
from offsim.imports.huggingface import check_parameters, read_model
from offsim.imports.keys import NOT_GIVEN, Section
from offsim.imports.trainer import NOTHING, account_for_the_rest, named_configuration, read_file, sequence_of
from offsim.inputs.document import Document
from offsim.inputs.errors import InputError
from offsim.inputs.yaml_input import read_json
from offsim.platform.profiles import load_profile
from offsim.programs.transformer import Workload
from offsim.scenario import KEYS, Scenario, scenario_from

if TYPE_CHECKING:
    import pandas as pd

CONFIGURATIONS = ("--deepspeed", "--fsdp", "--trainer")


@dataclass(frozen=True)
class Imported:
    """A scenario, and what became of each key of the files that it was made from."""

    scenario: Scenario
    draft: Draft

    @property
    def account(self) -> pd.DataFrame:
        """A row per key: `list` it is on (taken, assumed, ignored, not modelled), `found`, and what it `became`."""
        import pandas as pd

        rows = [(name, e.key, e.found, e.became) for name, entries in self.draft.lists.items() for e in entries]
        return pd.DataFrame(rows, columns=["list", "key", "found", "became"])


def import_scenario(
    deepspeed: str | Path | None = None,
    model: str | Path | None = None,
    hardware: str | None = None,
    *,
    fsdp: str | Path | None = None,
    trainer: str | Path | None = None,
    gpus: int | None = None,
    sequence: int | None = None,
    overrides: Sequence[str] = (),
) -> Imported:
    """Make a scenario from configurations and a Hugging Face model's config.json, or the folder that it is in.

    `deepspeed` is DeepSpeed's configuration, `fsdp` accelerate's of PyTorch FSDP, `trainer` Hugging Face's
    TrainingArguments (JSON or YAML), which may name one of these. `gpus` are all of the job, by default those of one
    node; `sequence` is in tokens. Raises InputError, with file and line, for what is wrong and for what would change an
    iteration but cannot be simulated.
    """
    given = {"deepspeed": deepspeed, "fsdp": fsdp, "trainer": trainer, "model": model, "hardware": hardware}
    _check_given([f"--{name}" for name, value in given.items() if value is not None])
    assert model is not None
    assert hardware is not None
    for option, count in (("--gpus", gpus), ("--sequence", sequence)):
        if count is not None and count < 1:
            raise InputError(f"found {count}, expected at least 1", option)
    try:
        node = load_profile(hardware)
    except InputError as error:
        raise error if error.where else InputError(error.problem, f"--hardware '{hardware}'") from None
    architecture = _architecture(model)
    arguments = NOTHING if trainer is None else Section(read_file(Path(trainer)))
    kind, configuration = _configuration(deepspeed, fsdp, arguments)
    draft = Draft()
    said_by = "--sequence"
    if sequence is None and (found := sequence_of(arguments)):
        said_by, sequence = found
        draft.note_read(arguments, said_by)
    counted = read_model(architecture, draft, sequence=sequence, said_by=said_by)
    draft.data["name"] = _name(Section(architecture))
    draft.option("--hardware", "hardware", hardware, hardware, node.description)
    ranks = _take_gpus(configuration if kind == "fsdp" else None, draft, gpus, node.gpus_per_node)
    if kind == "deepspeed":
        read_deepspeed(configuration, draft, arguments, gpus=ranks, hidden=draft.data["model"]["hidden"])
    else:
        read = read_accelerate if fsdp is not None else read_trainers
        read(configuration, draft, arguments, gpus=ranks, gpus_per_node=node.gpus_per_node)
    account_for_the_rest(arguments, draft, named=deepspeed is None and fsdp is None)
    if "activation_checkpointing" not in draft.data["training"]:
        why = "layers are recomputed; --set says otherwise"
        draft.take(Section(configuration), "activation_checkpointing", CHECKPOINTING, True, why, assumed=True)
    data = {key: draft.data[key] for key in KEYS if key in draft.data}
    scenario = scenario_from(Document(data, draft.marks), Path(), overrides)
    modelled = Workload(scenario.model, scenario.training).parameters * scenario.training.tensor_parallel
    own = any(override.strip().startswith("model.") for override in overrides)
    check_parameters(architecture, draft, counted, modelled, refuse=not own)
    return Imported(scenario, draft)


def _check_given(options: Sequence[str]) -> None:
    """Raise InputError unless there are a configuration, a model and hardware."""
    configurations = [option for option in options if option in CONFIGURATIONS]
    missing = [option for option in ("--model", "--hardware") if option not in options]
    if not configurations:
        missing.insert(0, " or ".join(CONFIGURATIONS))
    if missing:
        found = f"found {options[0]} without {' and '.join(missing)}" if options else "found nothing to make it from"
        raise InputError(f"{found}, expected a configuration, --model and --hardware")
    if {"--deepspeed", "--fsdp"} <= {*options}:
        raise InputError("found --deepspeed and --fsdp, expected one of them")


def _configuration(deepspeed: str | Path | None, fsdp: str | Path | None, trainer: Section) -> tuple[str, Document]:
    """Which of the two it is, and what it says: that of an option, else the one that TrainingArguments name."""
    if deepspeed is not None:
        return "deepspeed", read_json(Path(deepspeed))
    if fsdp is not None:
        return "fsdp", read_file(Path(fsdp))
    if (named := named_configuration(trainer)) is None:
        problem = "names no configuration of DeepSpeed or FSDP (keys deepspeed, fsdp)"
        raise trainer.document.error((), f"{problem}; expected one, --deepspeed or --fsdp")
    return named


def _architecture(model: str | Path) -> Document:
    path = Path(model) / "config.json" if os.path.isdir(model) else Path(model)
    if not os.path.exists(path) and path.suffix != ".json":
        expected = "config.json or its folder; models of the Hugging Face Hub are not downloaded"
        raise InputError(f"no such file or folder, expected {expected}", str(model))
    return read_json(path)


def _take_gpus(accelerate: Document | None, draft: Draft, gpus: int | None, per_node: int) -> int:
    """The GPUs of the job: as many as accelerate starts processes, else those of `--gpus`, else one node's."""
    target = "training.data_parallel"
    if accelerate is not None and (started := gpus_of(accelerate)):
        if gpus not in (None, started):
            raise Section(accelerate).unexpected("num_processes", f"{gpus}, as --gpus")
        draft.take(Section(accelerate), "num_processes", target, started, "one for each GPU")
        return started
    found, why = (NOT_GIVEN, "one node") if gpus is None else (str(gpus), "GPUs of the job")
    draft.option("--gpus", target, gpus or per_node, found, why)
    return gpus or per_node


def _name(model: Section) -> str:
    """What the file calls its model, else its family's name."""
    path = model.values.get("_name_or_path")
    return (path.rstrip("/").rsplit("/")[-1] if isinstance(path, str) else "") or model.word("model_type") or "model"
