"""What a prediction depends on besides the hardware: the dimensions in which configurations are compared."""

from __future__ import annotations

from typing import Any

from offsim.platform.hardware import HardwareProfile
from offsim.platform.layout import Layout
from offsim.platform.measured import Dimensions
from offsim.programs.training import BUCKET_ELEMENTS
from offsim.scenario import Scenario
from offsim.simulation import checked

OF_PARAMETERS = {"ffn_hidden", "heads", "kv_heads", "vocab", "swiglu", "tied_embeddings"}
"""Of the model: the number of parameters stands for them."""
OF_STEPS = {"global_batch", "activation_checkpointing"}
"""Of training: micro-steps and the layers recomputed stand for them."""
OPTIMIZER_IN = "share of optimizer in "
"""Before a tier: of the sub-groups."""


def dimensions(scenario: Scenario, profile: HardwareProfile) -> Dimensions:
    """Return name -> value, keys of the scenario by their own names. Raises InputError for what cannot be simulated."""
    workload, scheduler, options, placed = checked(scenario, profile)
    model, training = scenario.model, scenario.training
    ranks = training.data_parallel * training.tensor_parallel
    found: dict[str, Any] = {"parameters": workload.parameters * training.tensor_parallel}
    found |= {f"model.{name}": value for name, value in model if name not in OF_PARAMETERS}
    found |= {f"training.{name}": value for name, value in training if name not in OF_STEPS}
    found |= {
        "training.micro_steps": training.micro_steps,
        "training.zero_stage": str(training.zero_stage),
        "training.reduce_bucket_size": training.reduce_bucket_size or BUCKET_ELEMENTS,
        "nodes": Layout.of(ranks, profile, all_ranks=False).nodes,
        "share of layers recomputed": placed.recomputed / model.layers,
        "parameters in": placed.parameters,
        "activations in": placed.activations,
        "rule of activations": scenario.placement.activations.rule or "none",
        "checkpoints": scenario.checkpoint is not None,
        "scheduler": scheduler.name,
    }
    for tier in sorted(set(placed.optimizer)):
        found[f"{OPTIMIZER_IN}{tier}"] = placed.optimizer.count(tier) / len(placed.optimizer)
    # An option that says where optimizer state is has been worked out above.
    given = options.model_dump(exclude={*scheduler.placement_options})
    found |= {f"scheduler.{name}": value for name, value in given.items()}
    return {name: value if isinstance(value, bool | int | float) else str(value) for name, value in found.items()}
