"""Every engine test is checked for leaks."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(no_leaks: None) -> None:
    """See `no_leaks`."""
