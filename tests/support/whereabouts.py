"""A plugin of pytest: ended from outside, by SIGTERM, it says first where it is, in all threads.

Not pytest's `faulthandler_timeout`, which watches in a thread: some tests enter namespaces, and the kernel
lets only a process of one thread come back.
"""

from __future__ import annotations

import faulthandler
import os
import signal


def pytest_configure() -> None:
    # Nothing is captured yet; what is captured later would be lost with the process.
    stderr = os.dup(2)
    faulthandler.register(signal.SIGTERM, file=stderr, chain=True)
