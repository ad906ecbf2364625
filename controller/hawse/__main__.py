"""`hawse` and `python -m hawse`."""

from __future__ import annotations

import sys


def run() -> int:
    from hawse.cli.main import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
