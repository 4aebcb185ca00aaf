"""Make a scenario from DeepSpeed's configuration, a model's config.json and a hardware profile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from offsim.imports.deepspeed import CHECKPOINTING, read_deepspeed
from offsim.imports.draft import Draft
from offsim.imports.emit import KEYS
from offsim.imports.huggingface import check_parameters, read_model
from offsim.imports.keys import NOT_GIVEN, Section
from offsim.inputs.document import Document
from offsim.inputs.errors import InputError
from offsim.inputs.yaml_input import read_json
from offsim.platform.profiles import load_profile
from offsim.programs.transformer import Workload
from offsim.scenario import Scenario, scenario_from

if TYPE_CHECKING:
    import pandas as pd


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
    deepspeed: str | Path,
    model: str | Path,
    hardware: str,
    *,
    gpus: int | None = None,
    sequence: int | None = None,
    overrides: Sequence[str] = (),
) -> Imported:
    """Read DeepSpeed's configuration and a Hugging Face model's config.json, or the folder that it is in.

    `gpus` are all of the job, by default those of one node; `sequence` is in tokens. Raises InputError, with file and
    line, for what is wrong and for what would change an iteration but cannot be simulated.
    """
    for option, count in (("--gpus", gpus), ("--sequence", sequence)):
        if count is not None and count < 1:
            raise InputError(f"found {count}, expected at least 1", option)
    try:
        node = load_profile(hardware, Path())
    except InputError as error:
        raise error if error.where else InputError(error.problem, f"--hardware '{hardware}'") from None
    model_path = Path(model) / "config.json" if os.path.isdir(model) else Path(model)
    if not os.path.exists(model_path) and model_path.suffix != ".json":
        expected = "config.json or its folder; models of the Hugging Face Hub are not downloaded"
        raise InputError(f"no such file or folder, expected {expected}", str(model))
    configuration, architecture = read_json(Path(deepspeed)), read_json(model_path)
    draft = Draft()
    counted = read_model(architecture, draft, sequence=sequence)
    draft.data["name"] = _name(Section(architecture))
    draft.option("--hardware", "hardware", hardware, hardware, node.description)
    ranks = node.gpus_per_node if gpus is None else gpus
    found, why = (NOT_GIVEN, "one node") if gpus is None else (str(gpus), "GPUs of the job")
    draft.option("--gpus", "training.data_parallel", ranks, found, why)
    read_deepspeed(configuration, draft, gpus=ranks, hidden=draft.data["model"]["hidden"])
    if "activation_checkpointing" not in draft.data["training"]:
        why = "layers are recomputed; --set says otherwise"
        draft.take(Section(configuration), "activation_checkpointing", CHECKPOINTING, True, why, assumed=True)
    data = {key: draft.data[key] for key in KEYS if key in draft.data}
    scenario = scenario_from(Document(data, draft.marks), Path(), overrides)
    modelled = Workload(scenario.model, scenario.training).parameters * scenario.training.tensor_parallel
    own = any(override.strip().startswith("model.") for override in overrides)
    check_parameters(architecture, draft, counted, modelled, refuse=not own)
    return Imported(scenario, draft)


def _name(model: Section) -> str:
    """What the file calls its model, else its family's name."""
    path = model.values.get("_name_or_path")
    return (path.rstrip("/").rsplit("/")[-1] if isinstance(path, str) else "") or model.word("model_type") or "model"
