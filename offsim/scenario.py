"""Scenarios: hardware, model, training, placement and scheduler, read from files or from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from offsim.inputs.document import Document, document_from
from offsim.inputs.errors import Expected, InputError, suggestion
from offsim.inputs.fields import Count, Flag, Number, Section
from offsim.inputs.packaged import is_path, packaged_file, packaged_files
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import read_yaml, with_overrides
from offsim.platform.changes import PART, with_changes
from offsim.platform.hardware import FIXED_SECTIONS, HardwareProfile
from offsim.platform.profiles import load_profile, profile_file
from offsim.states.checkpoint import Checkpoint
from offsim.states.placement import Placement

OptionsT = TypeVar("OptionsT", bound=BaseModel)


class Model(Section):
    """A decoder-only transformer."""

    layers: Count = Field(le=100_000, description="transformer layers")
    hidden: Count = Field(description="width of the residual stream")
    ffn_hidden: Count = Field(description="width inside the MLP")
    heads: Count = Field(description="query heads")
    kv_heads: Count = Field(
        default_factory=lambda known: known["heads"],
        description="key and value heads, as many as heads by default; fewer for grouped-query attention",
    )
    vocab: Count = Field(description="tokens of the vocabulary")
    sequence: Count = Field(description="tokens of a sequence")
    swiglu: Flag = Field(default=True, description="three matrices in the MLP; otherwise two")
    fused_swiglu: Flag = Field(default=False, description="SwiGLU in one kernel, gradients in place, as Liger's")
    tied_embeddings: Flag = Field(default=False, description="the head shares the embedding's weights")
    flash_attention: Flag = Field(default=True, description="a fused attention kernel, which stores no scores")
    softmax_fp32: Flag = Field(
        default=False,
        description="without flash attention: softmax in fp32, as eager PyTorch's, not Megatron-LM's kernel",
    )
    dropout: Flag = Field(default=False, description="on attention and after both blocks, as in GPT-3; memory only")

    @model_validator(mode="after")
    def _heads_divide(self) -> Model:
        if self.hidden % self.heads:
            raise Expected(f"a divisor of model.hidden ({self.hidden})", at=("heads",))
        if self.heads % self.kv_heads:
            raise Expected(f"a divisor of model.heads ({self.heads})", at=("kv_heads",))
        return self


MAX_MICRO_STEPS = 1024
"""Each is simulated; more is most likely a typing error."""


class Training(Section):
    """How the model is trained. `global_batch` counts sequences per iteration over all data-parallel ranks."""

    micro_batch: Count = Field(default=1, description="sequences of a rank in one forward pass")
    global_batch: Count = Field(description="sequences of an iteration, over all ranks and micro-steps")
    data_parallel: Count = Field(default=1, description="replicas, over which ZeRO splits states")
    tensor_parallel: Count = Field(default=1, description="GPUs that split each layer's matrices")
    zero_stage: int = Field(default=3, ge=0, le=3, description="what ZeRO splits over data-parallel ranks")
    activation_checkpointing: Flag = Field(default=True, description="layers keep their input and are recomputed")
    subgroup_size: Count = Field(default=100_000_000, description="parameters that are updated together")
    loss_chunks: Count = Field(default=1, description="parts of a micro-batch whose logits exist one after another")
    reduce_bucket_size: Count | None = Field(default=None, description="elements of the gradient bucket; 5e8 if none")

    @property
    def micro_steps(self) -> int:
        """Gradient accumulation steps per iteration."""
        return self.global_batch // (self.micro_batch * self.data_parallel)

    @model_validator(mode="after")
    def _batches_divide(self) -> Training:
        step = self.micro_batch * self.data_parallel
        if self.global_batch % step:
            factors = f"{self.micro_batch} x {self.data_parallel}"
            raise Expected(f"a multiple of micro_batch x data_parallel ({factors})", at=("global_batch",))
        if self.micro_steps > MAX_MICRO_STEPS:
            most = f"at most {MAX_MICRO_STEPS} accumulation steps of micro_batch x data_parallel ({step})"
            raise Expected(most, at=("global_batch",))
        return self


class SchedulerChoice(Section):
    """A scheduler's registered name and its options, which its `Options` model checks."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(min_length=1, description="a registered scheduler")

    @property
    def options(self) -> dict[str, Any]:
        """The options as given, unchecked."""
        return dict(self.model_extra or {})


def _named_parts(changes: Any) -> Any:
    """The `hardware_changes` with names of parts as sections of their own."""
    if not isinstance(changes, Mapping):
        return changes
    return {name: {PART: given} if isinstance(given, str) else given for name, given in changes.items()}


def _or_a_part(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = {"anyOf": [schema["additionalProperties"], {"type": "string"}]}


_Changes = Annotated[dict[str, dict[str, Number | str]], BeforeValidator(_named_parts)]


class Scenario(Section):
    """One simulation. `hardware` is a profile's name or the path of a profile file.

    `hardware_changes` replace values of the profile, or multiply them: {link: {h2d_bytes_per_s: x2}}. The name of a
    part in place of values, {link: pcie5x16}, changes all that belongs together.
    """

    hardware: str = Field(min_length=1, description="a profile's name, or the path of its file")
    hardware_changes: _Changes = Field(
        default_factory=dict,
        description="section -> key -> a value in place of the profile's, or a factor as x2; section -> another part",
        json_schema_extra=_or_a_part,
    )
    model: Model
    training: Training
    placement: Placement = Placement()
    scheduler: SchedulerChoice
    checkpoint: Checkpoint | None = None
    price_per_gpu_hour: Number | None = Field(default=None, ge=0, description="for costs, in any currency")
    name: str = Field(default="", description="what results call it; by default the file's name")
    folder: Path = Field(default=Path("."), exclude=True, description="what a relative profile path is relative to")
    _document: Document = PrivateAttr(default_factory=Document)

    @property
    def document(self) -> Document:
        """The values as given and their positions in the input, for error messages."""
        return self._document if self._document.data else Document(self.model_dump())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Scenario:
        """Copy, as pydantic does; a copy with other values drops the document."""
        copy = super().model_copy(update=update, deep=deep)
        if update:
            copy._document = Document()
        return copy

    @model_validator(mode="after")
    def _heads_split(self) -> Scenario:
        if self.model.heads % self.training.tensor_parallel:
            raise Expected(f"a divisor of model.heads ({self.model.heads})", at=("training", "tensor_parallel"))
        return self


KEYS = [name for name, field in Scenario.model_fields.items() if not field.exclude]
"""Of a scenario's file."""


def available_scenarios() -> dict[str, Path]:
    """Return name -> file of the shipped scenarios."""
    return packaged_files("scenarios")


def load_scenario(source: str | Path | Mapping[str, Any] | Scenario, overrides: Sequence[str] = ()) -> Scenario:
    """Read and check a scenario.

    `source` is a file's path, the name of a shipped scenario, a mapping of the same shape, or a scenario. `overrides`
    are `section.key=value` strings that replace or add values; those of a section of the hardware, `link=pcie5x16`,
    change the profile. Raises InputError for the first error, with file and line or with the override. Scheduler
    options are checked when the scheduler is created.
    """
    folder: Any
    if isinstance(source, Scenario):
        if not overrides:
            return source
        document, folder = Document(source.model_dump(), source.document.marks), source.folder
    elif isinstance(source, Mapping):
        document = document_from(source)
        folder = document.data.pop("folder", Path("."))
    else:
        path = scenario_file(source)
        document, folder = read_yaml(path), path.parent
        document.data.setdefault("name", path.stem)
    return scenario_from(document, folder, overrides)


def scenario_from(document: Document, folder: Any, overrides: Sequence[str]) -> Scenario:
    """Check values and build the scenario, with `overrides` applied; errors as in `load_scenario`."""
    if overrides and "hardware_changes" in document.data:
        changes = _named_parts(document.data["hardware_changes"])
        document = Document(document.data | {"hardware_changes": changes}, document.marks)
    document = with_overrides(document, overrides, _placed)
    if ("folder",) in document.marks:  # known from the file's place, not a key
        raise document.error(("folder",), f"unknown key 'folder'{suggestion('folder', KEYS)}")
    document = Document({**document.data, "folder": folder}, document.marks)
    scenario = validate(document, Scenario)
    scenario._document = document
    return scenario


def _placed(path: tuple[str, ...], written: str) -> tuple[str, ...]:
    """Where an override's value goes: sections of the hardware into `hardware_changes`, a word there is a part's."""
    path = ("hardware_changes", *path) if path[0] in FIXED_SECTIONS else path
    is_part = path[0] == "hardware_changes" and len(path) == 2 and not written.lstrip().startswith("{")
    return (*path, PART) if is_part else path


def scheduler_options(scenario: Scenario, model: type[OptionsT]) -> OptionsT:
    """Check the scenario's scheduler options with the scheduler's own model.

    Raises InputError with the file and line, or the override, of the wrong option.
    """
    return validate(scenario.document, model, data=scenario.scheduler.options, at=("scheduler",))


def scenario_file(source: str | Path, kind: str = "scenario", folder: str = "scenarios") -> Path:
    """Return the file of a scenario, or of another kind that is shipped in `folder`, by its path or its name.

    InputError says which names there are.
    """
    if isinstance(source, Path) or is_path(source):
        return Path(source)
    if path := packaged_file(folder, source):
        return path
    near = suggestion(source, packaged_files(folder))
    raise InputError(f"unknown {kind} '{source}'{near} (a path contains / or ends in .yaml)")


def scenario_profile(scenario: Scenario) -> HardwareProfile:
    """Read the scenario's profile and apply its `hardware_changes`.

    InputError names the scenario's line if the name or a change is wrong.
    """
    try:
        path = profile_file(scenario.hardware, scenario.folder)
    except InputError as error:
        raise scenario.document.error(("hardware",), error.problem) from None
    profile = load_profile(path)
    changes = scenario.hardware_changes
    return with_changes(profile, changes, scenario.document) if changes else profile
