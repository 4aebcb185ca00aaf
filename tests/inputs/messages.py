"""What wrong input is answered with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offsim.inputs.errors import InputError


def message_of(call: Callable[[], object]) -> str:
    """The message of the InputError that a call raises."""
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)
