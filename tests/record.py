"""Record what `offsim run` prints for every shipped scenario; say how the headline numbers moved.

python -m tests.record           # writes tests/recorded/*.txt, prints old -> new
python -m tests.record --check   # prints only
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from offsim.scenario import available_scenarios
from offsim.simulation import simulate
from offsim.views.console import PLAIN
from offsim.views.facts import facts_of
from offsim.views.text import result_text

FOLDER = Path(__file__).parent / "recorded"
_PEAK = r" (\S+ \S+ of \S+ \S+) \("
HEADLINES = {
    "verdict": r"^(does not fit: .*)",
    "forward": r"^forward\b(?: \(.*?\))? +([\d.]+ \S+)",
    "backward": r"^backward\b(?: \(.*?\))? +([\d.]+ \S+)",
    "update": r"^update +([\d.]+ \S+)",
    "iteration": r"^iteration +([^,]+),",
    "tokens/s": r"^iteration .*?, ([\d,]+) tokens/s",
    "TFLOP/s per GPU": r"^iteration .* ([\d.]+) TFLOP/s",
    "limited by": r"^limited by (.*? [\d.]+ %)",
    "GPU peak": rf"^peak +.*?GPU{_PEAK}",
    "host peak": rf"^ +host memory{_PEAK}",
}


def summary(name: str) -> str:
    """What `offsim run` prints for this scenario where output is plain."""
    return result_text(facts_of(simulate(name))) + "\n"


def headlines(text: str) -> dict[str, str]:
    """The headline numbers of a summary, by name; those that it does not have are left out."""
    found = {name: re.search(pattern, text, re.MULTILINE) for name, pattern in HEADLINES.items()}
    return {name: match[1].strip() for name, match in found.items() if match}


def moved(old: str, new: str) -> list[tuple[str, str, str, str]]:
    """(headline, old, new, change in percent) of every headline that is not what it was."""
    before, after = headlines(old), headlines(new)
    names = [name for name in HEADLINES if before.get(name) != after.get(name)]
    return [
        (name, before.get(name, "-"), after.get(name, "-"), _change(before.get(name), after.get(name)))
        for name in names
    ]


def _change(old: str | None, new: str | None) -> str:
    units = {"": 1.0, "s": 1.0, "ms": 1e-3, "GiB": 1.0, "MiB": 2.0**-10, "TiB": 2.0**10}
    values = []
    for text in (old, new):
        match = re.match(r"([\d.,]+) ?(\S*)", text or "")
        if not match or match[2] not in units:
            return ""
        values.append(float(match[1].replace(",", "")) * units[match[2]])
    return f"{100 * (values[1] / values[0] - 1):+.1f} %" if values[0] else ""


def main() -> None:
    """Compare every scenario's summary with the recorded one, and replace that."""
    write = "--check" not in sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    recorded = {path.stem: path for path in FOLDER.glob("*.txt")}
    rows: list[tuple[object, ...]] = []
    for name in available_scenarios():
        path = FOLDER / f"{name}.txt"
        old = path.read_text(encoding="utf-8") if name in recorded else ""
        new = summary(name)
        changes = moved(old, new) if old else [("new", "", headlines(new).get("iteration", "does not fit"), "")]
        if old and old != new and not changes:
            changes = [("details only", "", "", "")]
        rows += [(name if i == 0 else "", *change) for i, change in enumerate(changes) if old != new]
        if write:
            path.write_text(new, encoding="utf-8")
    for name in sorted(recorded.keys() - available_scenarios().keys()):
        rows.append((name, "gone", "", "", ""))
        if write:
            recorded[name].unlink()
    print(PLAIN.table(rows, ("scenario", "", "old", "new", "change"), "llllr") if rows else "nothing moved")


if __name__ == "__main__":
    main()
