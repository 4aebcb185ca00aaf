"""Jinja templates, HTML and Markdown, and the filters that they have in common."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import jinja2

from offsim.results.units import format_bytes, format_percent, format_rate, format_time, plural

FILTERS: dict[str, Callable[..., str]] = {
    "time": format_time,
    "bytes": format_bytes,
    "rate": format_rate,
    "percent": format_percent,
    "plural": plural,
    "first_upper": lambda text: text[:1].upper() + text[1:],
    "fill": lambda text: (
        textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"
    ),
    "cell": lambda value: " ".join(str(value).splitlines()).replace("|", "\\|"),
}
"""`fill` sets a paragraph in lines of 120 characters; `cell` keeps a text within its cell of a Markdown table."""


def templates(folder: Path, *, html: bool) -> jinja2.Environment:
    """The templates of a folder; `html` escapes what is put into them."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
    environment.filters |= FILTERS
    return environment
