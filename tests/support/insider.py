"""What a container tries against its host; runs inside, by `python3 -IS /insider.py PROBE…`, prints JSON.

A probe that succeeds does no harm: what must not be writable is opened for writing and closed, what must not
be called is called with arguments that do nothing. Its outcome is a value, or the name of an errno.
Standard library only.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any

Probe = Callable[..., Any]
PROBES: dict[str, Probe] = {}


def probe(function: Probe) -> Probe:
    PROBES[function.__name__] = function
    return function


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def opens(path: str, flags: int) -> str:
    os.close(os.open(path, flags | os.O_CLOEXEC))
    return "opened"


@probe
def write(path: str) -> str:
    return opens(path, os.O_WRONLY)


@probe
def read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read(200).decode("latin-1")


def main() -> None:
    """`PROBE` or `PROBE:ARGUMENT`."""
    results = {}
    for word in sys.argv[1:]:
        name, given, argument = word.partition(":")
        arguments = (argument,) if given else ()
        results[word] = outcome(lambda name=name, arguments=arguments: PROBES[name](*arguments))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
