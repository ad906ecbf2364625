"""COPY and ADD as they fall: every kind of source into every kind of destination, by a seed."""

from __future__ import annotations

import random

from tests.support.buildrows import TREE, Row

_SOURCES = (
    *("x.txt", "y.txt", "empty.txt", "toplink", "dirlink", "dirlink/", "d", "d/", "d/sub", "d/sub/empty"),
    *("d/link", "d/.hidden", "d/sub/c.txt", "./d/.", "dirlink/a.txt", "dirlink/sub"),
    *("*.txt", "d/*.txt", "d/s*", "[xy]*"),
)
_DESTINATIONS = (
    *("/new{}", "/new{}/", "/new{}/a/b", "new{}", "new{}/in/", "../new{}", "/tmp/new{}", "/tmp"),
    *("/links/relative", "/links/absolute/", "/links/relative/new{}", "/have/directory", "/have/new{}/"),
)
_FLAGS = ("", "", "", "--chown=bob ", "--chown=7:8 ")
_PLACES = """
WORKDIR /work/in
RUN mkdir -p /links /real /other /have/directory \\
    && ln -s ../real /links/relative && ln -s /other /links/absolute \\
    && chmod 700 /have/directory && chown 3:4 /have/directory
"""
_STAGE = """
FROM corpus/base:1 AS source
RUN mkdir -p /s/d/sub/empty && cd /s \\
    && for f in x.txt y.txt d/a.txt d/b.txt d/sub/c.txt d/.hidden; do echo $f > $f; done && : > empty.txt \\
    && ln -s x.txt toplink && ln -s d dirlink && ln -s a.txt d/link && ln d/b.txt d/hard && mkfifo d/pipe \\
    && chmod 4755 d/sub/c.txt && chown 5:6 d/a.txt d/sub && chmod 2775 d/sub && chmod 700 d/sub/empty \\
    && chown bob y.txt
"""


def row(seed: int, *, of_a_stage: bool, lines: int = 20) -> Row:
    chance = random.Random(seed)
    said = [_line(chance, number, of_a_stage) for number in range(lines)]
    head = (_STAGE if of_a_stage else "") + "FROM corpus/base:1" + _PLACES
    return Row(feature="", dockerfile=head.lstrip() + "\n".join(said) + "\n", context=TREE)


def _line(chance: random.Random, number: int, of_a_stage: bool) -> str:
    sources = [chance.choice(_SOURCES) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    destination = chance.choice(_DESTINATIONS).format(number)
    if len(sources) > 1 or any(char in sources[0] for char in "*["):
        destination = destination.rstrip("/") + "/"
    word = "COPY --from=source" if of_a_stage else chance.choice(("COPY", "ADD"))
    top = "/s/" if of_a_stage else ""
    return f"{word} {chance.choice(_FLAGS)}{' '.join(top + one for one in sources)} {destination}"
