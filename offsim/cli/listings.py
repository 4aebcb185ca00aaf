"""Scenarios, hardware profiles, schedulers and activation rules as text: lists of all, and everything about one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from offsim.activations.registry import available_rules, find_rule
from offsim.cli.terminal import Style, labelled, wrapped
from offsim.inputs.errors import InputError, nearest
from offsim.inputs.reading import reading
from offsim.platform.hardware import HardwareProfile
from offsim.platform.parts import catalogue
from offsim.platform.profiles import available_profiles, load_profile
from offsim.programs.activations import ActivationRule
from offsim.programs.schedule import TrainingSchedule
from offsim.results.units import plural
from offsim.scenario import available_scenarios, scenario_file
from offsim.schedulers.registry import available_schedulers, find_scheduler
from offsim.views.provenance import Value, values_of
from offsim.views.wording import validated

Described = type[TrainingSchedule] | type[ActivationRule]


def profiles_report(style: Style) -> str:
    """Every profile that comes with offsim."""
    return "\n".join(
        f"{style.heading(row['name'])}  ({plural(row['gpus_per_node'], 'GPU')}, "
        f"{'' if row['validated'] else 'not '}validated)\n{wrapped(row['description'], '  ', '  ')}"
        for row in profiles_rows()
    )


def profiles_rows() -> list[dict[str, Any]]:
    """Every profile that comes with offsim, without its values."""
    shown = ("gpus_per_node", "validated", "description")
    return [
        {"name": name, **{key: getattr(profile, key) for key in shown}}
        for name, profile in ((name, load_profile(name)) for name in available_profiles())
    ]


def profile_rows(profile: HardwareProfile) -> list[dict[str, Any]]:
    """Every value of a profile."""
    return [
        {
            "name": f"{value.section}.{value.field}",
            "value": value.number,
            "unit": value.unit,
            "source": value.source,
            "low": value.known.low,
            "high": value.known.high,
            "description": value.description,
            "note": value.known.note,
            "error": value.known.error,
        }
        for value in values_of(profile)
    ]


def parts_rows() -> list[dict[str, Any]]:
    """Every part of the catalogue by the name that options take."""
    known = catalogue()
    listed = {
        "--gpu": {name: f"{part.description}, {part.link}" for name, part in known.gpus.items()},
        "--cpu": {name: f"{cpu.cores} cores, {cpu.memory}" for name, cpu in known.cpus.items()},
        "--link": {name: link["peak_bytes_per_s"]["note"] for name, link in known.links.items()},
        "--nvme": {name: f"{float(ssd['read_bytes_per_s']['value']):g} B/s read" for name, ssd in known.nvme.items()},
    }
    return [
        {"option": option, "name": name, "description": said}
        for option, parts in listed.items()
        for name, said in parts.items()
    ]


def parts_report(style: Style) -> str:
    """The parts, option by option."""
    blocks = []
    for option, group in groupby(parts_rows(), key=lambda row: str(row["option"])):
        parts = {row["name"]: row["description"] for row in group}
        width = max(map(len, parts))
        lines = [wrapped(said, f"  {name:<{width}}  ", " " * (width + 4)) for name, said in parts.items()]
        blocks.append("\n".join([style.heading(option), *lines]))
    return "\n\n".join(blocks)


def scenarios_rows() -> list[dict[str, Any]]:
    """Every scenario that comes with offsim, with what its first comment says."""
    return [
        {"name": name, "description": path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()}
        for name, path in available_scenarios().items()
    ]


def scenarios_report(style: Style) -> str:
    """Every scenario that comes with offsim."""
    rows = scenarios_rows()
    return "\n".join(f"{style.heading(row['name'])}\n{wrapped(row['description'], '  ', '  ')}" for row in rows)


def scenario_text(name: str) -> str:
    """A scenario as its file has it."""
    with reading(scenario_file(name), "a YAML file") as file:
        return file.read().decode("utf-8", "replace").rstrip()


def profile_report(profile: HardwareProfile, style: Style) -> str:
    """Every value of a profile with its unit, where it comes from, and what is known of it."""
    head = [
        style.heading(profile.name),
        wrapped(profile.description),
        "",
        labelled("validated", validated(profile)),
        labelled("GPUs", str(profile.gpus_per_node)),
    ]
    sections = groupby(values_of(profile), key=lambda value: value.section)
    return "\n\n".join(["\n".join(head), *(_section(section, list(values), style) for section, values in sections)])


def _section(section: str, values: Sequence[Value], style: Style) -> str:
    lines = [style.heading(section)]
    width = max(len(value.field) for value in values)
    for value in values:
        lines.append(f"  {value.field:<{width}}  {value.quantity:>18}  {value.source}")
        known = {"": value.description, "note: ": value.known.note, "error: ": value.known.error}
        known["95 % interval: "] = value.interval
        lines += [wrapped(f"{kind}{text}", "      ", "      ") for kind, text in known.items() if text]
    return "\n".join(lines)


def schedulers_rows() -> list[dict[str, Any]]:
    """Every scheduler and activation rule, the installed packages' too; why one cannot be loaded, if so."""
    kinds: dict[str, tuple[Iterable[str], Callable[[str], Described]]] = {
        "scheduler": (available_schedulers(), find_scheduler),
        "activation rule": (available_rules(), find_rule),
    }
    rows = []
    for kind, (names, find) in kinds.items():
        for name in names:
            try:
                cls = find(name)
                summary, options = _docstring(cls).splitlines()[0], [*cls.Options.model_fields]
            except InputError as error:
                summary, options = str(error), None
            rows.append({"kind": kind, "name": name, "summary": summary, "options": options})
    return rows


def option_rows(name: str) -> list[dict[str, Any]]:
    """The options of a scheduler or an activation rule."""
    cls = find_rule(name) if name in available_rules() else find_scheduler(name)
    return [
        {
            "option": option,
            "type": _type(info.annotation),
            "bounds": ", ".join(_bounds(info.metadata)),
            "default": None if info.is_required() else info.default,
            "description": info.description or "",
        }
        for option, info in cls.Options.model_fields.items()
    ]


def schedulers_report(style: Style) -> str:
    """Every scheduler and activation rule, with what its docstring says first."""
    lists: dict[str, list[str]] = {}
    for row in schedulers_rows():
        options = row["options"]
        text = row["summary"] + ("" if options is None else f" Options: {', '.join(options) or 'none'}.")
        lists.setdefault(row["kind"], []).append(f"{style.heading(row['name'])}\n{wrapped(text, '  ', '  ')}")
    heading = wrapped("Activation rules under any of them: placement.activations: {tier: host, rule: NAME}")
    return "\n".join([*lists["scheduler"], "", heading, *lists["activation rule"]])


def scheduler_report(name: str, style: Style) -> str:
    """The docstring of a scheduler, or of an activation rule, and each of its options."""
    schedulers, rules = available_schedulers(), available_rules()
    if name not in schedulers and (name in rules or (nearest(name, rules) and not nearest(name, schedulers))):
        rule = find_rule(name)
        recomputed = "" if rule.recomputes else "; no layer may be recomputed"
        return _report(name, rule, f"Activations in tiers of kind {', '.join(rule.kinds)}{recomputed}.", style)
    cls = find_scheduler(name)
    kinds = [("optimizer state", cls.optimizer_kinds), ("parameters", cls.parameter_kinds)]
    facts = (
        f"ZeRO stage {', '.join(map(str, cls.stages))}; "
        + "; ".join(
            f"{state} in tiers of kind {', '.join(names)}" if names else f"no {state}" for state, names in kinds
        )
        + (f"; parameters up to {cls.lag} update behind." if cls.lag else ".")
    )
    return _report(name, cls, facts, style)


def _report(name: str, cls: Described, facts: str, style: Style) -> str:
    module = inspect.getdoc(inspect.getmodule(cls)) or ""
    texts = [text for text in (module, _docstring(cls)) if text]
    blocks = [f"{style.heading(name)}\n{labelled('class', f'{cls.__module__}.{cls.__qualname__}')}"]
    blocks += [wrapped(" ".join(paragraph.split())) for text in texts for paragraph in text.split("\n\n")]
    blocks.append(wrapped(facts))
    fields = cls.Options.model_fields
    if not fields:
        return "\n\n".join([*blocks, "no options"])
    lines = [style.heading("options")]
    for option, info in fields.items():
        default = "required" if info.is_required() else f"default {_shown(info.default)}"
        lines.append(
            wrapped(f"{option}: {', '.join([_type(info.annotation), *_bounds(info.metadata), default])}", "  ")
        )
        if info.description:
            lines.append(wrapped(info.description, "      ", "      "))
    return "\n\n".join([*blocks, "\n".join(lines)])


def _docstring(cls: Described) -> str:
    # Its own only: what a base class says is said of all schedulers, or of all rules.
    return inspect.cleandoc(cls.__doc__ or "no description")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _type(annotation: Any) -> str:
    names: dict[Any, str] = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    if annotation in names:
        return names[annotation]
    choices = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join("none" if choice is type(None) else _type(choice) for choice in choices)
    if get_origin(annotation) is Annotated:
        return _type(choices[0])
    if str(get_origin(annotation)) == "typing.Literal":
        return " or ".join(map(str, get_args(annotation)))
    return getattr(annotation, "__name__", str(annotation))


def _bounds(metadata: list[Any]) -> list[str]:
    """What of pydantic's constraints bounds a number."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return [
        f"{words[name]} {_shown(getattr(constraint, name))}"
        for constraint in metadata
        for name in words
        if getattr(constraint, name, None) is not None
    ]
