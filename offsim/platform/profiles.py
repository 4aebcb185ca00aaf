"""Reading hardware profiles: YAML files of values that carry their unit and where they come from.

    name: my-node                  # the file's name
    description: "..."
    extends: dgx-h200              # optional: what is not given here is taken from that profile
    gpus_per_node: 8
    validated: false
    gpu:
      memory_bytes: {value: 1.5e11, unit: B, source: datasheet, note: "..."}
      hbm_bytes_per_s: {value: 3.2TB/s, source: measured, note: "..."}  # the unit behind the value

The unit is what the value's name says. A value may have `low` and `high`, the ends of its 95 % interval. What comes
from the profile extended says so in its note, unless `same_machine` is true.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from offsim.inputs.document import Document, Mark, dotted
from offsim.inputs.errors import Expected, InputError, KeyPath, suggestion
from offsim.inputs.fields import Count, Flag, Number, Section
from offsim.inputs.packaged import is_path, packaged_file, packaged_files
from offsim.inputs.units import unit_of, without_unit
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import read_yaml
from offsim.platform.hardware import FIXED_SECTIONS, HardwareProfile, Provenance, Source, TierSpec


class _Entry(Provenance):
    """One value as a profile file gives it; the unit may stand behind the value instead."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("unit"))
    value: Number
    unit: Annotated[str, BeforeValidator(lambda unit: "1" if unit == 1 else unit)]

    @classmethod
    def takes_unit(cls, field: str) -> bool:
        """Whether a field's number may be written with a unit."""
        return field in _NUMBERS


_NUMBERS = ("value", "low", "high")


def _entry_type(field: str) -> Any:
    """Return the type of a field's entry, which checks the unit."""
    unit = unit_of(field)

    def is_entry(entry: Any) -> Any:
        if not isinstance(entry, Mapping):
            sources = "|".join(get_args(Source))
            raise Expected(f"{{value: ..., unit: {unit}, source: {sources}, note: ...}}")
        numbers = {}
        for key in entry.keys() & _NUMBERS:
            try:
                numbers[key] = without_unit(field, entry[key])
            except Expected as error:
                raise Expected(error.expected, at=(key,)) from None
        behind = {"unit": unit} if any(numbers[key] is not entry[key] for key in numbers) else {}
        return {**behind, **entry, **numbers}

    def has_unit(entry: _Entry) -> _Entry:
        if entry.unit != unit:
            raise Expected(f"'{unit}'", at=("unit",))
        if (entry.low is None) != (entry.high is None):
            raise Expected("both low and high, or neither", at=("low",) if entry.high is None else ("high",))
        if entry.low is not None and entry.high is not None and not entry.low <= entry.value <= entry.high:
            raise Expected(f"a value between low and high ({entry.low:g} and {entry.high:g})", at=("value",))
        return entry

    return Annotated[_Entry, BeforeValidator(is_entry), AfterValidator(has_unit)]


def _section_file(name: str, model: type[BaseModel]) -> type[Section]:
    """Return the model of a section of a file: any of the section's fields, each an entry, or a plain word."""
    entries: dict[str, Any] = {
        field: (
            info.annotation if is_word(info.annotation) else _entry_type(field),
            Field(default=None, description=info.description),
        )
        for field, info in model.model_fields.items()
    }
    return create_model(name, __base__=Section, __doc__=model.__doc__, **entries)


def is_word(annotation: Any) -> bool:
    """Whether a field's value is one of some words, which has no provenance."""
    return get_origin(annotation) is Literal


class _Head(Section):
    name: str
    description: str = ""
    extends: str = ""
    same_machine: Flag = Field(default=False, description="whether the profile extended is of this machine too")
    gpus_per_node: Count | None = None
    runs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    validated: Flag = Field(description="whether predictions were compared with measured runs: true or false")


SECTION_FILES = {name: _section_file(name, model) for name, model in FIXED_SECTIONS.items()}
TIER_FILE = _section_file("_Tier", TierSpec)
"""Sections, and a tier, as a profile's file gives them."""
_FIELDS: dict[str, Any] = {name: (model, None) for name, model in SECTION_FILES.items()}
_FILE: type[_Head] = create_model("_File", __base__=_Head, **_FIELDS)


def profile_from(document: Document) -> HardwareProfile:
    """Return the profile of a document of the shape of a profile's file, which extends no other."""
    _checked(document)
    return _merge([document])


def _checked(document: Document) -> _Head:
    """Check a profile's file. A section of an unknown name that has a tier's fields is a tier."""
    tiers = [
        name
        for name, given in document.data.items()
        if name not in _FILE.model_fields and isinstance(given, Mapping) and given.keys() & TierSpec.model_fields.keys()
    ]
    return validate(document, _file_with(*tiers))


@lru_cache(maxsize=32)  # pydantic takes longer to build it than to check a file
def _file_with(*tiers: str) -> type[_Head]:
    fields: dict[str, Any] = dict.fromkeys(tiers, (TIER_FILE, None))
    return create_model("_FileWithTiers", __base__=_FILE, **fields)


def profile_schema() -> dict[str, Any]:
    """JSON Schema of a profile file, for editors; a section of an unknown name is a tier."""
    schema = _FILE.model_json_schema()
    tier = TIER_FILE.model_json_schema()
    schema["$defs"] |= tier.pop("$defs")
    return schema | {"additionalProperties": tier}


_REQUIRED = [name for name in FIXED_SECTIONS if HardwareProfile.model_fields[name].is_required()]
_INHERITED = "inherited from"

_Stamp = tuple[Path, int]
_cache: dict[Path, tuple[list[_Stamp], HardwareProfile]] = {}


def available_profiles() -> dict[str, Path]:
    """Return name -> file of the hardware profiles that come with offsim."""
    return packaged_files("hardware_profiles")


def load_profile(name_or_path: str | Path, relative_to: Path | None = None) -> HardwareProfile:
    """Read a hardware profile by its name or by the path of its file; files are read again when they change.

    A relative path is looked up in the folder `relative_to`, then in the current one. Raises InputError naming the
    file, the line and the dotted key of the first thing wrong.
    """
    path = profile_file(name_or_path, relative_to)
    key = path.resolve()
    if key in _cache:
        stamps, profile = _cache[key]
        if stamps == [_stamp(file) for file, _ in stamps]:
            return profile
    chain = _chain(path)
    profile = _merge(list(chain.values()))
    _cache[key] = [_stamp(file) for file in chain], profile
    return profile


def _stamp(file: Path) -> _Stamp:
    try:
        return file, file.stat().st_mtime_ns
    except OSError:
        return file, -1


def profile_file(name_or_path: str | Path, relative_to: Path | None) -> Path:
    """Return the file that `load_profile` reads for the same arguments; raise InputError where there is none."""
    name = str(name_or_path)
    if not is_path(name):
        if path := packaged_file("hardware_profiles", name):
            return path
        raise InputError(f"unknown hardware profile '{name}'{suggestion(name, available_profiles())}")
    places = [*([relative_to] if relative_to else []), Path()]
    for place in places:
        if os.path.exists(place / name):  # false, not an error, for names no file can have
            return place / name
    looked = " or ".join(dict.fromkeys(str(place / name) for place in places))
    raise InputError(f"no hardware profile at {looked}")


def _chain(path: Path) -> dict[Path, Document]:
    """Read a profile and those it extends: resolved path -> document, the base first."""
    chain: dict[Path, Document] = {}
    while True:
        document = read_yaml(path)
        head = _checked(document)
        if head.name != path.stem:
            raise document.unexpected(("name",), f"'{path.stem}', the file's name")
        chain = {path.resolve(): document} | chain
        if not head.extends:
            return chain
        try:
            path = profile_file(head.extends, path.parent)
        except InputError as error:
            raise document.error(("extends",), error.problem) from None
        if path.resolve() in chain:
            raise document.unexpected(("extends",), "a profile that does not itself extend this one")


def _merge(documents: list[Document]) -> HardwareProfile:
    """Lay profiles over one another, the last on top, and check the whole."""
    data: dict[str, Any] = {"provenance": {}, "tiers": {}} | {name: {} for name in _REQUIRED}
    marks: dict[KeyPath, Mark] = {}
    for document in documents:
        _mark_inherited(data, document)
        for name, given in document.data.items():
            if not isinstance(given, Mapping) or name in _Head.model_fields:
                data[name] = given
                marks[name,] = document.mark((name,))
                continue
            tier = name not in FIXED_SECTIONS
            section = (data["tiers"] if tier else data).setdefault(name, {})
            for field, entry in given.items():
                path = (name, field)
                place = ("tiers", *path) if tier else path
                if not isinstance(entry, Mapping):
                    section[field] = entry
                    marks[place] = document.mark(path)
                    continue
                section[field] = entry["value"]
                marks[place] = document.mark((*path, "value"))
                data["provenance"][dotted(path)] = {
                    key: without_unit(field, entry[key]) if key in ("low", "high") else entry[key]
                    for key in Provenance.model_fields
                    if key in entry
                }
            marks[("tiers", name) if tier else (name,)] = document.mark((name,))
        marks[()] = document.mark(())
    for key in ("extends", "same_machine"):
        data.pop(key, None)
    return validate(Document(data, marks), HardwareProfile)


def _mark_inherited(data: dict[str, Any], document: Document) -> None:
    """Say in the notes of all values so far that they are of the profile that `document` extends."""
    if document.data.get("same_machine") or "name" not in data:
        return
    for name, origin in data["provenance"].items():
        if not origin.get("note", "").startswith(_INHERITED):
            note = f"{_INHERITED} {data['name']}, not of this machine; {origin.get('note', '')}"
            data["provenance"][name] = origin | {"note": note.rstrip("; ")}
