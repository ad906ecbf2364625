"""Runs the agent with a wall clock that a test can set: `python -m tests.support.clock FILE daemon …`.

FILE holds how many seconds it is ahead, and is looked at each time. The zygote and its shims are forks, so
they have the same clock.
"""

from __future__ import annotations

import os
import sys
import time

real = time.time


def main() -> int:
    fd = os.open(sys.argv.pop(1), os.O_RDONLY | os.O_CLOEXEC)
    time.time = lambda: real() + float(os.pread(fd, 32, 0) or 0)
    from hawse_agent.__main__ import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
