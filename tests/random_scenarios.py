"""Hypothesis strategies: small scenarios of all kinds on nodes of all kinds."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from small_scenarios import SCHEDULERS, profile, scenario

from offsim.platform.hardware import HardwareProfile


@st.composite
def nodes(draw: st.DrawFn) -> HardwareProfile:
    """Nodes of 4 GPUs whose shared resources range from ample to scarce."""
    uplinks = draw(st.sampled_from([{}, {"gpus_per_uplink": 2, "uplink_bytes_per_s": 2.5e10}]))
    return profile(
        gpu={"kernel_latency_s": draw(st.sampled_from([0.0, 1e-6]))},
        host={
            "numa_domains": draw(st.sampled_from([1, 2, 4])),
            "memory_bytes_per_s": draw(st.sampled_from([1e10, 5e10, 1e12])),
            "cores": draw(st.sampled_from([2.0, 16.0])),
        },
        link={
            "duplex_bytes_per_s": draw(st.sampled_from([2e10, 3e10, 4e10])),
            "copy_latency_s": draw(st.sampled_from([0.0, 1e-5])),
            **uplinks,
        },
        interconnect={"collective_gpu_share": draw(st.sampled_from([0.0, 0.3]))},
    )


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.sampled_from([2, 4]))
    training = {
        "micro_batch": draw(st.integers(1, 2)),
        "data_parallel": draw(st.sampled_from([1, 2, 3, 4, 8])),
        "tensor_parallel": draw(st.sampled_from([1, 1, 2])),
        "activation_checkpointing": draw(st.booleans()),
        "subgroup_size": draw(st.sampled_from([2_000, 20_000, 10**6])),
    }
    training["global_batch"] = training["micro_batch"] * training["data_parallel"] * draw(st.integers(1, 2))
    model = {
        "layers": draw(st.integers(1, 5)),
        "hidden": heads * draw(st.sampled_from([8, 32])),
        "heads": heads,
        "kv_heads": draw(st.sampled_from([1, 2])),
        "flash_attention": draw(st.booleans()),
        "tied_embeddings": draw(st.booleans()),
    }
    return scenario(draw(st.sampled_from(SCHEDULERS)), model=model, training=training)
