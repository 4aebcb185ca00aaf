"""Measured runs of a machine whose constants are known: small models, simulated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from offsim.calibration.logs.logged_runs import COLUMNS
from offsim.platform.profiles import load_profile
from offsim.validation.predictions import predict
from offsim.validation.run_table import TIMES, run_of
from tests.validation.conftest import table_text

BASE = "jlse-4xh100"
TRUTH = {
    "host": {"module_launch_s": 4.109e-3 * 1.15, "adam_params_per_s": 7.763e9 * 0.8},
    "link": {"pageable_h2d_bytes_per_s": 1.796e10 * 0.85, "pageable_d2h_bytes_per_s": 3.18e9 * 0.9},
}
"""Section -> field -> value, of what the machine has different from the base."""
_ROW = {
    **{"hardware": BASE, "model": "small", "seq": "1024", "vocab": "32000", "swiglu": "True", "untied": "True"},
    **{"checkpointing": "True", "flash_attn": "True", "tp": "1", "dp": "4", "micro_batch": "1", "global_batch": "4"},
    **{"cpu_ratio": "1", "subgroup_size": "2e7", "kv_heads": "8", "heads": "16"},
}
_SHAPES = ((4, 2048), (6, 2048), (4, 3072), (8, 1536))
SCENARIO = "zero3_20b_4xh100"
LIKE_THEM = [
    *("model.layers=4", "model.hidden=2048", "model.ffn_hidden=8192", "model.sequence=1024", "model.heads=16"),
    *("model.kv_heads=8", "model.vocab=32000", "model.flash_attention=true", "training.subgroup_size=20000000"),
]
"""Overrides with which the scenario is one of the runs."""
_SCHEDULERS = ("zero3_offload", "zero3_offload_async_grads")


def runs_table(path: Path, hardware: str = BASE, truth: Mapping[str, Mapping[str, float]] = TRUTH) -> Path:
    """Eight runs, one a configuration."""
    machine = load_profile(BASE).with_values(truth)
    rows = []
    for layers, hidden in _SHAPES:
        for scheduler in _SCHEDULERS:
            row = dict.fromkeys(COLUMNS, "") | _ROW
            row |= {"layers": str(layers), "hidden": str(hidden), "ffn_hidden": str(4 * hidden), "scheduler": scheduler}
            predicted = predict(run_of(path, 1, row), machine).values
            rows.append(row | {column: f"{predicted[column]:.4f}" for column in TIMES} | {"hardware": hardware})
    path.write_text(table_text(rows))
    return path
