"""What the table of measured runs itself tells of a large error: repetitions that differ, iterations that vary."""

from __future__ import annotations

from offsim.inputs.fields import parsed_number
from offsim.scenario import Scenario
from offsim.schedulers.registry import scenario_scheduler
from offsim.validation.predictions import Validation
from offsim.validation.run_table import COLUMN_OF, MeasuredRun
from offsim.validation.score import Comparison

REPEATS_DIFFER = 0.03
ITERATIONS_VARY = 0.05


def reasons(validation: Validation, worst: Comparison) -> str:
    """What is known of a large error of a phase's time: sentences, "" where nothing is."""
    runs = {prediction.run.line: prediction.run for prediction in validation.predictions}
    run = runs[worst.line]
    known = [*_repeats(worst, run, list(runs.values())), *_variation(worst, run)]
    scheduler, options = scenario_scheduler(run.scenario)
    if scheduler.spills(options) and worst.phase == "forward":
        known.append("the update's last uploads end in forward, how many varies")
    if run.cell("nodes") not in ("", "1") and worst.phase != "step":
        known.append(f"{run.cell('nodes')} nodes: the network is shared with other jobs")
    return "; ".join(known)


def _repeats(worst: Comparison, run: MeasuredRun, runs: list[MeasuredRun]) -> list[str]:
    """The same configuration measured again, where that took notably longer or shorter."""
    column = COLUMN_OF[worst.phase]
    wanted = _what_matters(run, worst.phase)
    same = [
        other
        for other in runs
        if other.line != run.line and _what_matters(other, worst.phase) == wanted and column in other.measured
    ]
    different = [other for other in same if abs(other.measured[column] / worst.measured - 1) > REPEATS_DIFFER]
    return [
        f"the same {worst.phase} took {other.measured[column]:.0f} {worst.unit} in {other.cell('series')}"
        for other in different[:2]
    ]


def _what_matters(run: MeasuredRun, phase: str) -> Scenario:
    """The configuration that decides on a phase: gradient accumulation does not change the step."""
    scenario = run.scenario
    if phase != "step":
        return scenario
    training = scenario.training
    once = training.model_copy(update={"global_batch": training.micro_batch * training.data_parallel})
    return scenario.model_copy(update={"training": once})


def _variation(worst: Comparison, run: MeasuredRun) -> list[str]:
    """Iterations of the run that differ more than usual."""
    variation = parsed_number(run.cell(COLUMN_OF[worst.phase].replace("_ms", "_cv"))) or 0.0
    return [f"its iterations vary by {100 * variation:.0f} %"] if variation > ITERATIONS_VARY else []
