"""JSON Schemas of scenarios and hardware profiles, for editors."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from offsim.inputs.errors import InputError
from offsim.platform.profiles import profile_schema
from offsim.scenario import Scenario
from offsim.schedulers.registry import available_schedulers, find_scheduler


def scenario_schema() -> dict[str, Any]:
    """JSON Schema of a scenario file; each installed scheduler has its own options."""
    choices: list[Any] = []
    for name in available_schedulers():
        try:
            options = find_scheduler(name).Options
        except InputError:  # an installed package that does not import
            continue
        named: Any = (Literal[name], Field(description="the scheduler"))
        choices.append(create_model(name, __base__=options, name=named))
    any_of_them: Any = reduce(or_, choices)
    chosen: Any = (Annotated[any_of_them, Field(discriminator="name")], ...)
    model: type[Scenario] = create_model("Scenario", __base__=Scenario, scheduler=chosen)
    schema = model.model_json_schema()
    del schema["properties"]["folder"]
    return schema


SCHEMAS = {"scenario": scenario_schema, "profile": profile_schema}
