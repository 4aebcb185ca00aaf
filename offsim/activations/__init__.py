"""Rules by which activations move, under any schedule: one file each, and the registry that third parties join."""

from offsim.activations.registry import available_rules, find_rule, register_rule, scenario_rule
from offsim.programs.activations import ActivationRule, RuleOptions
from offsim.programs.options import option

__all__ = [
    "ActivationRule",
    "RuleOptions",
    "available_rules",
    "find_rule",
    "option",
    "register_rule",
    "scenario_rule",
]
