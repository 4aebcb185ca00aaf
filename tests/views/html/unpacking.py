"""What a page draws, as its script reads it."""

from __future__ import annotations

from typing import Any


def unpacked(value: Any) -> Any:
    """The document as the page's script reads it."""
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "ints" not in value:
        return {key: unpacked(one) for key, one in value.items()}
    words = (word.partition("*") for word in value["ints"].split(" "))
    return [int(number, 36) for number, _, times in words for _ in range(int(times or "1", 36))]
