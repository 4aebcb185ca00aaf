"""offsim: a discrete-event simulator of offloading schedules for large-model training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offsim.api import Comparison, Result, Survey, compare, simulate, survey
    from offsim.imports.read import import_scenario
    from offsim.inputs.errors import InputError
    from offsim.platform.profiles import load_profile
    from offsim.results.verdict import DoesNotFit
    from offsim.scenario import load_scenario
    from offsim.study.sensitivities.sensitivity import Sensitivity, sensitivity
    from offsim.study.sweeps.sweep import sweep
    from offsim.study.tuning.tune import Question, Tuning, tune

__all__ = [
    "Comparison",
    "DoesNotFit",
    "InputError",
    "Question",
    "Result",
    "Sensitivity",
    "Survey",
    "Tuning",
    "compare",
    "import_scenario",
    "load_profile",
    "load_scenario",
    "sensitivity",
    "simulate",
    "survey",
    "sweep",
    "tune",
]

_MODULES = {
    "Comparison": "offsim.api",
    "DoesNotFit": "offsim.results.verdict",
    "InputError": "offsim.inputs.errors",
    "Question": "offsim.study.tuning.tune",
    "Result": "offsim.api",
    "Sensitivity": "offsim.study.sensitivities.sensitivity",
    "Survey": "offsim.api",
    "Tuning": "offsim.study.tuning.tune",
    "compare": "offsim.api",
    "import_scenario": "offsim.imports.read",
    "load_profile": "offsim.platform.profiles",
    "load_scenario": "offsim.scenario",
    "sensitivity": "offsim.study.sensitivities.sensitivity",
    "simulate": "offsim.api",
    "survey": "offsim.api",
    "sweep": "offsim.study.sweeps.sweep",
    "tune": "offsim.study.tuning.tune",
}


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: `import offsim` alone, as command-line completion does, stays quick.
    if name not in _MODULES:
        raise AttributeError(f"module 'offsim' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
