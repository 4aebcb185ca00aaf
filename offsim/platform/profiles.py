"""Reading hardware profiles: YAML files of values that carry their unit and where they come from.

    name: my-node                  # the file's name
    description: "..."
    extends: dgx-h200              # optional: what is not given here is taken from that profile
    gpus_per_node: 8
    validated: false
    gpu:
      memory_bytes: {value: 1.5e11, unit: B, source: datasheet, note: "..."}

The unit is what the value's name says. A value may have `low` and `high`, the ends of its 95 % interval.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, create_model

from offsim.inputs.document import Document, Mark, dotted
from offsim.inputs.errors import Expected, InputError, KeyPath, suggestion
from offsim.inputs.fields import Count, Flag, Number, Section
from offsim.inputs.packaged import is_path, packaged_file, packaged_files
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import read_yaml
from offsim.platform.hardware import FIXED_SECTIONS, HardwareProfile, Provenance, Source, TierSpec

_UNITS = {"_bytes_per_s": "B/s", "_params_per_s": "params/s", "_flops_per_s": "FLOP/s", "_bytes": "B", "_s": "s"}


class _Entry(Provenance):
    """One value as a profile file gives it."""

    value: Number
    low: Number | None = None
    high: Number | None = None
    unit: Annotated[str, BeforeValidator(lambda unit: "1" if unit == 1 else unit)]


def unit_of(field: str) -> str:
    """Return the unit that the name of a profile's field says: `hbm_bytes_per_s` is in B/s; 1 where it says none."""
    return next((unit for suffix, unit in _UNITS.items() if field.endswith(suffix)), "1")


def _entry_type(field: str) -> Any:
    """Return the type of a field's entry, which checks the unit."""
    unit = unit_of(field)

    def is_entry(entry: Any) -> Any:
        if not isinstance(entry, Mapping):
            sources = "|".join(get_args(Source))
            raise Expected(f"{{value: ..., unit: {unit}, source: {sources}, note: ...}}")
        return entry

    def has_unit(entry: _Entry) -> _Entry:
        if entry.unit != unit:
            raise Expected(f"'{unit}'", at=("unit",))
        if (entry.low is None) != (entry.high is None):
            raise Expected("both low and high, or neither", at=("low",) if entry.high is None else ("high",))
        if entry.low is not None and entry.high is not None and not entry.low <= entry.value <= entry.high:
            raise Expected(f"a value between low and high ({entry.low:g} and {entry.high:g})", at=("value",))
        return entry

    return Annotated[_Entry, BeforeValidator(is_entry), AfterValidator(has_unit)]


def _section_file(name: str, model: type[BaseModel]) -> Any:
    """Return the model of a section as files give it: any of its fields, each an entry, or a plain word."""
    entries: dict[str, Any] = {
        field: (
            info.annotation if is_word(info.annotation) else _entry_type(field),
            Field(default=None, description=info.description),
        )
        for field, info in model.model_fields.items()
    }
    return create_model(name, __base__=Section, __doc__=model.__doc__, **entries), None


def is_word(annotation: Any) -> bool:
    """Whether a field's value is one of some words, which has no provenance."""
    return get_origin(annotation) is Literal


class _Head(Section):
    name: str
    description: str = ""
    extends: str = ""
    gpus_per_node: Count | None = None
    runs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    validated: Flag = Field(description="whether predictions were compared with measured runs: true or false")


_SECTION_FILES: dict[str, Any] = {name: _section_file(name, model) for name, model in FIXED_SECTIONS.items()}
_TIER_FILE: Any = _section_file("_Tier", TierSpec)
_FILE: type[_Head] = create_model("_File", __base__=_Head, **_SECTION_FILES)


def _checked(document: Document) -> _Head:
    """Check a profile's file. A section of an unknown name that has a tier's fields is a tier."""
    tiers = {
        name: _TIER_FILE
        for name, given in document.data.items()
        if name not in _FILE.model_fields and isinstance(given, Mapping) and given.keys() & TierSpec.model_fields.keys()
    }
    return validate(document, create_model("_FileWithTiers", __base__=_FILE, **tiers) if tiers else _FILE)


def profile_schema() -> dict[str, Any]:
    """JSON Schema of a profile file, for editors; a section of an unknown name is a tier."""
    schema = _FILE.model_json_schema()
    tier = _TIER_FILE[0].model_json_schema()
    schema["$defs"] |= tier.pop("$defs")
    return schema | {"additionalProperties": tier}


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
    return _load(profile_file(name_or_path, relative_to))


def with_changes(
    profile: HardwareProfile, changes_by_section: Mapping[str, Mapping[str, float | str]], document: Document
) -> HardwareProfile:
    """Return the profile with values in place of its own, or factors of them as `x2`.

    `document` has them under `hardware_changes`, to point at in errors.
    """
    data = profile.model_dump() | {"validated": False}
    marks: dict[KeyPath, Mark] = {}
    named = []
    known = {name: type(model) for name, model in profile.sections().items()}
    for section, changes in changes_by_section.items():
        at: KeyPath = ("hardware_changes", section)
        if section not in known:
            problem = f"unknown key '{section}' in hardware_changes{suggestion(section, known)}"
            raise document.error(at, problem)
        fields = [name for name, info in known[section].model_fields.items() if not is_word(info.annotation)]
        values = data["tiers"][section] if section in profile.tiers else data[section]
        for field, change in changes.items():
            path = (section, field)
            place = ("tiers", *path) if section in profile.tiers else path
            if field not in fields:
                problem = f"unknown key '{field}' in {dotted(at)}{suggestion(field, fields)}"
                raise document.error((*at, field), problem)
            old = values.get(field)
            factor = factor_of(change)
            if factor is None and isinstance(change, str):
                raise document.unexpected((*at, field), "a number, or a factor such as x2")
            if factor is not None and old is None:
                raise document.error((*at, field), f"profile '{profile.name}' has no value to multiply")
            values[field] = change if factor is None else factor * old
            named.append(f"{dotted(path)} {format(change, 'g') if factor is None else change}")
            marks[place] = document.mark((*at, field))
            data["provenance"][dotted(path)] = _provenance(profile.provenance.get(dotted(path)), factor)
        marks[section,] = document.mark(at)
    data["name"] = f"{profile.name} with {', '.join(named)}"
    return validate(Document(data, marks), HardwareProfile)


def factor_of(change: float | str) -> float | None:
    """What `x2` multiplies by; None for a value, or text that is no factor."""
    try:
        return float(change[1:]) if isinstance(change, str) and change.startswith("x") else None
    except ValueError:
        return None


def _provenance(old: Provenance | None, factor: float | None) -> Provenance:
    if factor is None or old is None:
        return Provenance(source="assumed", note="set by the scenario")
    bounds = {name: None if bound is None else factor * bound for name, bound in (("low", old.low), ("high", old.high))}
    return old.model_copy(update={**bounds, "note": f"x{factor:g} by the scenario; {old.note}".rstrip("; ")})


def _load(path: Path) -> HardwareProfile:
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
    data: dict[str, Any] = {"provenance": {}, "tiers": {}}
    marks: dict[KeyPath, Mark] = {}
    for document in documents:
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
                data["provenance"][dotted(path)] = {key: entry[key] for key in Provenance.model_fields if key in entry}
            marks[("tiers", name) if tier else (name,)] = document.mark((name,))
        marks[()] = document.mark(())
    data.pop("extends", None)
    return validate(Document(data, marks), HardwareProfile)
