"""Runs test files side by side, each with pytest in a session of its own, and prints each one's output whole.

    python -m tests.support.sidebyside [--jobs N] PATH… [-- PYTEST-OPTION…]

Tests wait more than they compute, and what they share (daemon, hosts) is shared by a file: so a file is
what is handed out, and what one file does is not seen by the next: the paths in the order in which they are
given, the largest file of each first. A directory of tests that need no session (`tests/unit`,
`tests/contract`) goes as one.

While they run, a line tells from time to time what runs and for how long; at the end come all reasons for
skips and all failures once more. Exit code: the worst of pytest's, where a file without any of the tests
asked for counts as passed.
Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

NO_SESSION = ("tests/unit", "tests/contract")
NO_TESTS = 5
"""pytest's exit code when everything was deselected."""
_TELL_EVERY = 30.0
LONGEST = 900.0
"""Seconds after which a file is ended: it hangs, and shows where."""
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|error|xfailed|xpassed)")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one pytest runs."""

    path: str
    session: bool

    def command(self, options: Sequence[str]) -> list[str]:
        own = ("-q", "-ra", "-p", "no:cacheprovider", "-p", "tests.support.whereabouts")
        pytest = [sys.executable, "-m", "pytest", *own, *options, self.path]
        return [sys.executable, "-m", "tests.support.isolation", "--", *pytest] if self.session else pytest


@dataclass(frozen=True, kw_only=True)
class Running:
    part: Part
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    since: float


@dataclass(frozen=True, kw_only=True)
class Result:
    part: Part
    code: int
    output: str
    seconds: float


def parts(paths: Sequence[str]) -> list[Part]:
    """In the order in which they start."""
    found = []
    for path in paths:
        files = sorted(Path(path).rglob("test_*.py"), key=lambda file: file.stat().st_size, reverse=True)
        if path.startswith(NO_SESSION) or not files:
            found.append(Part(path=path, session=not path.startswith(NO_SESSION)))
        else:
            found += [Part(path=str(file), session=True) for file in files]
    return found


def run(
    waiting: Sequence[Part], options: Sequence[str], jobs: int, longest: float = LONGEST
) -> Generator[Result, None, None]:
    """Gives results as they come; ends what runs when it is left early."""
    queue, count, told = deque(waiting), len(waiting), time.monotonic()
    running: dict[int, Running] = {}  # by a descriptor that is readable when it has ended
    poll = select.poll()
    try:
        while queue or running:
            while queue and len(running) < jobs:
                started = _start(queue.popleft(), options)
                running[ended := os.pidfd_open(started.process.pid)] = started
                poll.register(ended, select.POLLIN)
            for ended, _ in poll.poll(max(0.0, told + _TELL_EVERY - time.monotonic()) * 1000):
                poll.unregister(ended)
                os.close(ended)
                yield _result(running.pop(ended))
            if time.monotonic() >= told + _TELL_EVERY:
                told = time.monotonic()
                names = ", ".join(f"{one.part.path} for {told - one.since:.0f} s" for one in running.values())
                print(f"-- {count - len(queue) - len(running)} of {count} done; {names}", flush=True)
            for one in running.values():
                if time.monotonic() > one.since + longest:
                    one.process.terminate()
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.wait()


def _start(part: Part, options: Sequence[str]) -> Running:
    output = tempfile.TemporaryFile()  # noqa: SIM115, closed with its result
    process = subprocess.Popen(
        part.command(options), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )
    return Running(part=part, process=process, output=output, since=time.monotonic())


def _result(one: Running) -> Result:
    one.process.wait()
    with one.output as output:
        output.seek(0)
        text = output.read().decode(errors="replace")
    code = 0 if one.process.returncode == NO_TESTS else one.process.returncode
    seconds = time.monotonic() - one.since
    return Result(part=one.part, code=code, output=text, seconds=seconds)


def summary(results: Sequence[Result], seconds: float) -> str:
    """Counts of all, reasons for skips with how many each has, failures."""
    counts: Counter[str] = Counter()
    skips: Counter[str] = Counter()
    failures = []
    for result in results:
        lines = result.output.splitlines()
        for number, what in _COUNT.findall(lines[-1] if lines else ""):
            counts[what] += int(number)
        for line in lines:
            if skipped := re.match(r"SKIPPED \[(\d+)\] (.*)", line):
                skips[skipped[2]] += int(skipped[1])
            elif re.match(r"(FAILED|ERROR) tests/", line):
                failures.append(line)
        if result.code and not any(result.part.path in line for line in failures):
            failures.append(f"FAILED {result.part.path}: exit code {result.code}")
    text = [f"SKIPPED [{number}] {reason}" for reason, number in sorted(skips.items())]
    slowest = sorted(results, key=lambda result: -result.seconds)[:5]
    text.append("slowest: " + ", ".join(f"{result.part.path} {result.seconds:.0f} s" for result in slowest))
    text += failures
    total = ", ".join(f"{number} {what}" for what, number in counts.items())
    return "\n".join([*text, f"{total or 'no tests'} in {seconds:.0f} s"])


def main(argv: Sequence[str]) -> int:
    ours, options = list(argv), []
    if "--" in ours:
        ours, options = ours[: ours.index("--")], ours[ours.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="sidebyside")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("paths", nargs="+")
    words = parser.parse_args(ours)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in its background jobs
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begun, results, code = time.monotonic(), [], 0
    try:
        with contextlib.closing(run(parts(words.paths), options, words.jobs)) as coming:
            for result in coming:
                results.append(result)
                code = max(code, abs(result.code))
                print(f"== {result.part.path} ({result.seconds:.1f} s)\n{result.output.strip()}", flush=True)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        print("== interrupted", flush=True)
    print(f"== all\n{summary(results, time.monotonic() - begun)}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
