"""For all tests: a session's own /tmp, and the check that a test in a session leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import isolation, leaks

SESSION = isolation.current()

if SESSION is not None:
    isolation.use_own_tmp(SESSION)


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Set up after the fixtures of wider scope, torn down after those of the test."""
    if SESSION is None:
        yield
        return
    before = leaks.snapshot(SESSION.directory)
    yield
    left = leaks.wait_for(before, SESSION.directory)
    if left:
        pytest.fail("this test leaks:\n" + "\n".join(left), pytrace=False)
