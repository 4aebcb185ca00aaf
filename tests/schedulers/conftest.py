"""Checks of the conformance suite show what they compared."""

import pytest

pytest.register_assert_rewrite("conformance")
