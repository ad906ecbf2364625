"""Which hosts a pattern means: `web:&prod:!web3`, `db*`, `~web\\d+`, `web[0:1]`. As Ansible, but strict.

A term that means nothing is an error, not a warning: a misspelt group must not silently shrink a run. An
excluded glob or regex may match nothing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from hawse.inventory.graph import Graph, Host
from hawse.inventory.ranges import is_address
from hawse_agent.errors import InputError

_SUBSCRIPT = re.compile(r"(?P<name>.+)\[(?:(?P<index>-?\d+)|(?P<start>\d+)[:-](?P<end>\d*))\]")
_SPLIT = re.compile(r":(?![^\[]*\])")

Implicit = Callable[[str], Host | None]


def split(pattern: str | Sequence[str]) -> list[str]:
    """The terms of a pattern: by commas when there is one, by colons otherwise."""
    if not isinstance(pattern, str):
        return [term for part in pattern for term in split(part)]
    pattern = pattern.strip()
    if "," in pattern:
        terms = pattern.split(",")
    elif is_address(pattern) and ":" in pattern:
        terms = [pattern]
    else:
        terms = _SPLIT.split(pattern)
    return [term.strip() for term in terms if term.strip()]


def match(graph: Graph, pattern: str | Sequence[str], implicit: Implicit) -> list[Host]:
    """The hosts, each once. Raises InputError for a term that means nothing here."""
    terms = split(pattern)
    plain = [term for term in terms if term[0] not in "&!"]
    kept = [term for term in terms if term[0] == "&"]
    excluded = [term for term in terms if term[0] == "!"]
    hosts = [host for term in plain or ["all"] for host in _term(graph, term, implicit, strict=True)]
    for term in kept:
        wanted = _term(graph, term[1:], implicit, strict=True)
        hosts = [host for host in hosts if host in wanted]
    for term in excluded:
        dropped = _term(graph, term[1:], implicit, strict=False)
        hosts = [host for host in hosts if host not in dropped]
    return list(dict.fromkeys(hosts))


def _term(graph: Graph, term: str, implicit: Implicit, *, strict: bool) -> list[Host]:
    if term in graph.hosts:
        return [graph.hosts[term]]
    subscript = None if term.startswith("~") else _SUBSCRIPT.fullmatch(term)
    name = subscript["name"] if subscript else term
    matches = _matcher(name)
    groups = [group for group in graph.groups.values() if matches(group.name)]
    hosts = [host for group in groups for host in graph.hosts_of(group)]
    wild = name.startswith("~") or any(char in name for char in ".?*[")
    named: list[Host] = []
    if not groups or wild:
        named = [host for host in graph.hosts.values() if matches(host.name)]
    hosts = list(dict.fromkeys(hosts + named))
    if not groups and not named:
        local = implicit(term)
        if local is not None:
            return [local]
        if strict or not wild:
            raise _unknown(graph, term)
    return _chosen(hosts, subscript) if subscript else hosts


def _matcher(name: str) -> Callable[[str], bool]:
    if not name.startswith("~"):
        return lambda candidate: fnmatchcase(candidate, name)
    try:
        expression = re.compile(name[1:])
    except re.error as error:
        raise InputError(f"not a valid regular expression in {name!r}: {error}") from None
    return lambda candidate: expression.match(candidate) is not None


def _chosen(hosts: list[Host], subscript: re.Match[str]) -> list[Host]:
    single = subscript["index"] or (subscript["start"] if subscript["end"] == "0" else None)
    if single is None:  # a slice, its end included
        return hosts[int(subscript["start"]) : int(subscript["end"]) + 1 if subscript["end"] else None]
    index = int(single)  # an end of 0 is no end at all, as in Ansible: one host
    if not -len(hosts) <= index < len(hosts):
        raise InputError(f"{subscript[0]!r} is out of range: {subscript['name']!r} has {len(hosts)} hosts")
    return [hosts[index]]


def _unknown(graph: Graph, term: str) -> InputError:
    known = [*graph.groups, *graph.hosts]
    close = difflib.get_close_matches(term, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`hawse inventory --graph` shows what there is"
    return InputError(f"no host and no group matches {term!r}", hint=hint)
