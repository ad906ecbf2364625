"""For all tests: a session's own /tmp, and the check that a test in a session leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import isolation, leaks

SESSION = isolation.current()

if SESSION is not None:
    isolation.use_own_tmp(SESSION)


@pytest.fixture(scope="module")
def _settling() -> list[bool]:
    """Filled by the first test of a file that looks for leaks."""
    return []


@pytest.fixture
def no_leaks(_settling: list[bool]) -> Iterator[None]:
    """Set up after the fixtures of wider scope, torn down after those of the test."""
    if SESSION is None:
        yield
        return
    if not _settling:  # what was prepared for the whole file may have ended something
        leaks.settle(SESSION.directory)
        _settling.append(True)
    before = leaks.snapshot(SESSION.directory)
    yield
    left = leaks.wait_for(before, SESSION.directory)
    if left:
        pytest.fail("this test leaks:\n" + "\n".join(left), pytrace=False)
