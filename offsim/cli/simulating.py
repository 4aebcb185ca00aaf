"""The commands that simulate scenarios one by one, and those that list scenarios and schedulers or say their form.

Each is declared and carried out in one place: it checks its files, simulates, prints, writes. Text comes first and is
complete before the slower pictures are begun. What only one command needs is imported in it, so that all start at once.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from offsim.cli.arguments import (
    AllRanksOption,
    CsvOption,
    JsonOption,
    PriceOption,
    StrictOption,
    argument,
    end_strictly,
    flag,
    option,
    plot_option,
    scenarios_from,
    scheduler_option,
    schedulers_from,
)
from offsim.cli.imports import Given, takes_scenario
from offsim.cli.outputs import STDOUT, check_outputs, give, write_picture, writing
from offsim.cli.terminal import note, show, style_of, wrapped
from offsim.inputs.errors import InputError

if TYPE_CHECKING:
    from offsim.api import Result


@takes_scenario(price=PriceOption)
def run(
    given: Given,
    scheduler: Annotated[str | None, scheduler_option("Replace the scenario's scheduler.")] = None,
    plot: Annotated[str | None, plot_option("Draw timeline, bandwidth and memory on one page")] = None,
    trace: Annotated[str | None, option("FILE", "Write a trace for Perfetto (.json, .json.gz).")] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    all_ranks: AllRanksOption = False,
    interval: Annotated[
        bool, flag("--interval", "Add how far measured runs that no fit used were from predictions on this hardware.")
    ] = False,
    emit_scenario: Annotated[
        str | None, option("FILE", "Write the scenario, with where its values come from (.yaml).")
    ] = None,
    strict: StrictOption = False,
) -> None:
    """Simulate one iteration of a scenario.

    Says how long each phase takes, what limits it, how busy each resource is, where memory peaks; and where the
    scenario does not fit in memory, what ran out, who held it, and single changes with which it fits. What became of
    each key of --deepspeed, --fsdp, --trainer and --model is listed first.
    """
    from offsim import api
    from offsim.cli.imports import write_scenario
    from offsim.cli.schedulers import under
    from offsim.cli.trust import trust_lines
    from offsim.results.interval import interval_dict
    from offsim.views.facts import facts_of
    from offsim.views.text import result_text

    outputs = {"--plot": plot, "--trace": trace, "--json": json, "--csv": csv, "--emit-scenario": emit_scenario}
    check_outputs(outputs, inputs=given.inputs)
    chosen = given.load()
    if scheduler is not None:
        chosen = under(chosen, scheduler)
    result = api.simulate(chosen, all_ranks=all_ranks)
    given.tell(chosen, json, csv)
    known = result.interval if interval and result.fits else None
    trust = trust_lines(result) if interval and result.fits else {}
    give(
        json,
        lambda style: result_text(facts_of(result, interval=known, trust=trust), style),
        lambda: result.to_dict() | (interval_dict(result) if interval else {}),
        csv,
        lambda: [{"name": result.name, **result.figures(), "inside_measured_range": result.measured_range.inside}],
    )
    if emit_scenario is not None:
        write_scenario(emit_scenario, chosen, given.draft)
    _draw(result, plot, trace)
    end_strictly(strict, result.fits)


@takes_scenario(price=PriceOption)
def compare(
    given: Given,
    schedulers: Annotated[
        list[str] | None, scheduler_option("A scheduler to compare; may be repeated. Without any, all that apply.")
    ] = None,
    every: Annotated[
        bool,
        flag(
            "--all",
            "All that can run the scenario, with its ZeRO stage or placement changed where they need it, and why "
            "the others cannot; --plot draws one page of bars.",
        ),
    ] = False,
    plot: Annotated[str | None, plot_option("Draw the timelines on one time axis")] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    all_ranks: AllRanksOption = False,
    strict: StrictOption = False,
) -> None:
    """Compare schedulers side by side.

    Simulates the scenario under each. Options that the scenario gives are kept where a scheduler has them too.
    --strict wants all to fit, with --all one.
    """
    if every and schedulers:
        raise InputError("found --scheduler as well, expected one of them", "--all")
    check_outputs({"--plot": plot, "--json": json, "--csv": csv}, inputs=given.inputs)
    if every:
        end_strictly(strict, _compare_all(given, plot, json, csv, all_ranks))
        return
    from offsim import api
    from offsim.cli.schedulers import chosen
    from offsim.views.facts import comparison_facts
    from offsim.views.text import comparison_text

    scenario = given.load()
    scenarios, left_out = chosen(scenario, schedulers or [])
    comparison = api.compare(scenarios, all_ranks=all_ranks)
    for line in left_out:
        note(line)
    given.tell(scenario, json, csv)
    give(json, partial(comparison_text, comparison_facts(comparison)), comparison.to_dict, csv, comparison.figures)
    missing = [label for label, result in zip(comparison.labels, comparison, strict=True) if not result.fits]
    if plot is not None and len(missing) == len(comparison):
        note(f"nothing to draw, {plot} not written: none of the schedulers fits")
    elif plot is not None:
        unfit = f"; does not fit: {', '.join(missing)}" if missing else ""
        write_picture(plot, comparison.plot(title=comparison[0].name + unfit))
    end_strictly(strict, not missing)


def _compare_all(given: Given, plot: str | None, json: str | None, csv: str | None, all_ranks: bool) -> bool:
    """Whether any fits."""
    from offsim.results.survey import survey
    from offsim.views.survey import survey_text

    found = survey(given.load(), all_ranks=all_ranks)
    given.tell(found.scenario, json, csv)
    give(json, partial(survey_text, found), found.to_dict, csv, found.figures)
    if plot is not None:
        from offsim.views.survey_picture import plot_survey

        write_picture(plot, plot_survey(found, title=f"All schedules on {found.scenario.name}"))
    return bool(found.fitting)


@takes_scenario(
    Annotated[
        list[str] | None,
        argument("SCENARIO", "YAML files, or names of scenarios that come with offsim.", scenarios_from),
    ]
)
def report(
    given: Given,
    html: Annotated[str, option("FILE", "The page to write (.html).")],
    schedulers: Annotated[
        list[str] | None, scheduler_option("Simulate each scenario under this one instead; may be repeated.")
    ] = None,
    strict: StrictOption = False,
) -> None:
    """Write a page about one scenario or several, to send around.

    One HTML file that needs no network: times, what limits each phase, timelines to zoom into, memory over time, and
    where every hardware value comes from.
    """
    from offsim import api
    from offsim.cli.schedulers import under
    from offsim.views.facts import facts_of
    from offsim.views.text import brief_lines

    check_outputs({"--html": html}, inputs=given.inputs)
    chosen = given.load_all()
    scenario = chosen[0]
    if schedulers:
        chosen = [under(scenario, text) for scenario in chosen for text in schedulers]
    labels = [scenario.name for scenario in chosen] if len(chosen) == 1 else []
    comparison = api.compare(chosen, labels=labels)
    given.tell(scenario)
    style = style_of(sys.stdout)
    for label, result in zip(comparison.labels, comparison, strict=True):
        lines = [wrapped(line, "  ", "    ") for line in brief_lines(facts_of(result, resources=False))]
        show("\n".join([style.heading(label), *lines]))
    with writing("--html", html):
        comparison.to_html(html)
    end_strictly(strict, all(result.fits for result in comparison))


def scenarios(
    name: Annotated[str | None, argument("NAME", "Print this one.", scenarios_from)] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """List scenarios that come with offsim, or print one.

    Prints it as it is, to start from: offsim scenarios NAME > mine.yaml
    """
    from offsim.cli.listings import scenario_text, scenarios_report, scenarios_rows

    check_outputs({"--json": json, "--csv": csv})
    if name is None:
        give(json, scenarios_report, lambda: {"scenarios": scenarios_rows()}, csv, scenarios_rows)
        return
    if json or csv:
        raise InputError(
            "found a scenario as well, expected none: it is printed as it is", "--json" if json else "--csv"
        )
    show(scenario_text(name))


def schedulers(
    name: Annotated[str | None, argument("NAME", "Show this one.", schedulers_from)] = None,
    json: JsonOption = None,
    csv: CsvOption = None,
) -> None:
    """List schedulers and activation rules, or show one.

    Shows what it does and its options with type, bounds and default.
    """
    from offsim.cli.listings import option_rows, scheduler_report, schedulers_report, schedulers_rows

    check_outputs({"--json": json, "--csv": csv})
    if name is None:
        give(json, schedulers_report, lambda: {"schedulers": schedulers_rows()}, csv, schedulers_rows)
        return
    rows = partial(option_rows, name)
    give(json, partial(scheduler_report, name), lambda: {"name": name, "options": rows()}, csv, rows)


def schema(
    of: Annotated[Literal["scenario", "profile"], typer.Argument(help="What the files describe.")],
) -> None:
    """Print the JSON Schema of scenarios or profiles, for editors."""
    from offsim.schema import SCHEMAS

    give(STDOUT, lambda _: "", SCHEMAS[of])


def _draw(result: Result, plot: str | None, trace: str | None) -> None:
    from offsim.results.verdict import DoesNotFit
    from offsim.views.facts import facts_of
    from offsim.views.text import brief_lines

    try:
        if plot is not None:
            facts = facts_of(result, resources=False)
            write_picture(plot, result.plot_page(title=facts.title, subtitle="\n".join(brief_lines(facts))))
        if trace is not None:
            with writing("--trace", trace):
                result.to_perfetto(trace)
    except DoesNotFit:
        unwritten = " and ".join(path for path in (plot, trace) if path is not None)
        note(f"nothing to draw, {unwritten} not written: memory ran out before the iteration began")
