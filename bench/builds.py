"""A build of ten steps, with 200 small files and 20 MB, by the docker command: nothing cached, all cached."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from bench.containers import IMAGE, image
from bench.engines import Engine, dockerd, hawse
from bench.table import Row, paired

FILES = 200
MEGABYTES = 20
TIMES = 5
DOCKERFILE = f"""\
FROM {IMAGE}
ARG ROUND
WORKDIR /app
COPY small /app/small
RUN ls /app/small | wc -l > /app/count
ENV MODE=production
COPY large /app/large
RUN md5sum /app/large > /app/sum
RUN mkdir -p /var/lib/app && touch /var/lib/app/ready
EXPOSE 8080
CMD ["true"]
"""


def possible() -> str:
    """Why not, or nothing."""
    missing = [program for program in ("docker", "dockerd") if shutil.which(program) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def rows(directory: Path) -> list[Row]:
    context = _context(directory / "context")
    with hawse(directory / "hawse") as ours, dockerd(directory / "docker") as theirs:
        archive = image(directory)
        for engine in (ours, theirs):
            engine.api().load(archive)
        mine, other = paired(_fresh(ours, context), _fresh(theirs, context), TIMES)
        fresh = Row(
            what=f"build, 10 steps, {FILES} small files and {MEGABYTES} MB, no cache",
            peer="docker build",
            theirs=other,
            ours=mine,
            unit="ms",
            budget=0.5,
        )
        mine, other = paired(_build(ours, context), _build(theirs, context), TIMES)
        cached = Row(
            what="the same build, all cached",
            peer="docker build",
            theirs=other,
            ours=mine,
            unit="ms",
            budget=0.5,
        )
        return [fresh, cached]


def _context(context: Path) -> Path:
    (context / "small").mkdir(parents=True)
    for number in range(FILES):
        (context / f"small/{number}").write_bytes(os.urandom(2000))
    (context / "large").write_bytes(os.urandom(MEGABYTES * 1_000_000))
    (context / "Dockerfile").write_text(DOCKERFILE)
    return context


def _fresh(engine: Engine, context: Path) -> Callable[[], object]:
    return lambda: _run(engine, context, "--no-cache", "--build-arg", f"ROUND={uuid.uuid4()}")


def _build(engine: Engine, context: Path) -> Callable[[], object]:
    return lambda: _run(engine, context)


def _run(engine: Engine, context: Path, *words: str) -> None:
    subprocess.run(
        ["docker", "build", "-q", *words, context],
        env={**os.environ, "DOCKER_HOST": f"unix://{engine.socket}", "DOCKER_BUILDKIT": "0"},
        check=True,
        capture_output=True,
    )
