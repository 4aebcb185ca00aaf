"""Which constants of a profile runs may determine, how far from its values they may be, and what physics allows."""

from __future__ import annotations

from collections.abc import Iterable

from offsim.calibration.runs.fit import Constant, Recipe
from offsim.inputs.errors import InputError
from offsim.inputs.units import unit_of
from offsim.platform.hardware import HardwareProfile, Source
from offsim.programs.rank import ADAM_TRAFFIC

SPREADS: dict[Source, float] = {"measured": 0.1, "fitted": 0.15, "datasheet": 0.2, "derived": 0.3, "assumed": 0.5}
"""By a value's source, one standard deviation of its logarithm: what was measured on a machine of the kind differs
less from machine to machine than what was guessed."""

FIELDS = (
    *("gpu.matrix_flops_per_s", "gpu.kernel_latency_s", "gpu.hbm_bytes_per_s", "gpu.adam_params_per_s"),
    *("host.memory_bytes_per_s", "host.adam_params_per_s", "host.scale_params_per_s", "host.downcast_params_per_s"),
    *("host.fresh_downcast_params_per_s", "host.upcast_params_per_s", "host.fresh_page_bytes_per_s"),
    *("host.copy_bytes_per_s", "host.module_launch_s", "host.subgroup_launch_s", "host.update_start_s"),
    *("link.h2d_bytes_per_s", "link.d2h_bytes_per_s", "link.duplex_bytes_per_s"),
    *("link.pageable_h2d_bytes_per_s", "link.pageable_d2h_bytes_per_s"),
    *("interconnect.gpu_bytes_per_s", "interconnect.nic_bytes_per_s", "interconnect.shared_nic_bytes_per_s"),
    "interconnect.collective_gpu_share",
)
"""What runs may determine. Capacities and counts are facts, and are not fitted."""
TIER_FIELDS = ("read_bytes_per_s", "write_bytes_per_s", "process_read_bytes_per_s", "process_write_bytes_per_s")
"""What runs may determine of a tier beyond GPU and host memory."""

OVER_PEAK = 1.1
"""How far a copy may exceed its link's datasheet peak: timers and rounded datasheets are not exact."""


def value_of(profile: HardwareProfile, field: str) -> float | None:
    """The value of a dotted field; None where the profile has none."""
    section, _, name = field.rpartition(".")
    value = getattr(profile.sections().get(section, profile if not section else None), name, None)
    return None if value is None else float(value)


def fields_of(profile: HardwareProfile) -> list[str]:
    """Dotted names of what runs may determine of a profile, its tiers included."""
    return [*FIELDS, *(f"{tier}.{field}" for tier in profile.tiers for field in TIER_FIELDS)]


def general_recipe(profile: HardwareProfile, known: Iterable[str] = ()) -> Recipe:
    """The fit of any profile: its constants but for those that are `known`, about as plausible as their sources."""
    constants = []
    for field in fields_of(profile):
        value = value_of(profile, field)
        if field in known or not value:  # without a value, or without such hardware, there is nothing to start from
            continue
        spread = SPREADS[profile.provenance[field].source if field in profile.provenance else "assumed"]
        most = max(limit(profile, field), value)
        constants.append(Constant(field, value, spread, ((profile.name, field, 1.0),), most))
    return Recipe(profile.name, tuple(constants))


def limit(profile: HardwareProfile, field: str) -> float:
    """The most that physics lets a field be; infinite where the profile has no peak to tell it by."""
    gpu, link = profile.gpu, profile.link
    copies = OVER_PEAK * link.peak_bytes_per_s if link.peak_bytes_per_s else float("inf")
    hbm = gpu.peak_hbm_bytes_per_s or float("inf")
    limits = {
        "gpu.matrix_flops_per_s": gpu.peak_flops_per_s,
        "gpu.hbm_bytes_per_s": hbm,
        "gpu.adam_params_per_s": hbm / ADAM_TRAFFIC,
        "link.duplex_bytes_per_s": 2 * copies,
        "interconnect.collective_gpu_share": 1.0,
    }
    copying = field.startswith("link.") and field.endswith("_bytes_per_s")
    return limits.get(field, copies if copying else float("inf"))


def check(profile: HardwareProfile, field: str, value: float, where: str) -> None:
    """Raise InputError for a value that contradicts physics; `where` is what it was measured in."""
    if value < 0:
        raise InputError(f"{field}: found {value:.4g} {unit_of(field)}, expected at least 0", where)
    most = limit(profile, field)
    if value > most:
        expected = f"at most {most:.4g} by the datasheet peaks of {profile.name}; is it the right base?"
        raise InputError(f"{field}: found {value:.4g} {unit_of(field)}, expected {expected}", where)
