"""What offsim's own traces say beside times: what each activity waits for, where it queues and what it shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from offsim.inputs.document import Document
from offsim.inputs.errors import InputError
from offsim.inputs.validate import validate

Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, le=10**9)]


class Activity(BaseModel):
    """An activity of a simulated run. Times are microseconds, demands per second while it runs alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    id: Whole
    lane: Whole
    """The stream that it is on, by number: streams may share a name."""
    kind: str
    after: list[Whole]
    uses: dict[str, Annotated[Amount, Field(gt=0)]] = {}
    holds: list[Whole] = []
    meets: Whole | None = None
    """The collective that it is part of."""
    alone: Amount = Field(alias="alone (us)")
    left: Amount | None = Field(None, alias="left (us)")
    """What was left of it as the first measured iteration began."""
    bytes: Amount = 0.0


class Machine(BaseModel):
    """What activities share, and when the measured iterations end."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    seconds: Amount
    end: list[Whole]
    slots: list[Annotated[int, Field(ge=1, le=10**6)]]
    """Of each server, what it serves at once."""
    resources: dict[str, Annotated[Amount, Field(gt=0)]]
    held: list[str]
    """Resources that work holds however fast it is; the others carry what it moves."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The activities of a simulated run in their order, each with its stream, and what they share."""

    activities: list[tuple[str, Activity, float]]
    """Each with its stream and its seconds in the trace."""
    machine: Machine


def activity_of(args: Mapping[str, Any]) -> Activity | None:
    """The activity that an event describes, if it is of offsim; InputError where it is damaged."""
    if "lane" not in args or "after" not in args:
        return None
    return validate(Document({"args": args}), Activity, args, ("args",))


def graph_of(activities: list[tuple[str, Activity, float]], others: object, where: str) -> Graph | None:
    """The graph of a trace of offsim; InputError where activities name what is not there."""
    replay = others.get("replay") if isinstance(others, Mapping) else None
    if replay is None or not activities:
        return None
    try:
        machine = validate(Document({"otherData": others}), Machine, replay, ("otherData", "replay"))
        ordered = sorted(activities, key=lambda each: each[1].id)
        known = {activity.id for _, activity, _ in ordered}
        if len(known) < len(ordered) or not known.issuperset(machine.end):
            raise InputError("otherData.replay: found activities twice, or an end that is none of them")
        for _, each, _ in ordered:
            if any(other not in known or other >= each.id for other in each.after):
                raise InputError(f"activity {each.id}: found after {each.after[:5]}, expected activities before it")
            if not machine.resources.keys() >= each.uses.keys() or max(each.holds, default=-1) >= len(machine.slots):
                raise InputError(f"activity {each.id}: found resources or servers that otherData.replay lacks")
    except InputError as error:
        raise InputError(error.problem, where) from None
    return Graph(ordered, machine)
