"""What a worker does: payload in, outcome out, both bytes; nothing else is needed where it runs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from offsim.inputs.errors import InputError
from offsim.inputs.packaged import offsim_version
from offsim.platform.hardware import HardwareProfile
from offsim.scenario import Scenario
from offsim.simulation import simulate

KEPT_PROFILES = 64


def simulate_point(payload: bytes) -> bytes:
    """Simulate one point and return its outcome as JSON; what goes wrong with it is an outcome too.

    Raises InputError where the worker's offsim is another version than the one that made the payload.
    """
    version, profile, what = payload.split(b"\n")
    if version != offsim_version().encode():
        problem = f"a worker has offsim {offsim_version()}, expected {version.decode()} as where the sweep was started"
        raise InputError(problem)
    try:
        hardware = _profile(profile)
        scenario = Scenario.model_validate({"hardware": hardware.name, **orjson.loads(what)})
        return orjson.dumps(_outcome(scenario, hardware))
    except InputError as error:
        return failure(error.problem)
    except Exception as error:  # a scheduler of somebody's own may raise anything
        return failure(f"{type(error).__name__}: {error}")


def failure(message: str) -> bytes:
    """Return the outcome of a point that has none but this message."""
    return orjson.dumps({"error": message})


def _outcome(scenario: Scenario, hardware: HardwareProfile) -> dict[str, Any]:
    result = simulate(scenario, profile=hardware)
    return {
        **result.figures(),
        "gpu_capacity_bytes": max(peak.capacity_bytes for peak in result.peaks[:-1]),
        "host_capacity_bytes": result.peaks[-1].capacity_bytes,
        "limits_s": result.limits_s if result.fits else None,
        "verdict": None if result.fits else str(result.verdict),
    }


@lru_cache(KEPT_PROFILES)
def _profile(values: bytes) -> HardwareProfile:
    return HardwareProfile(description="", validated=False, **orjson.loads(values))
