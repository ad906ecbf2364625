"""Flags of the verbs about images, as Docker's client has them, and what some add up to."""

from __future__ import annotations

from typing import Any

from hawse.docker import values
from hawse.docker.flags import Flag, Given
from hawse_agent.errors import InputError

TRUST = Flag(name="disable-content-trust", help="no signatures are checked; the default")
PLATFORM = Flag(name="platform", metavar="OS/ARCH", help="of an image that there is for several")
QUIET = Flag(name="quiet", short="q", help="say only how it ended")
FORMAT = Flag(name="format", metavar="FORMAT", help="json, table, 'table TEMPLATE', or a template of Go")
NO_TRUNC = Flag(name="no-trunc", help="whole ids and texts")

PULL = (
    Flag(name="all-tags", short="a", help="all images of the repository"),
    PLATFORM,
    QUIET,
    TRUST,
)
PUSH = (
    Flag(name="all-tags", short="a", help="all tags of the repository"),
    QUIET,
    Flag(name="platform", refused=True),
    TRUST,
)
SEARCH = (
    Flag(
        name="filter",
        short="f",
        metavar="KEY=VALUE",
        parse=values.one,
        help="by stars, is-official; may be repeated",
    ),
    FORMAT,
    Flag(name="limit", metavar="N", parse=values.integer, help="at most so many"),
    NO_TRUNC,
)
LOGIN = (
    Flag(name="username", short="u", metavar="NAME", help="who you are there"),
    Flag(name="password", short="p", metavar="PASSWORD", help="or a token; --password-stdin is safer"),
    Flag(name="password-stdin", help="read it from stdin"),
)
RMI = (
    Flag(name="force", short="f", help="also when containers or other names have it"),
    Flag(name="no-prune", help="leave its parents that have no name"),
    Flag(name="platform", refused=True),
)
HISTORY = (
    FORMAT,
    Flag(name="human", short="H", help="sizes and times for people; the default"),
    NO_TRUNC,
    Flag(name="quiet", short="q", help="ids only"),
    PLATFORM,
)
SAVE = (Flag(name="output", short="o", metavar="FILE", help="where to, instead of stdout"), PLATFORM)
LOAD = (
    Flag(name="input", short="i", metavar="FILE", help="from where, instead of stdin"),
    Flag(name="quiet", short="q", help="no progress"),
    PLATFORM,
)
CHANGE = Flag(
    name="change",
    short="c",
    metavar="INSTRUCTION",
    parse=values.one,
    help="of a Dockerfile: 'CMD [\"nginx\"]', …; may be repeated",
)
IMPORT = (
    CHANGE,
    Flag(name="message", short="m", metavar="TEXT", help="kept in the image's history"),
    PLATFORM,
)
COMMIT = (
    Flag(name="author", short="a", metavar="TEXT", help="who made it"),
    CHANGE,
    Flag(name="message", short="m", metavar="TEXT", help="kept in the image's history"),
    Flag(name="pause", short="p", help="pause the container meanwhile; the default"),
)


def operands(given: Given, verb: str, usage: str, least: int = 1, most: int | None = 1) -> list[str]:
    """What follows the flags; raises InputError when there is too little or too much."""
    count = len(given.operands)
    if count < least or (most is not None and count > most):
        raise InputError(f"{verb}: expected {usage}, got {count or 'nothing'}", hint=f"hawse {verb} {usage}")
    if not all(given.operands):
        raise InputError(f"{verb}: an empty name")
    return given.operands


def commit_query(given: Given, container: str, reference: str) -> dict[str, Any]:
    """The query of POST /commit."""
    repository, tag = split(reference)
    return {
        "container": container,
        "repo": repository,
        "tag": tag,
        "author": given.options.get("author", ""),
        "comment": given.options.get("message", ""),
        "pause": given.options.get("pause", True),
        "changes": given.options.get("change", []),
    }


def split(reference: str) -> tuple[str, str]:
    """Repository and tag, or digest; "" for none."""
    name, at, digest = reference.partition("@")
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, ""
    return path, digest if at else tag
