"""Rules by name: the built-in ones and those that installed packages register.

A package registers a rule with an entry point of the group `offsim.activation_rules`:

    [project.entry-points."offsim.activation_rules"]
    my_rule = "my_package.my_module:MyRule"
"""

from __future__ import annotations

from offsim.inputs.errors import InputError
from offsim.inputs.validate import validate
from offsim.programs.activations import ActivationRule
from offsim.programs.entries import Classes, find_class, names_of
from offsim.scenario import Scenario
from offsim.states.placement import Rule

GROUP = "offsim.activation_rules"
BUILT_IN = Classes[ActivationRule](
    "offsim.activations",
    {
        "alst": "Alst",
        "deepspeed": "DeepSpeed",
        "megatron": "Megatron",
        "megatron_fine_grained": "MegatronFineGrained",
        "ssdtrain": "SsdTrain",
        "torchtune": "Torchtune",
        "trl": "Trl",
        "unsloth": "Unsloth",
    },
)


def register_rule(rule: type[ActivationRule]) -> type[ActivationRule]:
    """Make a rule known by its name in this process; also a class decorator."""
    BUILT_IN[rule.name] = rule
    return rule


def available_rules() -> list[str]:
    """Names of the built-in rules, then of those that installed packages register."""
    return names_of(GROUP, BUILT_IN)


def find_rule(name: str) -> type[ActivationRule]:
    """Return the rule of that name; InputError where there is none or its package cannot be loaded."""
    documented = "offsim.activations.ActivationRule (see docs/write_a_scheduler.md)"
    return find_class(name, GROUP, BUILT_IN, "activation rule", ActivationRule, documented)


def scenario_rule(scenario: Scenario) -> Rule | None:
    """The rule that the scenario chooses and its checked options; InputError points to what is wrong there."""
    asked = scenario.placement.activations
    if asked.rule is None:
        return None
    try:
        chosen = find_rule(asked.rule)
    except InputError as error:
        raise scenario.document.error(("placement", "activations", "rule"), error.problem) from error.__cause__
    at = ("placement", "activations")
    return Rule(chosen, validate(scenario.document, chosen.Options, data=asked.options, at=at))
