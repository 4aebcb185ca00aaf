"""The commands that simulate a scenario many times over."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from offsim.cli.arguments import (
    AllRanksOption,
    CsvOption,
    JobsOption,
    JsonOption,
    PriceOption,
    StrictOption,
    argument,
    end_strictly,
    flag,
    option,
    plot_option,
)
from offsim.cli.imports import Given, takes_scenario
from offsim.cli.outputs import check_outputs, give, rows_of, write_picture
from offsim.cli.terminal import note
from offsim.inputs.errors import InputError


@takes_scenario(None)
def sweep(
    given: Given,
    sweep: Annotated[str, argument("SWEEP", "A YAML file, or the name of a sweep that comes with offsim.")],
    out: Annotated[str, option("RESULTS", "The folder to keep results in.")],
    jobs: JobsOption = None,
    resume: Annotated[
        bool, flag("--resume", "Continue in a folder that has results; nothing is simulated twice.")
    ] = False,
    max_points: Annotated[int, option("N", "Refuse sweeps of more points.", min=1)] = 100_000,
    dask: Annotated[
        str | None, option("ADDRESS", "Use the workers of this Dask scheduler, such as tcp://host:8786.")
    ] = None,
    price: PriceOption = None,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """Simulate every combination of many values.

    A sweep names a scenario and values to try of scheduler, hardware, model and training; all combinations become one
    Parquet table in the folder. Whatever interrupts it, --resume continues. With --deepspeed, --fsdp or --trainer the
    scenario is made from them, and --set changes it.
    """
    from offsim.cli.sweeps import followed, planned, sweep_report
    from offsim.study.sweeps.parquet import read_results
    from offsim.study.sweeps.sweep import run_sweep

    check_outputs({"--json": json, "--csv": csv}, inputs=[sweep, *given.inputs])
    if not out:
        raise InputError("found an empty name, expected a folder's", "--out ''")
    plan = planned(sweep, given, price)
    given.tell(plan.bases[0], json, csv)
    with followed(out) as report:
        finished = run_sweep(plan, Path(out), jobs=jobs, resume=resume, max_points=max_points, dask=dask, report=report)

    def rows() -> list[dict[str, Any]]:
        return rows_of(read_results(out))

    give(json, partial(sweep_report, out, finished), lambda: {"points": rows()}, csv, rows)


@takes_scenario(price=PriceOption)
def tune(
    given: Given,
    over: Annotated[
        str | None,
        option(
            "NAME,NAME,...",
            "What to choose among: scheduler, options of schedulers, subgroup_size, micro_batch (these and all "
            "options that declare values to try if not given), activation_checkpointing.",
        ),
    ] = None,
    tries: Annotated[
        list[str] | None, option("NAME=VALUE,...", "Values to try in place of the usual. May be repeated.", "--try")
    ] = None,
    objective: Annotated[
        str,
        option(
            "NAME",
            "iteration_time: the global batch stays; tokens_per_s: it grows with the micro-batch, and the "
            "accumulation steps stay.",
        ),
    ] = "iteration_time",
    headroom: Annotated[float, option("SHARE", "Share of each memory that must stay free.")] = 0.05,
    budget: Annotated[int | None, option("N", "Simulate at most so many settings, a sample of all.")] = None,
    jobs: JobsOption = None,
    with_upgrades: Annotated[bool, flag("--upgrades/--no-upgrades", "Say what better hardware would buy.")] = True,
    largest: Annotated[
        bool, flag("--largest-model", "Find the largest model of this kind that fits instead, with each scheduler.")
    ] = False,
    strict: StrictOption = False,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """Find the fastest setting that fits in memory.

    Simulates every combination of the settings: the fastest, the fastest with less GPU memory, and what better hardware
    would buy. With --largest-model the model grows, in published shapes and then by layers, until nothing fits.
    """
    from offsim.cli.tuning import largest_json, largest_report, largest_rows, tuning_json, tuning_report, values_to_try
    from offsim.study.processes import cores, in_order, worker_processes
    from offsim.study.tuning.largest import largest_models
    from offsim.study.tuning.tune import Mapper, Question
    from offsim.study.tuning.tune import tune as find_fastest
    from offsim.study.tuning.upgrades import upgrades

    check_outputs({"--json": json, "--csv": csv}, inputs=given.inputs)
    chosen = given.load()
    names = None if over is None else [name.strip() for name in over.split(",")]
    tried = values_to_try(tries or ())
    question = Question(names, tried, objective, headroom, budget)  # type: ignore[arg-type]  # checked there
    with worker_processes(jobs or cores(), "--jobs 1 needs none") as workers:
        mapper: Mapper = map if (jobs or cores()) == 1 else partial(in_order, workers)
        if largest:
            found = largest_models(chosen, question, mapper)
            given.tell(chosen, json, csv)
            give(json, partial(largest_report, found), lambda: largest_json(found), csv, partial(largest_rows, found))
            end_strictly(strict, bool(found.models))
            return
        tuning = find_fastest(chosen, question, mapper)
        bought = upgrades(tuning, mapper) if with_upgrades and tuning.best else []
    given.tell(chosen, json, csv)
    text = partial(tuning_report, chosen.name, tuning, bought)
    give(json, text, lambda: tuning_json(tuning, bought), csv, lambda: rows_of(tuning.table))
    end_strictly(strict, tuning.best is not None)


@takes_scenario()
def optimum(given: Given, json: JsonOption = None, csv: CsvOption = None) -> None:
    """Find how far schedules are from the best one.

    Searches every way to divide up to 8 sub-groups among GPU and CPU (state on the GPU, updated on the CPU, or fetched
    to the GPU and flushed back), and orders of updates, by simulation.
    """
    from offsim.cli.optimum import optimum_report
    from offsim.study.optimum.search import distances

    check_outputs({"--json": json, "--csv": csv}, inputs=given.inputs)
    found = distances(given.load())
    given.tell(found.scenario, json, csv)
    give(json, partial(optimum_report, found), found.to_dict, csv, lambda: found.to_dict()["schedules"])


@takes_scenario()
def sensitivity(
    given: Given,
    plot: Annotated[str | None, plot_option("Draw what each value's range does to the time")] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    all_ranks: AllRanksOption = False,
) -> None:
    """Find which hardware values the time depends on.

    Simulates the scenario with each value a little lower and higher: percent of time per percent of the value, for the
    iteration and each phase. Where runs of this hardware were held out of its fit, also how sure
    the time is.
    """
    from offsim.cli.sensitivity import sensitivity_report
    from offsim.results.simulate import simulate
    from offsim.study.sensitivities.sensitivity import sensitivity_of
    from offsim.views.facts import facts_of
    from offsim.views.text import result_text
    from offsim.views.wording import drawing_title

    check_outputs({"--plot": plot, "--json": json, "--csv": csv}, inputs=given.inputs)
    result = simulate(given.load(), all_ranks=all_ranks)
    found = sensitivity_of(result) if result.fits else None
    given.tell(result.scenario, json, csv)
    if found:
        give(json, partial(sensitivity_report, found), found.to_dict, csv, lambda: found.to_dict()["values"])
    else:
        give(json, partial(result_text, facts_of(result)), lambda: result.to_dict(series=False), csv)
    if plot is not None and found:
        write_picture(plot, found.plot(title=drawing_title(result)))
    elif plot is not None:
        note(f"nothing to draw, {plot} not written: the scenario does not fit")
