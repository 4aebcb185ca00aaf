"""What large runs cost: prints CPU time and memory, each of a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUN = """
import resource, sys, time
from offsim import simulate
from offsim.scenario import load_scenario, scenario_profile

name, gpus, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
overrides = [f"training.global_batch={batch}"]
profile = None
if gpus:
    overrides.append(f"training.data_parallel={gpus}")
    profile = scenario_profile(load_scenario(name))
    host = {"cores": 7 * gpus, "memory_bytes": 2e12 / 8 * gpus, "memory_bytes_per_s": profile.host.memory_bytes_per_s}
    profile = profile.model_copy(update={"gpus_per_node": gpus, "host": profile.host.model_copy(update=host)})
begin = time.process_time()
result = simulate(name, overrides, all_ranks=bool(gpus), profile=profile, max_operations=10**7)
seconds = time.process_time() - begin
mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
assert result.fits
count = len(result.run.engine.operations)
print(f"{count:,} operations, {seconds:.1f} s, {1e6 * seconds / count:.1f} us an operation, {mebibytes:.0f} MiB")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gpus", "batch"),
    [("dos_70b_dgx_h200", 512, 512), ("dos_20b_4xh100", 0, 4096)],
    ids=["512 ranks", "1,024 micro-steps"],
)
def test_large_runs(name: str, gpus: int, batch: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Ranks of one node, none of which stands for others, on the memory of a node of 8."""
    command = [sys.executable, "-c", RUN, name, str(gpus), str(batch)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    with capsys.disabled():
        print(f"  {name}, {gpus or 1} ranks, batch {batch}: {told.strip()}")
