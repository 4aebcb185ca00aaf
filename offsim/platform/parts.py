"""Profiles from parts: a catalogue of what datasheets say of GPUs, links, CPUs and SSDs, and rules for the rest.

The catalogue is a file beside the profiles. A rule takes what no datasheet says from profiles that were fitted to runs:
the mean of what was found there, as a ratio to something that the datasheets say.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache
from statistics import fmean
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field

from offsim.inputs.document import Document, Mark, document_from, dotted
from offsim.inputs.errors import Expected, KeyPath, suggestion
from offsim.inputs.fields import Count, Number, Section
from offsim.inputs.packaged import packaged_folder
from offsim.inputs.units import unit_of
from offsim.inputs.validate import validate
from offsim.inputs.yaml_input import read_yaml
from offsim.platform.hardware import HardwareProfile
from offsim.platform.profiles import SECTION_FILES, TIER_FILE, load_profile, profile_from

SCALED: Mapping[str, Mapping[str, str]] = {
    "gpu": {
        "matrix_flops_per_s": "peak_flops_per_s",
        "hbm_bytes_per_s": "peak_hbm_bytes_per_s",
        "adam_params_per_s": "peak_hbm_bytes_per_s",
    },
    "link": {
        "h2d_bytes_per_s": "peak_bytes_per_s",
        "d2h_bytes_per_s": "peak_bytes_per_s",
        "duplex_bytes_per_s": "peak_bytes_per_s",
        "uplink_bytes_per_s": "peak_bytes_per_s",
    },
}
"""Section -> the rates of a profile that another part in its place changes, and the peaks that they go with."""

_MEMORY = re.compile(r"([1-9]\d?) ?x ?(?:LP)?DDR\d\w?-([1-9]\d{3,4})", re.IGNORECASE)
_UNNAMED_CPU = re.compile(r"(\d{1,4}) ?cores, ?(.+)", re.IGNORECASE)
_SEVERAL = re.compile(r"(?:([1-9]\d{0,2}) ?x ?)?(\S.*)", re.IGNORECASE)
_SSDS = re.compile(r"(\S+)(?: +(\d.*))?")
_MAKERS = {"amd", "intel", "nvidia", "geforce", "gold", "platinum", "silver", "pro", "9"}
_MEMORY_WIDTH_BYTES = 8

Entry = dict[str, Any]
"""One value as a profile's file has it: value, unit, source, note."""


def _memory(text: str) -> str:
    if not _MEMORY.fullmatch(text):
        raise Expected("channels and their memory, such as 8 x DDR5-4800")
    return text


class _Cpu(Section):
    """One socket."""

    cores: Count
    memory: Annotated[str, AfterValidator(_memory)]
    source: str

    @property
    def peak_bytes_per_s(self) -> float:
        channels, transfers = map(int, _MEMORY.fullmatch(self.memory).groups())  # type: ignore[union-attr]
        return channels * transfers * 1e6 * _MEMORY_WIDTH_BYTES


class _GpuPart(Section):
    description: str
    link: str
    nvlink_bytes_per_s: Number = 0
    gpu: Any


class _Rule(Section):
    name: str
    field: str
    per: str = ""
    value: Number | None = None
    on: dict[str, Number] | list[str] = Field(default_factory=list)
    note: str = ""
    at_most: str = ""


class _Catalogue(Section):
    gpus: dict[str, _GpuPart]
    links: dict[str, Any]
    cpus: dict[str, _Cpu]
    nvme: dict[str, Any]
    rules: list[_Rule]


class Parts(Section):
    """What a node is made of. `cpu`: a name in the catalogue, or cores and memory; in front the count of sockets."""

    gpu: str
    count: Count = 1
    cpu: str
    memory_bytes: Number = Field(gt=0)
    link: str | None = None
    nvlink_bytes_per_s: Number | None = Field(default=None, ge=0)
    nvme: str | None = None
    network_bytes_per_s: Number | None = Field(default=None, gt=0)
    gpus_per_uplink: Count = 1


@cache
def catalogue() -> _Catalogue:
    """Read the catalogue; its entries are checked as those of profiles."""
    document = read_yaml(packaged_folder("hardware_profiles") / "parts" / "catalogue.yaml")
    read = validate(document, _Catalogue)
    for name, part in read.gpus.items():
        validate(document, SECTION_FILES["gpu"], part.gpu, ("gpus", name, "gpu"))
    for name in read.links:
        validate(document, SECTION_FILES["link"], read.links[name], ("links", name))
    for name in read.nvme:
        validate(document, TIER_FILE, read.nvme[name], ("nvme", name))
    return read


def assembled(name: str, given: Mapping[str, Any] | Document, without: Collection[str] = ()) -> HardwareProfile:
    """Return the profile of a node made of `given` parts, the fields of `Parts`.

    Rules leave out the profiles `without`, where others are left to them: what they would say of a machine unseen.
    Raises InputError for unknown parts.
    """
    document = given if isinstance(given, Document) else document_from(given)
    parts = validate(document, Parts)
    node = _node(document, parts)
    for rule in catalogue().rules:
        if rule.field not in node.entries and (entry := _by(rule, node, without)):
            node.entries[rule.field] = entry
    data: dict[str, Any] = {"name": name, "description": node.description, "gpus_per_node": parts.count}
    data |= {"validated": False}
    for section in ("gpu", "host", "link", "interconnect", "nvme"):
        fields = {
            field.partition(".")[2]: entry for field, entry in node.entries.items() if field.startswith(f"{section}.")
        }
        data |= {section: fields} if fields else {}
    return profile_from(Document(data))


class _Node(NamedTuple):
    description: str
    entries: dict[str, Entry]
    """Dotted field -> its entry."""
    facts: dict[str, float]
    """What rules refer to beside fields."""


def _node(document: Document, parts: Parts) -> _Node:
    """What the parts themselves say."""
    gpu = _looked_up(document, ("gpu",), parts.gpu, catalogue().gpus)
    link = parts.link or gpu.link
    sockets, cpu, called = _cpus(document, parts.cpu)
    domains = sockets if parts.count >= sockets else 1
    each, cores_a_gpu = sockets / domains, sockets * cpu.cores / parts.count
    nvlink = gpu.nvlink_bytes_per_s if parts.nvlink_bytes_per_s is None else parts.nvlink_bytes_per_s
    bound = "bound to sockets" if domains > 1 else "not bound"
    entries = {f"gpu.{field}": entry for field, entry in gpu.gpu.items()}
    entries |= {
        "host.memory_bytes": _entry("memory_bytes", parts.memory_bytes, "datasheet", "as given"),
        "host.numa_domains": _entry("numa_domains", domains, "derived", f"{called}, ranks {bound}"),
        "host.cores": _entry("cores", each * cpu.cores, "datasheet", f"{cpu.source}; of a domain"),
        "host.cores_per_rank": _entry("cores_per_rank", cores_a_gpu, "derived", "the cores shared evenly by the GPUs"),
    }
    of_link = _looked_up(document, ("link",), link, catalogue().links)
    entries |= {f"link.{field}": entry for field, entry in of_link.items()}
    facts = {"peak memory bandwidth": each * cpu.peak_bytes_per_s, "cores a GPU": cores_a_gpu}
    if parts.gpus_per_uplink > 1:
        entries["link.gpus_per_uplink"] = _entry("gpus_per_uplink", parts.gpus_per_uplink, "datasheet", "as given")
        facts["shared port"] = entries["link.h2d_bytes_per_s"]["value"]
    if nvlink and parts.count > 1:
        facts["NVLink"] = nvlink
    elif parts.count > 1:
        entries["interconnect.over_pcie"] = _entry("over_pcie", 1, "derived", "no NVLink between the GPUs")
    if parts.network_bytes_per_s:
        facts["network"] = parts.network_bytes_per_s
    if parts.nvme:
        entries |= {f"nvme.{field}": entry for field, entry in ssds(document, ("nvme",), parts.nvme).items()}
    extras = ["NVLink" if "NVLink" in facts else "", f"NVMe {parts.nvme}" if parts.nvme else ""]
    description = ", ".join(filter(None, [f"{parts.count} x {gpu.description}", called, link, *extras]))
    return _Node(f"{description}; from datasheets and rules", entries, facts)


def _by(rule: _Rule, node: _Node, without: Collection[str]) -> Entry | None:
    """The entry that a rule makes; None where it does not apply, as there is nothing that it is per."""
    field = rule.field.partition(".")[2]
    base = node.facts.get(rule.per, node.entries.get(rule.per, {}).get("value")) if rule.per else 1.0
    if base is None:
        return None
    if rule.value is not None:
        source, share, said = "derived" if rule.per else "assumed", rule.value, ""
    else:
        found = {name: _found_on(name, rule) for name in rule.on}
        found = {name: share for name, share in found.items() if name not in without} or found
        source, share = "derived", fmean(found.values())
        unit = f" {unit_of(field)}" if not rule.per and unit_of(field) != "1" else ""
        said = "mean of " if len(found) > 1 else ""
        said += " and ".join(f"{share:.4g}{unit} on {name}" for name, share in found.items())
    value = share * base
    if rule.at_most and value > (most := node.entries[rule.at_most]["value"]):
        value, said = most, f"{said}, but no more than {rule.at_most}"
    per = f"{share:.4g} x {rule.per}" if rule.per else ""
    note = "; ".join(filter(None, [f"rule '{rule.name}', not of this machine", per, said, rule.note]))
    return _entry(field, value, source, note)


def _found_on(name: str, rule: _Rule) -> float:
    """What a rule's field is on a profile, over what it is per."""
    sections = load_profile(name).sections()

    def value_of(field: str) -> float:
        section, _, key = field.partition(".")
        return float(getattr(sections[section], key))

    per = rule.on[name] if isinstance(rule.on, dict) else value_of(rule.per) if rule.per else 1.0
    return value_of(rule.field) / per


def _entry(field: str, value: float, source: str, note: str) -> Entry:
    rounded = value if source == "datasheet" else float(f"{value:.4g}")
    return {"value": rounded, "unit": unit_of(field), "source": source, "note": note}


def _looked_up(document: Document, at: KeyPath, name: str, known: Mapping[str, Any]) -> Any:
    """The part of this name, in the catalogue's spelling or a vendor's."""
    words = re.sub(r"(\d)gb\b", r"\1g", name.lower()).replace("-", " ").split()
    plain = "-".join(word for word in words if word not in _MAKERS)
    if plain not in known:
        kinds = [one for one in known if plain and one.startswith(plain)]
        hint = f"; expected {' or '.join(kinds)}" if kinds else suggestion(plain, known)
        raise document.error(at, f"unknown part '{name}'{hint}")
    return known[plain]


def _cpus(document: Document, text: str) -> tuple[int, _Cpu, str]:
    """The count of sockets, one of them, and what they are called."""
    match = _SEVERAL.fullmatch(text.strip())
    if not match:
        raise document.unexpected(("cpu",), "a CPU, such as 2 x EPYC 7742")
    count, name = int(match[1] or 1), match[2]
    if unnamed := _UNNAMED_CPU.fullmatch(name):
        given = {"cores": int(unnamed[1]), "memory": unnamed[2], "source": "as given"}
        marks: dict[KeyPath, Mark] = {
            (): document.mark(("cpu",)),
            ("memory",): Mark(document.mark(("cpu",)).origin, text=unnamed[2]),
        }
        return count, validate(Document(given, marks), _Cpu), f"{count} x {name}"
    cpu: _Cpu = _looked_up(document, ("cpu",), name, catalogue().cpus)
    return count, cpu, f"{count} x {name}"


def ssds(document: Document, at: KeyPath, text: str) -> dict[str, Entry]:
    """The entries of a tier of SSDs: `4 x gen4`, or `4 x gen4 7.68TB` with the size of each."""
    several = _SEVERAL.fullmatch(text.strip())
    kind = _SSDS.fullmatch(several[2]) if several else None
    if not several or not kind:
        raise document.unexpected(at, "SSDs, such as 4 x gen4 or 2 x gen5 7.68TB")
    known = catalogue().nvme
    if kind[1].lower() not in known:
        raise document.error(at, f"unknown part '{kind[1]}'{suggestion(kind[1], known)}")
    count = int(several[1] or 1)
    entries = {
        field: entry
        | {"value": count * float(entry["value"]), "note": f"{count} x {float(entry['value']):g}: {entry['note']}"}
        for field, entry in known[kind[1].lower()].items()
    }
    if kind[2]:
        size = document.without_unit(at, kind[2], "capacity_bytes")
        if not isinstance(size, float):
            raise document.unexpected(at, "the size of an SSD with its unit, such as 7.68TB")
        entries["capacity_bytes"] = _entry("capacity_bytes", count * size, "datasheet", f"{text}, as given")
    return entries


def named_part(document: Document, at: KeyPath, part: str) -> dict[str, Entry]:
    """The entries of a part of the catalogue for a section; `document` has its name at `at`, whose last is the section.

    Raises InputError where there is none of this name.
    """
    section = str(at[-1])
    if section == "nvme":
        return ssds(document, at, part)
    if section not in SCALED:
        problem = f"found '{part}', expected a section of keys: parts are known of gpu, link and nvme"
        raise document.error(at, f"{dotted(at)}: {problem}")
    known = {name: entry.gpu for name, entry in catalogue().gpus.items()} if section == "gpu" else catalogue().links
    entries: dict[str, Entry] = _looked_up(document, at, part, known)
    return entries


def changes_by(profile: HardwareProfile, document: Document, section: str, part: str) -> dict[str, float | str]:
    """What a named part in a profile's place changes: field -> its new value, or the factor of its own as `x2`.

    A rate that the profile has is multiplied by the ratio of the two parts' peaks: how close the machine comes to a
    peak stays its own. What staging by the CPU bounds stays, but for a link that is slower still.
    """
    at = ("hardware_changes", section)
    entries = named_part(document, at, part)
    if section not in SCALED:
        return {field: entry["value"] for field, entry in entries.items()}
    own = profile.sections()[section].model_dump()
    changes: dict[str, float | str] = {}
    for field, peak in SCALED[section].items():
        if own[peak] is None:
            raise document.error(at, f"profile '{profile.name}' has no {section}.{peak} to compare '{part}' with")
        if own[field] is not None:
            changes[field] = f"x{entries[peak]['value'] / own[peak]:.12g}"
    for pinned in ("h2d_bytes_per_s", "d2h_bytes_per_s") if section == "link" else ():
        rate = entries["peak_bytes_per_s"]["value"] / own["peak_bytes_per_s"] * own[pinned]
        if rate < own[f"pageable_{pinned}"]:
            changes[f"pageable_{pinned}"] = rate
    fixed = {"memory_bytes", *SCALED[section].values()}
    return changes | {field: entry["value"] for field, entry in entries.items() if field in fixed}
