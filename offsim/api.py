"""The results of `import offsim`: they draw themselves and write pages and traces."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from offsim.results import comparison as comparisons
from offsim.results import result as results
from offsim.results import simulate as simulation
from offsim.results import survey as surveys

if TYPE_CHECKING:
    from offsim.views.figure import Picture

P = ParamSpec("P")
PlainT = TypeVar("PlainT")
DrawnT = TypeVar("DrawnT")


class Result(results.Result):
    """One simulated iteration, with plots. Times are seconds since its start, sizes bytes, rates per second.

    A scenario that does not fit in memory has a `verdict` and no times: accessing one raises DoesNotFit.
    """

    @classmethod
    def of(cls, plain: results.Result) -> Result:
        """The same result, with plots."""
        drawable = cls.__new__(cls)
        vars(drawable).update(vars(plain))
        return drawable

    def plot_timeline(self, **options: Any) -> Picture:
        """The timeline of each stream; options as in `offsim.views.timeline.plot_timeline`."""
        from offsim.views.timeline import plot_timeline

        self._require_phases()
        return plot_timeline(self.timeline, self.phases, **{"title": self.name, **options})

    def plot_memory(self, **options: Any) -> Picture:
        """Occupants of each memory tier over time; options as in `offsim.views.memory.plot_memory`."""
        from offsim.views.memory import plot_memory

        self._require_phases()
        capacities = {peak.tier: peak.capacity_bytes for peak in self.peaks}
        return plot_memory(self.memory, capacities, self.phases, **{"title": self.name, **options})

    def plot_bandwidth(self, **options: Any) -> Picture:
        """Bytes per second of each link and of host memory; options as in `offsim.views.bandwidth.plot_bandwidth`."""
        from offsim.results.utilization import capacities
        from offsim.views.bandwidth import plot_bandwidth

        self._require_phases()
        return plot_bandwidth(self.bandwidth, capacities(self.run), self.phases, **{"title": self.name, **options})

    def plot_page(self, *, rank: int = 0, **options: Any) -> Picture:
        """All three plots of one rank on one time axis; options as in `offsim.views.page.plot_page`."""
        from offsim.results.utilization import capacities
        from offsim.views.page import plot_page
        from offsim.views.wording import tiers_of_rank

        self._require_phases()
        tiers = {peak.tier: peak.capacity_bytes for peak in tiers_of_rank(self.peaks, rank)}
        memory = self.memory[self.memory["tier"].isin(list(tiers))]
        options = {"title": self.name, **options}
        rates = capacities(self.run)
        return plot_page(self.timeline, self.phases, self.bandwidth, rates, memory, tiers, rank=rank, **options)

    def to_perfetto(self, path: str | os.PathLike[str]) -> None:
        """Write a trace for Perfetto and chrome://tracing, gzipped if the path ends in ".gz"."""
        from offsim.results.graph import graph_of, recorded
        from offsim.views.perfetto import trace_events, write_trace

        self._require_phases()
        metadata = {"name": self.name, "scenario": self.scenario.model_dump(mode="json"), **self.figures()}
        more = None
        if self.fits:
            more, metadata["replay"] = graph_of(recorded(self.run, self.scenario))
        write_trace(path, trace_events(self.timeline, self.memory, self.bandwidth, self.phases, more), metadata)

    def to_html(self, path: str | os.PathLike[str], *, rank: int = 0) -> None:
        """Write a self-contained page: times, limits, timeline, memory, and sources of hardware values.

        Timeline and GPU memory are those of `rank`.
        """
        Comparison([self], [self.name]).to_html(path, rank=rank)

    def _require_phases(self) -> None:
        """A run that failed before its first phase has nothing to draw."""
        if self.phases.empty:
            self.require_fit()

    def __repr__(self) -> str:
        from offsim.views.facts import facts_of
        from offsim.views.text import result_lines

        return "\n  ".join(result_lines(facts_of(self, resources=False)))

    def _repr_html_(self) -> str:
        from offsim.views.facts import facts_of
        from offsim.views.html.summary import result_html

        return result_html(facts_of(self, resources=False))


class Comparison(comparisons.Comparison[Result]):
    """Results by label, with plots; speed-ups are relative to the first that fits."""

    @classmethod
    def of(cls, plain: comparisons.Comparison[results.Result]) -> Comparison:
        """The same comparison, with plots."""
        return cls([Result.of(result) for result in plain], plain.labels)

    def plot(self, **options: Any) -> Picture:
        """Timelines of the results that fit, on one time axis; options as in `plot_comparison`."""
        from offsim.views.timeline import plot_comparison

        shown = zip(self.labels, self.results, strict=True)
        return plot_comparison([(label, r.timeline, r.phases) for label, r in shown if r.fits], **options)

    def to_html(self, path: str | os.PathLike[str], *, rank: int = 0) -> None:
        """Write a page as `Result.to_html` does, with the timelines on one scale."""
        from offsim.inputs.files import atomic_write
        from offsim.validation.trust import scored
        from offsim.views.html.page import page

        data = page(self, rank=rank, scored=scored).encode()
        with atomic_write(path) as file:
            file.write(data)

    def __repr__(self) -> str:
        from offsim.views.facts import comparison_facts
        from offsim.views.text import comparison_lines

        return "\n".join(comparison_lines(comparison_facts(self)))

    def _repr_html_(self) -> str:
        from offsim.views.facts import comparison_facts
        from offsim.views.html.summary import comparison_html

        return comparison_html(comparison_facts(self))


class Survey(surveys.Survey):
    """Every registered scheduler on one scenario, with a picture."""

    def plot(self, **options: Any) -> Picture:
        """Times, limits, memory and exactness of each scheduler on one page; options as in `plot_survey`."""
        from offsim.views.survey_picture import plot_survey

        return plot_survey(self, **options)

    def __repr__(self) -> str:
        from offsim.views.survey import survey_text

        return survey_text(self)


def survey(source: simulation.Source, *, all_ranks: bool = False) -> Survey:
    """Run every registered scheduler on a scenario; those that cannot have a reason. `compare` says the rest."""
    plain = surveys.survey(source, all_ranks=all_ranks)
    return Survey(plain.scenario, plain.entries)


def _with_pictures(function: Callable[P, PlainT], drawable: Callable[[PlainT], DrawnT]) -> Callable[P, DrawnT]:
    @functools.wraps(function)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> DrawnT:
        return drawable(function(*args, **kwargs))

    return drawn


simulate = _with_pictures(simulation.simulate, Result.of)
compare = _with_pictures(comparisons.compare, Comparison.of)
