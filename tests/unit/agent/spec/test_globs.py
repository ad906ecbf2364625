"""Wildcards: what many of them cost, and that all ways of matching them agree."""

from __future__ import annotations

import itertools
import re

from hawse_agent.build.expansion import expand
from hawse_agent.spec.automaton import ALL, DIRECTORIES, Automaton
from hawse_agent.spec.globs import STAR, in_turn, match
from hawse_agent.spec.ignore import Ignore

_MANY = "a*" * 13 + "b"
"""Of which a search that tries again would not be done before the machine is scrap."""


def test_many_stars_take_no_time() -> None:
    assert not match(_MANY, "a" * 200)
    assert match(_MANY, "a" * 200 + "b")
    assert not Ignore.parse(_MANY).excludes("a" * 200)
    assert not Ignore.parse("**/a" * 13 + "b").excludes("/".join("a" * 200))
    assert Ignore.parse("**/a" * 13 + "b").excludes("/".join("a" * 200) + "b")
    for form in ("#", "##", "%", "%%"):
        assert expand(f"${{x{form}{_MANY}}}", {"x": "a" * 1000}) == "a" * 1000
    assert expand(f"${{x//{_MANY}/c}}", {"x": "a" * 1000}) == "a" * 1000


def test_all_ways_to_match_agree() -> None:
    names = ["".join(one) for size in range(5) for one in itertools.product("ab/", repeat=size)]
    for parts in itertools.product(["a", "[^/]", STAR, ALL, DIRECTORIES], repeat=3):
        plain, automaton = re.compile("".join(parts)), Automaton(parts)
        for name in names:
            assert automaton.matches(name) == bool(plain.fullmatch(name)), (parts, name)
    for parts in itertools.product(["a", "/", "[^/]", STAR], repeat=4):
        plain, once = re.compile("".join(parts)), re.compile(in_turn(parts, STAR))
        for name in names:
            assert bool(once.fullmatch(name)) == bool(plain.fullmatch(name)), (parts, name)
