"""What a node is made of, in numbers.

A profile is a YAML file of sections; every value carries where it comes from. This module holds the
sections as plain, typed models. Units: SI (seconds, bytes, FLOPs, and these per second); a name says its
unit. Reading and checking the files is `offsim.platform.profiles`' work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from offsim.inputs.errors import Expected
from offsim.inputs.fields import Number, Section, section_type

Source = Literal["measured", "fitted", "datasheet", "derived", "assumed"]


class Provenance(Section):
    """Where one value of a profile comes from, and the 95 % interval that it lies in, where one is known."""

    source: Source
    note: str = ""
    error: str = ""
    low: Number | None = None
    high: Number | None = None


class Gpu(Section):
    """One GPU. `*_per_s` are achieved rates, not peaks."""

    memory_bytes: float = Field(gt=0, description="device memory that the driver reports")
    reserved_bytes: float = Field(ge=0, description="context, communicators and fragmentation: never usable by tensors")
    matrix_flops_per_s: float = Field(gt=0, description="bf16 GEMM rate that large matrices approach")
    kernel_latency_s: float = Field(ge=0, description="fixed time of a kernel on the device; small GEMMs lose to it")
    hbm_bytes_per_s: float = Field(gt=0, description="rate of element-wise kernels in bytes read plus written")
    adam_params_per_s: float = Field(gt=0, description="AdamW with fp32 state")
    peak_flops_per_s: float = Field(gt=0, description="datasheet bf16 dense peak, for utilisation figures only")
    peak_hbm_bytes_per_s: float | None = Field(
        default=None, gt=0, description="datasheet peak, to check other values by"
    )


class Host(Section):
    """The CPU side of a node: NUMA domains of equal size."""

    memory_bytes: float = Field(gt=0, description="host memory of the node")
    numa_domains: int = Field(ge=1, description="domains that ranks are spread over; 1 where ranks are unbound")
    memory_bytes_per_s: float = Field(gt=0, description="memory bandwidth of one domain, reads plus writes")
    cores: float = Field(gt=0, description="physical cores of one domain")
    cores_per_rank: float = Field(gt=0, description="cores that a rank's parallel CPU work keeps busy")
    adam_params_per_s: float = Field(gt=0, description="CPU Adam of a rank with nothing else running")
    torch_adam_params_per_s: float | None = Field(
        default=None, gt=0, description="PyTorch's Adam on the CPU, a loop over tensors; none: by its memory traffic"
    )
    scale_params_per_s: float = Field(gt=0, description="gradient scaling (read 4, write 4 B) of a rank, alone")
    downcast_params_per_s: float = Field(gt=0, description="fp32 -> bf16 of a rank, alone")
    fresh_downcast_params_per_s: float | None = Field(
        default=None, gt=0, description="into fresh pages, as the serial update; none: downcast_params_per_s"
    )
    upcast_params_per_s: float = Field(gt=0, description="bf16 -> fp32 of a rank, alone")
    fresh_page_bytes_per_s: float | None = Field(
        default=None, gt=0, description="the kernel maps and zeroes pages of a large new buffer; none: free"
    )
    copy_bytes_per_s: float = Field(default=1e10, gt=0, description="copies of a rank within host memory, bytes copied")
    module_launch_s: float = Field(
        ge=0, description="host thread time to run one transformer layer's forward hooks and launches"
    )
    subgroup_launch_s: float = Field(ge=0, description="host thread time per sub-group before the update loop")
    update_start_s: float = Field(ge=0, description="what the first CPU sub-group of an update costs more")


class Link(Section):
    """Host <-> GPU link of one GPU."""

    h2d_bytes_per_s: float = Field(gt=0, description="pinned host to device")
    d2h_bytes_per_s: float = Field(gt=0, description="pinned device to host")
    duplex_bytes_per_s: float = Field(gt=0, description="both directions together")
    copy_latency_s: float = Field(ge=0, description="fixed time of a copy")
    pageable_h2d_bytes_per_s: float = Field(gt=0, description="pageable host to device; blocks the host thread")
    pageable_d2h_bytes_per_s: float = Field(gt=0, description="device to pageable host; blocks the host thread")
    gpus_per_uplink: int = Field(default=1, ge=1, description="GPUs behind one switch or host port")
    uplink_bytes_per_s: float | None = Field(default=None, gt=0, description="rate of that port in each direction")

    peak_bytes_per_s: float | None = Field(
        default=None, gt=0, description="datasheet peak of a direction, to check other values by"
    )

    @model_validator(mode="after")
    def _shared_uplink_has_a_rate(self) -> Link:
        if self.gpus_per_uplink > 1 and self.uplink_bytes_per_s is None:
            raise Expected("1 where uplink_bytes_per_s is not given", at=("gpus_per_uplink",))
        return self


class Interconnect(Section):
    """GPU <-> GPU links and the network."""

    gpu_bytes_per_s: float = Field(gt=0, description="ring bus bandwidth of a collective inside a node")
    nic_bytes_per_s: float | None = Field(
        default=None, gt=0, description="ring bandwidth between nodes, per node and direction"
    )
    shared_nic_bytes_per_s: float | None = Field(
        default=None, gt=0, description="the same of several rings together; none: as of one"
    )
    collective_latency_s: float = Field(ge=0, description="fixed time of a collective")
    collective_gpu_share: float = Field(ge=0, le=1, description="share of the GPU that a running collective takes")
    over_pcie: int = Field(
        default=0, ge=0, le=1, description="1 where GPUs have no links of their own: collectives fill the host link"
    )


class TierSpec(Section):
    """A tier beyond GPU and host memory, by its own name: nvme, pfs, cxl. Reads and writes share the device."""

    kind: Literal["storage", "memory", "csd"] = Field(
        default="storage",
        description="storage, memory that the CPU addresses (CXL), or computational storage behind a shared link",
    )
    scope: Literal["node", "job"] = Field(default="node", description="who shares it: the ranks of a node, or all")
    capacity_bytes: float = Field(gt=0, description="bytes of the tier")
    read_bytes_per_s: float = Field(gt=0, description="the device's rate of reads alone, for all who share it")
    write_bytes_per_s: float = Field(gt=0, description="the device's rate of writes alone, for all who share it")
    process_read_bytes_per_s: float | None = Field(default=None, gt=0, description="reads of one process; none: all")
    process_write_bytes_per_s: float | None = Field(default=None, gt=0, description="writes of one process; none: all")
    latency_s: float = Field(default=0.0, ge=0, description="fixed time of a request")
    devices: int = Field(default=1, ge=1, description="computational storage devices that share the tier's link")
    device_read_bytes_per_s: float | None = Field(default=None, gt=0, description="a device reads for its own kernel")
    device_write_bytes_per_s: float | None = Field(default=None, gt=0, description="a device writes for its own kernel")
    device_params_per_s: float | None = Field(default=None, gt=0, description="Adam by a device's kernel")

    @model_validator(mode="after")
    def _devices_have_rates(self) -> TierSpec:
        rates = ("device_read_bytes_per_s", "device_write_bytes_per_s", "device_params_per_s")
        for name in rates if self.kind == "csd" else ():
            if getattr(self, name) is None:
                raise Expected("a rate, as the tier is of kind csd", at=(name,))
        return self


class Measurement(Section):
    """What the measuring itself costs on this testbed; part of `iteration_ms` in measured tables only."""

    iteration_overhead_s: float = Field(ge=0, description="iteration less (forward + backward + step)")
    pcie_counter_overhead: float = Field(default=1.0, ge=1, description="PCIe counters' bytes over payload bytes")


class HardwareProfile(Section):
    """A node type, and where each of its values comes from."""

    name: str
    description: str
    gpus_per_node: int = Field(ge=1)
    validated: bool = Field(description="whether predictions were compared with measured runs")
    gpu: Gpu
    host: Host
    link: Link
    interconnect: Interconnect
    tiers: dict[str, TierSpec] = Field(default_factory=dict)
    measurement: Measurement = Measurement(iteration_overhead_s=0.0)
    runs: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="scheduler -> options of this testbed's measured runs that tables do not say"
    )
    provenance: dict[str, Provenance] = Field(default_factory=dict)

    def sections(self) -> dict[str, BaseModel]:
        """Return section or tier -> its values, in the order of a profile file."""
        return {name: getattr(self, name) for name in FIXED_SECTIONS} | self.tiers

    def with_values(self, changes: Mapping[str, Mapping[str, Any]]) -> HardwareProfile:
        """Return a copy with these values, section or tier -> field -> value, in place of its own."""
        update: dict[str, Any] = {}
        for name, values in changes.items():
            if name in self.tiers:
                tiers = update.setdefault("tiers", dict(self.tiers))
                tiers[name] = tiers[name].model_copy(update=values)
            else:
                update[name] = getattr(self, name).model_copy(update=values)
        return self.model_copy(update=update)


FIXED_SECTIONS: dict[str, type[BaseModel]] = {
    name: model for name, field in HardwareProfile.model_fields.items() if (model := section_type(field.annotation))
}
"""Sections that every profile may have; tiers beyond GPU and host memory are sections of their own names."""
