"""The templates of the validation page and of reports, in Markdown."""

from __future__ import annotations

from pathlib import Path

from offsim.validation.report import signed_percent
from offsim.views.style import look_of
from offsim.views.templates import templates


def render(template: str, **values: object) -> str:
    """One of the templates."""
    environment = templates(Path(__file__).parent / "templates", html=False)
    environment.filters |= {"label": lambda kind: look_of(kind).label, "signed": signed_percent, "times": _factor}
    return environment.get_template(template).render(**values)


def _factor(factor: float | str) -> str:
    """How many times as long, "1.20x"; a word as it is."""
    return factor if isinstance(factor, str) else f"{factor:.2f}x" if factor < 9.995 else f"{factor:.1f}x"
